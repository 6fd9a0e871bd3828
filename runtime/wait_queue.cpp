#include "wait_queue.hpp"

#include "check.hpp"
#include "errors.hpp"
#include "scheduler.hpp"
#include "switching.hpp"

#include <annulet_plants.hpp>

#include <stdexcept>
#include <string>

namespace annulet::detail {

bool waiter::wake(wake_reason why) noexcept {
  if (why_ != wake_reason::none) {
    return false;
  }
  why_ = why;
  unlink();
  for (wait_place* place = places_; place != nullptr; place = place->next_of_waiter_) {
    place->unlink();
  }
  scheduler& owner = *fiber_.owner.load(std::memory_order_relaxed);
  owner.count_wake();
  if (armed()) {
    owner.timers().disarm(*this);
  }
  if (fiber_.parked_on == this) {  // else it runs, for it was hinted
    fiber_.parked_on = nullptr;
    if (fiber_.state == fiber_state::parked) {
      owner.make_ready(fiber_);
    }
  }
  return true;
}

void waiter::hint() noexcept {
  if (why_ != wake_reason::none) {
    return;
  }
  hinted_ = true;
  if (fiber_.parked_on == this && fiber_.state == fiber_state::parked) {
    fiber_.owner.load(std::memory_order_relaxed)->make_ready(fiber_);
  }
}

void waiter::expire(timer_node& timer) noexcept { static_cast<waiter&>(timer).wake(wake_reason::timed_out); }

wait_queue::~wait_queue() {
  while (!waiters_.empty()) {
    wait_place& first = waiters_.front();
    const scheduler* const owner = first.fiber().owner.load(std::memory_order_relaxed);
    const bool is_here = owner == scheduler::current();
    check(is_here || scheduler::is_left_to_parent(owner),
          "what fibers wait for was destroyed on another thread than theirs");
    if (is_here) {
      first.wake(wake_reason::closed);
    } else {
      first.unlink();  // in a forked child, where that fiber never runs
    }
  }
}

void wait_queue::come_over(const char* call, bool in_use) {
  scheduler& here = scheduler::here(call);
  if (in_use || !waiters_.empty()) {
    throw wrong_thread(std::string("annulet: ") + call +
                       ": in use by fibers of another thread, or of a hub that has ended");
  }
  owner_ = &here;
}

[[gnu::always_inline]] inline void wait_queue::belong_here(const char* call, bool in_use) {
  if (owner_ == nullptr || owner_ != scheduler::current()) [[unlikely]] {
    come_over(call, in_use);
  }
}

control_block& wait_queue::require_own_thread(const char* call, bool in_use) {
  belong_here(call, in_use);
  return owner_->running();
}

control_block* wait_queue::giver(const char* call, bool in_use) {
  if (owner_ != nullptr && owner_ == scheduler::current()) [[likely]] {
    return &owner_->running();
  }
  return giver_elsewhere(call, in_use);
}

control_block* wait_queue::giver_elsewhere(const char* call, bool in_use) {
  const bool is_parents = (in_use || !waiters_.empty()) && is_left_to_parent(owner_);
  if (is_parents || (scheduler::current() == nullptr && scheduler::in_forked_child())) {
    return nullptr;
  }
  return &require_own_thread(call, in_use);
}

control_block& wait_queue::begin(const char* call, bool in_use) {
  belong_here(call, in_use);
  owner_->throw_if_overdue();
  return owner_->running();
}

const scheduler* wait_queue::require_hub(const char* call) { return &scheduler::here(call); }

bool wait_queue::is_left_to_parent(const scheduler* hub) noexcept {
  return scheduler::is_left_to_parent(hub);
}

void wait_queue::throw_if_overdue() { scheduler::current()->throw_if_overdue(); }

void wait_queue::breathe() { scheduler::current()->breathe_quietly(1); }

control_block& wait_queue::running() const noexcept { return owner_->running(); }

std::size_t wait_queue::size() noexcept {
  std::size_t count = 0;
  waiters_.for_each([&](wait_place&) { ++count; });
  return count;
}

bool wait_queue::park(waiter& w, wait_place& at, deadline until, wakers who) {
  return park_here(w, at, until, who);
}

wake_reason wait_queue::park_and_tell(waiter& w, deadline until, wakers who) {
  if (until.is_past()) {
    breathe();
    return wake_reason::timed_out;
  }
  scheduler& here = scheduler_of(w);
  if (here.is_interrupted()) {
    return wake_reason::interrupted;
  }
  waiters_.push_back(w);
  return here.park_and_tell(w, until, who);
}

wake_reason wait_queue::park_uninterrupted(waiter& w) {
  waiters_.push_back(w);
  return scheduler_of(w).park_uninterrupted(w, deadline::never(), wakers::fibers);
}

void wait_queue::throw_cause(wake_reason why, const char* call) {
  if (why == wake_reason::interrupted) {
    scheduler::here(call).throw_interruption();
  }
  throw std::logic_error(std::string("annulet: ") + call + ": it was destroyed meanwhile");
}

[[gnu::flatten]] void wait_queue::wake_one() noexcept {
  if (planted(plant::wake_out_of_order)) {
    waiters_.push_back(waiters_.pop_front());
  }
  waiters_.front().wake(wake_reason::ready);
}

void wait_queue::wake_all() noexcept {
  if (planted(plant::wake_out_of_order) && !waiters_.empty()) {
    waiters_.push_back(waiters_.pop_front());
  }
  while (!waiters_.empty()) {
    waiters_.front().wake(wake_reason::ready);
  }
}

}  // namespace annulet::detail
