// Whether a signal's handler is running: then something was interrupted, a fiber in the middle of malloc
// maybe, that must not find itself on another turn when the handler returns. Internal.
#pragma once

#include "signal_mask.hpp"

namespace annulet::detail {

// For one thread. Two kinds of handlers are not seen: one that blocks no signal, not even its own (SA_NODEFER
// with an empty mask), and where few signals are blocked one that was for once (SA_RESETHAND).
class handler_finder {
 public:
  // Asked by who is about to park. A handler's signal is blocked while it runs: so that is one system call
  // where none is, a few more where few are, and else the stack is walked, which takes microseconds.
  [[nodiscard]] bool in_handler() noexcept { return in_handler_with(thread_mask()); }

  // Whether others may run although the caller need not wait. Not while signals are blocked that were not
  // when somebody parked last: it is a handler, or code that wants nothing to come between. Others would run
  // with its mask, and leave it theirs. But one that never parks does not keep them out for ever.
  [[nodiscard]] bool may_breathe() noexcept {
    constexpr int patience = 1000;
    const signal_mask now = thread_mask();
    if ((now & ~usual_) != 0 && ++held_breaths_ < patience) {
      return false;
    }
    held_breaths_ = 0;
    return !in_handler_with(now);
  }

 private:
  bool in_handler_with(signal_mask now) noexcept {
    if (now != 0 && is_above_signal_frame(now)) {
      return true;
    }
    usual_ = now;
    return false;
  }
  static bool is_above_signal_frame(signal_mask now) noexcept;

  signal_mask usual_ = thread_mask();
  int held_breaths_ = 0;
};

}  // namespace annulet::detail
