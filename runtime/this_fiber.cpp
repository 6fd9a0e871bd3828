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

}  // namespace annulet::this_fiber
