// Which engine hubs are served by here, for what a test expects of one and not of the other.
#pragma once

#include <annulet/hub/hub.hpp>
#include <annulet/hub/hub_core.hpp>

#include <cstdint>
#include <cstdio>
#include <cstdlib>

#include <sys/syscall.h>

namespace annulet::test {

// Of this thread's hub; where it has none, of those whose options leave it open.
inline bool on_epoll() {
  detail::hub_core* const here = detail::hub_core::current();
  return (here != nullptr ? here->io().info().name : hub().engine_report().name) == "epoll";
}

// The call by which a hub waits and looks.
inline std::uint64_t wait_call() { return on_epoll() ? SYS_epoll_pwait2 : SYS_io_uring_enter; }

// For doctest::skip, where what a case looks for shows only on the ring: says so. What is left in an epoll
// set keeps no file open; it shows as wake-ups of the hub, and duplicates_test counts those.
inline bool skipped_on_epoll(const char* what) {
  const bool skipped = on_epoll();
  if (skipped) {
    std::printf("note: skipped: %s: not on epoll, where duplicates_test is for that\n", what);
  }
  return skipped;
}

}  // namespace annulet::test
