// What a hub has done since it was made. Counting costs an addition each.
#pragma once

#include <cstdint>

namespace annulet {

struct hub_counts {
  std::uint64_t spawned = 0;   // fibers
  std::uint64_t switches = 0;  // from one fiber to another
  std::uint64_t parks = 0;     // those too that ended without a switch
  std::uint64_t wakes = 0;
  std::uint64_t enters = 0;    // calls to hand over, fetch or wait: io_uring_enter, epoll_pwait2, ppoll
  std::uint64_t requests = 0;  // handed over: submissions to the ring, calls of epoll_ctl
};

}  // namespace annulet
