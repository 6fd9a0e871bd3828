#include "wait_queue.hpp"

#include "check.hpp"
#include "errors.hpp"
#include "scheduler.hpp"
#include "switching.hpp"

#include <annulet_plants.hpp>

#include <stdexcept>
#include <string>

namespace annulet::detail {

namespace {

scheduler& scheduler_of(const wait_place& w) noexcept {
  return *w.fiber().owner.load(std::memory_order_relaxed);
}

}  // namespace

wait_queue::~wait_queue() {
  check(waiters_.empty() || &scheduler_of(waiters_.front()) == scheduler::current(),
        "what fibers wait for was destroyed on another thread than theirs");
  while (!waiters_.empty()) {
    waiters_.front().wake(wake_reason::closed);
  }
}

void wait_queue::require_own_thread(const char* call, bool in_use) {
  scheduler& here = scheduler::here(call);
  if (owner_ == &here) {
    return;
  }
  if (in_use || !waiters_.empty()) {
    throw wrong_thread(std::string("annulet: ") + call + ": in use by fibers of another thread");
  }
  owner_ = &here;
}

void wait_queue::begin(const char* call, bool in_use) {
  require_own_thread(call, in_use);
  owner_->throw_if_overdue();
}

void wait_queue::throw_if_overdue() { scheduler::current()->throw_if_overdue(); }

void wait_queue::breathe() { scheduler::current()->breathe_quietly(1); }

control_block& wait_queue::running() const noexcept { return owner_->running(); }

std::size_t wait_queue::size() noexcept {
  std::size_t count = 0;
  waiters_.for_each([&](wait_place&) { ++count; });
  return count;
}

bool wait_queue::park(waiter& w, wait_place& at, deadline until, const char* call, wakers who) {
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
    throw_cause(why, call);
  }
  return why == wake_reason::ready;
}

wake_reason wait_queue::park_and_tell(waiter& w, deadline until) {
  if (until.is_past()) {
    breathe();
    return wake_reason::timed_out;
  }
  scheduler& here = scheduler_of(w);
  if (here.is_interrupted()) {
    return wake_reason::interrupted;
  }
  waiters_.push_back(w);
  return here.park_and_tell(w, until, wakers::fibers);
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

void wait_queue::wake_one() noexcept {
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
