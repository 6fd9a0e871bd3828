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

// For doctest::skip, where what a case looks for is there on one engine only: says so. What a cancellation
// that is not waited for leaves in the ring keeps a file open, which its peer sees; what is left in an epoll
// set does not, and shows as wake-ups of the hub: duplicates_test counts those.
inline bool skipped_on_epoll(const char* what) {
  const bool skipped = on_epoll();
  if (skipped) {
    std::printf("note: skipped: %s: that is on io_uring; on epoll duplicates_test is for it\n", what);
  }
  return skipped;
}
inline bool skipped_on_the_ring(const char* what) {
  const bool skipped = !on_epoll();
  if (skipped) {
    std::printf("note: skipped: %s: that is on epoll; on io_uring close_at_once_test is for it\n", what);
  }
  return skipped;
}

}  // namespace annulet::test
