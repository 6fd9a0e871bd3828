#include "this_fiber.hpp"

#include "scheduler.hpp"

namespace annulet::this_fiber {

void sleep_until(deadline until) {
  detail::scheduler& here = detail::scheduler::here("this_fiber::sleep_until");
  if (until.is_past()) {
    here.yield();
    return;
  }
  detail::waiter alarm(here.running(), "this_fiber::sleep_until");
  here.park(alarm, until, detail::wakers::outside);
}

std::uint64_t id() { return detail::scheduler::here("this_fiber::id").running().id; }

std::string_view name() { return detail::scheduler::here("this_fiber::name").running().name(); }

std::size_t stack_used() {
  const detail::control_block& self = detail::scheduler::here("this_fiber::stack_used").running();
  return self.memory.pool == nullptr ? 0 : detail::stack_used(self.memory);
}

}  // namespace annulet::this_fiber
