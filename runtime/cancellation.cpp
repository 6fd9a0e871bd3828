#include "cancellation.hpp"

#include "scheduler.hpp"

namespace annulet {

timeout::timeout(deadline limit) : timer_node(&expire), fiber_(detail::scheduler::here("timeout").running()) {
  detail::scheduler::current()->claim_guard();
  if (limit.is_past()) {
    come_due();
  } else if (!limit.is_never()) {
    detail::scheduler::current()->timers().arm(*this, limit.nanoseconds());
  }
}

timeout::~timeout() {
  cancel();
  if (detail::scheduler* const owner = fiber_.owner.load(std::memory_order_relaxed)) {
    owner->give_back_guard();
  }
}

void timeout::cancel() noexcept {
  if (armed()) {
    fiber_.owner.load(std::memory_order_relaxed)->timers().disarm(*this);
  }
  if (linked()) {
    unlink();
    fiber_.interrupt_pending = fiber_.kill_pending || !fiber_.expired.empty();
  }
}

void timeout::expire(detail::timer_node& timer) noexcept { static_cast<timeout&>(timer).come_due(); }

void timeout::come_due() noexcept {
  expired_ = true;
  fiber_.expired.push_back(*this);
  fiber_.owner.load(std::memory_order_relaxed)->interrupt(fiber_);
}

shield::shield() : fiber_(detail::scheduler::here("shield").running()) { ++fiber_.shields; }

shield::~shield() { --fiber_.shields; }

}  // namespace annulet
