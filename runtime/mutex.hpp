// Mutual exclusion of fibers, first come first served: unlock() hands the lock to who waited longest, so
// nobody can take it in between. For std::unique_lock and std::lock_guard, as std::timed_mutex is.
//
// On one thread two fibers never run at once; what needs a mutex is a section that parks half-way.
//
// For the fibers of one thread. A fiber that was killed while it waited is never handed the lock; one that
// was handed it first has it, and meets the kill at its next park.
#pragma once

#include "deadline.hpp"
#include "wait_queue.hpp"

#include <cstdint>

namespace [[gnu::visibility("default")]] annulet {

class mutex {
 public:
  mutex() = default;
  mutex(const mutex&) = delete;
  mutex& operator=(const mutex&) = delete;
  // Fibers that still wait for it get std::logic_error out of lock().
  ~mutex() = default;

  // Parks until it is this fiber's. std::logic_error where it is already.
  void lock() { (void)lock(deadline::never()); }
  // False where the deadline came first.
  [[nodiscard]] bool lock(deadline until) { return lock(until, "mutex::lock"); }
  // Does not park. False where somebody has it, this fiber included.
  bool try_lock() { return try_lock("mutex::try_lock"); }
  // Does not park. std::logic_error where another fiber has it, or none.
  void unlock() { unlock("mutex::unlock"); }

  // Whether the running fiber has it.
  [[nodiscard]] bool held() { return held("mutex::held"); }

  // For std::unique_lock(m, 50ms).
  bool try_lock_for(deadline until) { return lock(until); }
  bool try_lock_until(deadline until) { return lock(until); }

 private:
  friend class condition_variable;
  friend class recursive_mutex;

  // For who calls them something else.
  bool lock(deadline until, const char* call);
  bool try_lock(const char* call);
  void unlock(const char* call);
  bool held(const char* call);

  [[nodiscard]] bool relock();

  static constexpr std::uint64_t nobody = 0;

  detail::wait_queue waiting_;
  std::uint64_t holder_ = nobody;  // a fiber's id, which no later one has, as its address may be
};

}  // namespace annulet
