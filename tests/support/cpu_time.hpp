// How much CPU a wait costs. What the machine does beside it, an interrupt, a virtual CPU that is taken away
// and brought back, only adds to what the clocks show: a bare sleep of 200 ms may show 1 ms. So of several
// waits alike one has to keep to the limit: what a defect costs, it costs in each.
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

// used() gives CPU time so far; wait() waits once. What the first of 25 waits cost that kept below limit,
// else the cheapest of them all.
template <class Used, class Wait>
std::chrono::nanoseconds least_cpu(std::chrono::nanoseconds limit, const Used& used, const Wait& wait) {
  auto least = std::chrono::nanoseconds::max();
  for (int i = 0; i < 25 && least >= limit; ++i) {
    const auto before = used();
    wait();
    least = std::min(least, used() - before);
  }
  return least;
}

}  // namespace annulet::test
