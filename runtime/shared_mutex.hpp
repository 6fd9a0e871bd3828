// A lock that many readers share or one writer has, first come first served: a reader that comes while a
// writer waits stands behind it, so writers do not starve, and neither do readers. For std::unique_lock and
// std::shared_lock, as std::shared_timed_mutex is.
//
// For the fibers of one thread. Who reads is known, so that no other can unlock it for him; finding him takes
// as long as there are readers.
#pragma once

#include "deadline.hpp"
#include "wait_queue.hpp"

#include <cstddef>
#include <cstdint>
#include <vector>

namespace [[gnu::visibility("default")]] annulet {

class shared_mutex {
 public:
  shared_mutex() = default;
  shared_mutex(const shared_mutex&) = delete;
  shared_mutex& operator=(const shared_mutex&) = delete;
  // Fibers that still wait for it get std::logic_error out of their call.
  ~shared_mutex();

  // For writing. Parks until it is this fiber's alone. std::logic_error where it is already, or where this
  // fiber has it for reading.
  void lock() { (void)lock(deadline::never()); }
  // False where the deadline came first.
  [[nodiscard]] bool lock(deadline until);
  // Does not park.
  bool try_lock();
  // Does not park. std::logic_error where this fiber does not have it for writing.
  void unlock();

  // For reading. Parks while a writer has it or waits for it. std::logic_error where this fiber has it for
  // writing, or would wait for itself: it has it for reading, and a writer waits. std::bad_alloc.
  void lock_shared() { (void)lock_shared(deadline::never()); }
  // False where the deadline came first.
  [[nodiscard]] bool lock_shared(deadline until);
  // Does not park.
  bool try_lock_shared();
  // Does not park. std::logic_error where this fiber does not have it for reading.
  void unlock_shared();

  // For std::unique_lock(m, 50ms) and std::shared_lock(m, 50ms).
  bool try_lock_for(deadline until) { return lock(until); }
  bool try_lock_until(deadline until) { return lock(until); }
  bool try_lock_shared_for(deadline until) { return lock_shared(until); }
  bool try_lock_shared_until(deadline until) { return lock_shared(until); }

 private:
  struct visit_tag;
  struct queued;
  enum class wish : bool { reading, writing };

  [[nodiscard]] bool in_use() const noexcept { return writer_ != nobody || !readers_.empty(); }
  void require_not_writer(const char* call);
  void require_not_reader(const char* call);
  void make_room();
  bool wait(queued& w, deadline until);
  void serve() noexcept;

  static constexpr std::uint64_t nobody = 0;

  detail::wait_queue waiting_;
  // Those in wait(), also when they have been woken: who gave up has to know whether this is there still.
  detail::intrusive_list<queued, visit_tag> visitors_;
  std::uint64_t writer_ = nobody;       // a fiber's id
  std::vector<std::uint64_t> readers_;  // the fibers' ids; there is room for those that wait to read
  std::size_t waiting_readers_ = 0;
};

}  // namespace annulet
