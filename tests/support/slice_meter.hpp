// How long a thread runs between two switches of its fibers, at most.
#pragma once

#include "running_time.hpp"

#include <annulet/hub/c.h>

#include <algorithm>
#include <chrono>
#include <cstdint>

namespace annulet::test {

// Of the thread that makes it. Somebody calls end() at each switch. A fiber that parks and goes on without a
// switch has two slices, which count as one here: so no slice is longer than `longest`.
class slice_meter {
 public:
  using nanoseconds = std::chrono::nanoseconds;

  void begin() noexcept {
    longest = longest_by_clock = {};
    whose = 0;
    start(thread.now());
  }
  void end() noexcept {
    const running_time::moment now = thread.now();
    if (const nanoseconds by_clock = now.clock - began_.clock; by_clock > longest) {
      longest_by_clock = std::max(longest_by_clock, by_clock);
      if (const nanoseconds ran = by_clock - thread.stood_still(began_, now); ran > longest) {
        longest = ran;
        whose = running_;
      }
    }
    start(now);
  }

  const running_time thread;
  nanoseconds longest{};
  nanoseconds longest_by_clock{};
  std::uint64_t whose = 0;  // the longest is

 private:
  void start(running_time::moment now) noexcept {
    began_ = now;
    running_ = annulet_fiber_self();
  }

  running_time::moment began_;
  std::uint64_t running_ = 0;  // the fiber
};

}  // namespace annulet::test
