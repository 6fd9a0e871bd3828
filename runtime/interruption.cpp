// What ends a fiber's park before its time: a kill, the expiry of a timeout guard, a deadlock. It is noted in
// the fiber's control block first, and stays there where the fiber cannot be interrupted now.
#include "cancellation.hpp"
#include "check.hpp"
#include "errors.hpp"
#include "switching.hpp"

#include <new>
#include <string>
#include <utility>

namespace annulet::detail {

void scheduler::kill(control_block& fiber) noexcept {
  if (fiber.state == fiber_state::done) {
    return;
  }
  fiber.kill_pending = true;
  interrupt(fiber);
}

void scheduler::interrupt(control_block& fiber) noexcept {
  fiber.interrupt_pending = true;
  waiter* const parked_on = fiber.parked_on;
  if (parked_on != nullptr && parked_on->interruptible_ && interruptible(fiber)) {
    fiber.ended_by = fiber.expired.empty() ? nullptr : &fiber.expired.front();
    parked_on->wake(wake_reason::interrupted);
  }
}

void scheduler::throw_interruption(control_block& self) {
  if (std::exchange(self.deadlocked, false)) {
    self.interrupt_pending = self.kill_pending || !self.expired.empty();
    throw deadlock("annulet: deadlock: every fiber waits for another of this thread, without a deadline\n" +
                   std::exchange(deadlock_list_, {}));
  }
  if (std::exchange(self.kill_pending, false)) {
    self.interrupt_pending = !self.expired.empty();
    throw fiber_killed();
  }
  // A guard that has ended the park may have been cancelled by another fiber since: the park has ended all
  // the same.
  const timeout& guard = self.expired.empty() ? *self.ended_by : self.expired.pop_front();
  self.interrupt_pending = !self.expired.empty();
  throw timeout_expired(guard);
}

void scheduler::declare_deadlock() {
  waiter* const parked_on = main_.parked_on;
  const bool can_throw = parked_on != nullptr && parked_on->interruptible_ && interruptible(main_);
  if (!can_throw) {
    fail(
        "deadlock, and the main fiber cannot be told, for it is unwinding, ending or shielded, or it waits "
        "for what it must have back, as a condition variable's mutex\n" +
        dump(dump_format::text));
  }
  try {
    deadlock_list_ = dump(dump_format::text);
  } catch (const std::bad_alloc&) {
    deadlock_list_.clear();  // it is a deadlock all the same
  }
  main_.deadlocked = true;
  interrupt(main_);
}

}  // namespace annulet::detail
