// The fiber that keeps time beside the others: how late it is shows whether they hold it up.
#pragma once

#include <annulet/runtime/this_fiber.hpp>

#include <algorithm>
#include <chrono>
#include <cstdint>

namespace demo {

using clock = std::chrono::steady_clock;

struct timekeeping {
  std::uint64_t beats = 0;
  std::chrono::nanoseconds latest{};
};

// Every 10 ms, by a plan that does not shift: how late it is each time.
[[noreturn]] inline void keep_time(timekeeping& kept) {
  constexpr std::chrono::milliseconds period(10);
  for (auto next = clock::now() + period;; next += period) {
    annulet::this_fiber::sleep_until(next);
    const auto now = clock::now();
    ++kept.beats;
    kept.latest = std::max<std::chrono::nanoseconds>(kept.latest, now - next);
    while (next + period <= now) {
      next += period;
    }
  }
}

}  // namespace demo
