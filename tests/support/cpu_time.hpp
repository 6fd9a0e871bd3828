// How much CPU a wait costs. What the machine does beside it, an interrupt or a virtual CPU that is taken
// away, only adds to what the clocks show. So a wait is held to the least of several like it: what a defect
// costs, it costs in each.
#pragma once

#include "files.hpp"

#include <algorithm>
#include <chrono>
#include <ctime>

namespace annulet::test {

inline std::chrono::nanoseconds cpu_time(clockid_t which) {
  timespec used{};
  require_ok(::clock_gettime(which, &used), "clock_gettime");
  return std::chrono::seconds(used.tv_sec) + std::chrono::nanoseconds(used.tv_nsec);
}

inline std::chrono::nanoseconds thread_cpu() { return cpu_time(CLOCK_THREAD_CPUTIME_ID); }
inline std::chrono::nanoseconds process_cpu() { return cpu_time(CLOCK_PROCESS_CPUTIME_ID); }

// used() gives CPU time so far; wait() waits once.
template <class Used, class Wait>
std::chrono::nanoseconds least_cpu_of_five(const Used& used, const Wait& wait) {
  auto least = std::chrono::nanoseconds::max();
  for (int i = 0; i < 5; ++i) {
    const auto before = used();
    wait();
    least = std::min(least, used() - before);
  }
  return least;
}

}  // namespace annulet::test
