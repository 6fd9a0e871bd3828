#include "deadline.hpp"

#include "scheduler.hpp"

namespace annulet {

std::int64_t detail::clock_now() noexcept {
  if (const scheduler* here = scheduler::current()) {
    return here->now();
  }
  return std::chrono::nanoseconds(std::chrono::steady_clock::now().time_since_epoch()).count();
}

deadline deadline::after(std::int64_t wait) noexcept {
  if (wait <= 0) {
    return past();
  }
  if (wait == never_ns) {
    return never();
  }
  const std::int64_t now = detail::clock_now();
  return deadline(now > never_ns - wait ? never_ns : now + wait);
}

}  // namespace annulet
