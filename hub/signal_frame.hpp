// Whether a signal's handler is running: then something was interrupted, a fiber in the middle of malloc
// maybe, that must not find itself on another turn when the handler returns. Internal.
#pragma once

#include "signal_mask.hpp"

namespace annulet::detail {

// For one thread. A handler that blocks no signal, not even its own (SA_NODEFER with an empty mask), is not
// seen.
class handler_finder {
 public:
  // One system call where the thread's mask is as it was; else the stack is walked, which takes microseconds.
  [[nodiscard]] bool in_handler() noexcept {
    const signal_mask now = thread_mask();
    return now != calm_ && is_above_signal_frame(now);
  }

 private:
  bool is_above_signal_frame(signal_mask now) noexcept;

  signal_mask calm_ = thread_mask();  // with which no handler ran
};

}  // namespace annulet::detail
