// The one way to wait. A waiter lives in the frame of the fiber that parks; whoever has what it waits for
// wakes it, once, and says why. The first one wins: from then on the waiter is on no list and in no queue,
// so nobody else can reach it, and the fiber learns the cause from the waker and never from the clock.
//
//   who                                    wakes with
//   an event, a watch, a joined fiber      ready
//   the timer queue, at the deadline       timed_out
//   a closing or destroyed object          closed
//   kill, a timeout guard, a deadlock      interrupted (what it was is noted in the fiber: control_block.hpp)
#pragma once

#include "intrusive_list.hpp"
#include "timer_queue.hpp"

#include <cstdint>

namespace annulet::detail {

class control_block;
class scheduler;

enum class wake_reason : std::uint8_t { none, ready, timed_out, closed, interrupted };

class waiter : public list_hook<>, private timer_node {
 public:
  // Made by the running fiber right before it parks, destroyed in the same frame right after.
  explicit waiter(control_block& fiber) noexcept : timer_node(&expire), fiber_(fiber) {}

  // False where somebody else was first; then this changed nothing. The hub's thread only.
  [[gnu::visibility("default")]] bool wake(wake_reason why) noexcept;
  [[nodiscard]] control_block& fiber() const noexcept { return fiber_; }

 private:
  friend class scheduler;

  [[gnu::visibility("default")]] static void expire(timer_node& timer) noexcept;

  control_block& fiber_;
  wake_reason why_ = wake_reason::none;
  bool interruptible_ = true;
};

using waiter_list = intrusive_list<waiter>;

}  // namespace annulet::detail
