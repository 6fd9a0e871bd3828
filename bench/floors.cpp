// What this machine asks for nothing at all; absolute figures are to be read beside these.
//
// Measured at the start of every run: a system call that does nothing, an enter of an io_uring that has
// nothing to do, set up as a hub sets up its own, and a jump_fcontext in rings of 2, 1,000 and 100,000
// contexts.
#include <linux/io_uring.h>
#include <sys/syscall.h>
#include <unistd.h>
#include <algorithm>
#include <cerrno>
#include <cstring>
#include <string>

#include "benches.hpp"
#include "harness.hpp"
#include "raw_contexts.hpp"
#include "report.hpp"

namespace bench {
namespace {

// A bare ring, by the system calls themselves: nothing is ever put into it, so it need not be mapped.
int open_ring() {
  io_uring_params parameters{};
  parameters.flags = IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN | IORING_SETUP_TASKRUN_FLAG;
  long fd = syscall(SYS_io_uring_setup, 8, &parameters);
  if (fd < 0 && errno == EINVAL) {
    parameters = {};
    fd = syscall(SYS_io_uring_setup, 8, &parameters);
  }
  return static_cast<int>(fd);
}

template <class Call>
turn_function repeat(Call call) {
  return [call](meter& clock, std::uint64_t operations) {
    clock.start();
    for (std::uint64_t i = 0; i < operations; ++i) {
      if (call() < 0) {
        fail("a call that only measures a floor failed: %s", std::strerror(errno));
      }
    }
    clock.stop(operations);
  };
}

void measure(harness& run, const std::string& name, const turn_function& turn) {
  run.floor_of(name, turn);
  print_floor(run.floors().back());
}

}  // namespace

void measure_floors(harness& run) {
  measure(run, "empty system call", repeat([] { return syscall(SYS_getppid); }));
  const int ring = open_ring();
  if (ring >= 0) {
    measure(run, "empty io_uring enter", repeat([ring] {
              return syscall(SYS_io_uring_enter, ring, 0, 0, IORING_ENTER_GETEVENTS, nullptr, 0);
            }));
    ::close(ring);
  }
  for (const std::size_t count : {2, 1000, 100'000}) {
    if (available_memory() < count * 16384) {
      continue;
    }
    raw_contexts contexts(count);
    measure(run, "jump_fcontext among " + std::to_string(count) + " contexts",
            [&](meter& clock, std::uint64_t switches) {
              contexts.turn(clock, std::max<std::uint64_t>(switches / count, 1));
            });
  }
}

}  // namespace bench
