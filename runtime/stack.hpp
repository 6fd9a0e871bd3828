// Stacks for fibers: mapped in large slabs, each with a guard page below it, handed out last in, first out,
// so that a warm spawn gets pages that are still in the cache and makes no system call.
//
// One page of a stack is touched by a fiber that does little; the rest is address space only. The guard is
// MADV_GUARD_INSTALL where the kernel has it (Linux 6.13), which splits no mapping, so a million stacks are
// a handful of mappings; elsewhere it is mprotect, two mappings a stack, up to vm.max_map_count.
//
// A stack that comes back keeps its memory, for the next fiber to find it warm. What is idle for long is
// given back to the kernel, when the thread has nothing else to do: see trim_some().
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

namespace annulet {

enum class stack_guard {
  best,      // MADV_GUARD_INSTALL, or mprotect where the kernel refuses that
  mprotect,  // as on an older kernel
};

// What is said when a fiber runs over its stack: stack_overflow.hpp. The process ends by SIGSEGV either way.
enum class overflow_report {
  on_stderr,  // which fiber it was: by a handler for SIGSEGV, which passes on what it gets
  none,       // no handler of ours, and no signal stack
};

// Bytes of address space. What is between is rounded up to whole pages.
// The smallest holds the hub's wait and a signal frame of this CPU.
[[nodiscard, gnu::visibility("default")]] std::size_t smallest_stack_size() noexcept;
inline constexpr std::size_t default_stack_size = std::size_t{256} << 10;
inline constexpr std::size_t largest_stack_size = std::size_t{1} << 30;

namespace detail {

class stack_pool;

// The usable part of a stack. It grows down from its end.
struct stack {
  std::span<std::byte> memory;
  stack_pool* pool = nullptr;  // where it goes back to
  unsigned size_class = 0;
};

// Bytes from the stack's end down to the lowest page of it that is in memory. One system call for each 2 MiB
// that nobody has touched.
[[nodiscard]] std::size_t stack_used(const stack& s) noexcept;

// Belongs to one thread, as its hub does. A handle may outlive the hub, and the stack that holds its fiber's
// result with it: the pool goes when the hub has let it go and the last stack is back.
class stack_pool {
 public:
  struct orphan {
    void operator()(stack_pool* pool) const noexcept { pool->let_go(); }
  };
  using owner = std::unique_ptr<stack_pool, orphan>;

  // How much of the stacks that nobody uses stays as it is, in bytes of address space, and for how long the
  // others must have been idle (nanoseconds) before their memory is given back.
  static constexpr std::size_t kept_warm = std::size_t{16} << 20;
  static constexpr std::int64_t idle_time = 1'000'000'000;

  [[nodiscard]] static owner make(stack_guard guard) { return owner(new stack_pool(guard)); }
  stack_pool(const stack_pool&) = delete;
  stack_pool& operator=(const stack_pool&) = delete;

  // Throws std::invalid_argument for a size out of bounds and std::system_error (ENOMEM) where no memory or
  // no further mapping is to be had; then nothing has changed.
  [[nodiscard]] stack acquire(std::size_t size);
  static void release(const stack& s) noexcept;

  [[nodiscard]] std::size_t in_use() const noexcept { return in_use_; }

  // Whether stacks of more than kept_warm bytes wait that may have memory: then there is something to trim
  // when the thread is idle.
  [[nodiscard]] bool has_surplus() const noexcept;
  // Gives back the memory of a few stacks that have waited for idle_time; `now` in steady nanoseconds. Takes
  // some 20 us. False where there is nothing to do before next_trim().
  bool trim_some(std::int64_t now) noexcept;
  [[nodiscard]] std::int64_t next_trim() const noexcept { return next_look_; }
  // Gives back the memory of all stacks that wait.
  void trim_all() noexcept;

  // Of the stack whose guard page has this address; empty where none has. May be asked by a handler of a
  // signal that interrupts any other call.
  [[nodiscard]] std::span<std::byte> guarded_at(const void* address) const noexcept;

 private:
  struct size_class {
    std::size_t size;
    // Those that were given back, the latest last; there is room for all that there are.
    std::unique_ptr<std::byte*[]> waiting;
    std::size_t waits = 0;
    std::size_t least = 0;  // that waited at any time since the last look
    std::size_t cold = 0;   // of the first so many the memory was given back, and of all these
    std::size_t idle = 0;   // the first so many is to be
    std::size_t stacks = 0;
    std::size_t room = 0;
    std::byte* fresh = nullptr;  // the newest slab's stacks that nobody has had, and that cost no memory yet
    std::size_t fresh_left = 0;
  };
  struct slab {
    slab* next;
    std::byte* start;
    std::size_t length;
    std::size_t stride;  // from guard to guard
  };

  explicit stack_pool(stack_guard guard) noexcept : guard_(guard) {}
  ~stack_pool();

  unsigned class_of(std::size_t size);
  [[gnu::cold]] unsigned add_class(std::size_t size);
  void grow(size_class& sizes);
  static void make_room(size_class& sizes, std::size_t stacks);
  [[nodiscard]] std::byte* map_slab(std::size_t size, std::size_t count);
  void install_guard(std::byte* page);
  void let_go() noexcept;
  static void cool(size_class& sizes) noexcept;
  void look_for_idle(std::int64_t now) noexcept;

  std::vector<size_class> classes_;
  std::atomic<slab*> slabs_{nullptr};  // a handler may read them at any time
  std::size_t in_use_ = 0;
  std::int64_t next_look_ = 0;
  stack_guard guard_;
  bool orphaned_ = false;
};

}  // namespace detail

}  // namespace annulet
