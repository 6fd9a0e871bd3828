// Stacks for fibers: mapped in large slabs, each with a guard page below it, handed out last in, first out,
// so that a warm spawn gets pages that are still in the cache and makes no system call.
//
// One page of a stack is touched by a fiber that does little; the rest is address space only. The guard is
// MADV_GUARD_INSTALL where the kernel has it (Linux 6.13), which splits no mapping, so a million stacks are
// a handful of mappings; elsewhere it is mprotect, two mappings a stack, up to vm.max_map_count.
#pragma once

#include <cstddef>
#include <memory>
#include <span>
#include <vector>

namespace annulet {

enum class stack_guard {
  best,      // MADV_GUARD_INSTALL, or mprotect where the kernel refuses that
  mprotect,  // as on an older kernel
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

// Belongs to one thread, as its hub does. A handle may outlive the hub, and the stack that holds its fiber's
// result with it: the pool goes when the hub has let it go and the last stack is back.
class stack_pool {
 public:
  struct orphan {
    void operator()(stack_pool* pool) const noexcept { pool->let_go(); }
  };
  using owner = std::unique_ptr<stack_pool, orphan>;

  [[nodiscard]] static owner make(stack_guard guard) { return owner(new stack_pool(guard)); }
  stack_pool(const stack_pool&) = delete;
  stack_pool& operator=(const stack_pool&) = delete;

  // Throws std::invalid_argument for a size out of bounds and std::system_error (ENOMEM) where no memory or
  // no further mapping is to be had.
  [[nodiscard]] stack acquire(std::size_t size);
  static void release(const stack& s) noexcept;

  [[nodiscard]] std::size_t in_use() const noexcept { return in_use_; }

 private:
  struct free_stack {  // lies at the top of the stack it stands for
    free_stack* next;
  };
  struct size_class {
    std::size_t size;
    free_stack* free;  // given back, the latest first
    std::byte* fresh;  // the newest slab's stacks that nobody has had, and that cost no memory yet
    std::size_t fresh_left;
  };
  struct slab {
    std::byte* start;
    std::size_t length;
  };

  explicit stack_pool(stack_guard guard) noexcept : guard_(guard) {}
  ~stack_pool();

  unsigned class_of(std::size_t size);
  [[gnu::cold]] unsigned add_class(std::size_t size);
  void grow(size_class& sizes);
  [[nodiscard]] std::byte* map_slab(std::size_t size, std::size_t count);
  void install_guard(std::byte* page);
  void let_go() noexcept;

  std::vector<size_class> classes_;
  std::vector<slab> slabs_;
  std::size_t in_use_ = 0;
  stack_guard guard_;
  bool orphaned_ = false;
};

}  // namespace detail

}  // namespace annulet
