// A mutex that its holder may lock again, and has to unlock as often. All else is as in mutex.hpp.
#pragma once

#include "mutex.hpp"

#include <cstddef>

namespace [[gnu::visibility("default")]] annulet {

class recursive_mutex {
 public:
  // Parks until it is this fiber's.
  void lock() { (void)lock(deadline::never()); }
  // False where the deadline came first.
  [[nodiscard]] bool lock(deadline until) {
    constexpr const char* call = "recursive_mutex::lock";
    if (mutex_.held(call)) {
      detail::wait_queue::throw_if_overdue();
      ++locked_again_;
      detail::wait_queue::breathe();
      return true;
    }
    return mutex_.lock(until, call);  // after which this may be gone
  }
  // Does not park. False where another fiber has it.
  bool try_lock() {
    constexpr const char* call = "recursive_mutex::try_lock";
    if (!mutex_.held(call)) {
      return mutex_.try_lock(call);
    }
    ++locked_again_;
    return true;
  }
  // Does not park. std::logic_error where another fiber has it, or none.
  void unlock() {
    constexpr const char* call = "recursive_mutex::unlock";
    if (locked_again_ == 0 || !mutex_.held(call)) {
      mutex_.unlock(call);
    } else {
      --locked_again_;
    }
  }

  bool try_lock_for(deadline until) { return lock(until); }
  bool try_lock_until(deadline until) { return lock(until); }

 private:
  mutex mutex_;
  std::size_t locked_again_ = 0;  // by its holder
};

}  // namespace annulet
