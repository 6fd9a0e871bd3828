#include "signal_frame.hpp"

#include <bit>

#include <unwind.h>

namespace annulet::detail {

namespace {

// The kernel's frame is the one whose address is of an instruction that has yet to run, and not of one behind
// a call.
_Unwind_Reason_Code look_at(_Unwind_Context* frame, void* found) noexcept {
  int before_instruction = 0;
  (void)_Unwind_GetIPInfo(frame, &before_instruction);
  *static_cast<bool*>(found) = before_instruction != 0;
  return before_instruction != 0 ? _URC_END_OF_STACK : _URC_NO_REASON;
}

// False where none of them has one.
bool may_have_handlers(signal_mask signals) noexcept {
  constexpr int few = 4;  // cheaper than a walk
  if (std::popcount(signals) > few) {
    return true;
  }
  for (signal_mask left = signals; left != 0; left &= left - 1) {
    if (is_handled(std::countr_zero(left) + 1)) {
      return true;
    }
  }
  return false;
}

}  // namespace

bool handler_finder::is_above_signal_frame(signal_mask now) noexcept {
  bool found = false;
  if (may_have_handlers(now)) {
    (void)_Unwind_Backtrace(&look_at, &found);
  }
  return found;
}

}  // namespace annulet::detail
