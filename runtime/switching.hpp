// The switch, for those functions that contain it whole: where the fiber that goes on has parked by another
// call than the one that was left, each return between the two places is mispredicted (context.hpp), which
// costs as much as the jump itself. So there is to be one. Internal.
#pragma once

#include "context.hpp"
#include "sanitizer.hpp"
#include "scheduler.hpp"
#include "wait_queue.hpp"

#include <annulet_plants.hpp>

namespace annulet::detail {

// On the stack that was jumped to: where the other one stopped is known only now, and only now may its stack
// go.
inline void scheduler::arrive(void* stopped_at, void* from) noexcept {
  auto& left = *static_cast<control_block*>(from);
  left.context = stopped_at;
  if (left.state == fiber_state::done && !left.has_handle) [[unlikely]] {
    free_stack(left);
  }
}

[[gnu::always_inline]] inline void scheduler::switch_to(control_block& next) noexcept {
  control_block& self = *running_;
  self.exceptions = *exceptions_;
  self.saved_errno = *errno_;
  running_ = &next;
  next.state = fiber_state::running;
  void* const sanitized = sanitize_departure(self, next);
  const arrival from = jump(next.context, &self);
  sanitize_arrival(sanitized, *static_cast<control_block*>(from.data));
  arrive(from.fctx, from.data);
  *exceptions_ = self.exceptions;
  *errno_ = self.saved_errno;
}

[[gnu::always_inline]] inline bool scheduler::interruptible(const control_block& fiber) const noexcept {
  const exception_state& state = &fiber == running_ ? *exceptions_ : fiber.exceptions;
  return state.uncaught == 0 && !fiber.ending && fiber.shields == 0;
}

// The running fiber has parked or ended: the next one goes on, which may be itself.
[[gnu::always_inline]] inline void scheduler::dispatch() {
  for (;;) {
    if (++turns_ >= next_look_) [[unlikely]] {
      end_of_run();
    }
    if (control_block* const next = ready_.pop()) {
      if (next == running_) {
        next->state = fiber_state::running;
        ++stays_;
      } else {
        switch_to(*next);
      }
      return;
    }
    ++stays_;
    wait_outside();
  }
}

[[gnu::always_inline]] inline wake_reason scheduler::block(waiter& w, deadline until, wakers who) {
  control_block& self = *running_;
  if (!until.is_never() && !w.armed()) {  // it may be, after a hint
    timers_.arm(w, until.nanoseconds());
  }
  if (!knows_time_) [[unlikely]] {
    read_time();  // once in a run of turns, and never where all only yield
  }
  w.since_ = about_now_;
  ++parks_;
  const std::size_t outside = who == wakers::outside ? 1 : 0;
  outside_waits_ += outside;
  self.parked_on = &w;
  self.state = fiber_state::parked;
  breaths_ = 0;  // others run now
  if (w.has_news()) [[unlikely]] {
    make_ready(self);  // after them it looks again
  }
  if (killed_at_this_park(self)) {
    kill(self);
  }
  dispatch();
  outside_waits_ -= outside;
  if (w.why_ == wake_reason::none) [[unlikely]] {
    self.parked_on = nullptr;  // a hint: it looks, and parks again where that came to nothing
  }
  return w.why_;
}

[[gnu::always_inline]] inline bool scheduler::is_interrupted() const noexcept {
  return running_->interrupt_pending && interruptible(*running_);
}

[[gnu::always_inline]] inline wake_reason scheduler::park_here(waiter& w, deadline until, wakers who) {
  if (is_interrupted()) [[unlikely]] {
    throw_interruption();
  }
  const wake_reason why = block(w, until, who);
  if (why == wake_reason::interrupted) [[unlikely]] {
    throw_interruption();
  }
  return why;
}

inline scheduler& scheduler_of(const wait_place& w) noexcept {
  return *w.fiber().owner.load(std::memory_order_relaxed);
}

[[gnu::always_inline]] inline bool wait_queue::park_here(waiter& w, wait_place& at, deadline until,
                                                         wakers who) {
  if (until.is_past()) {
    breathe();
    return false;
  }
  if (&at != &w) {
    w.stand_in(at);
  }
  waiters_.push_back(at);
  const wake_reason why = scheduler_of(w).park_here(w, until, who);
  if (why == wake_reason::closed) [[unlikely]] {
    throw_cause(why, w.what());
  }
  return why == wake_reason::ready;
}

}  // namespace annulet::detail
