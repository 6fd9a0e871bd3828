// sel_zero: a look with timeout 0 when nothing is ready, as a loop that also computes does it.
//
//   annulet_bench sel_zero
//
// 1,000 idle sockets are registered. The subject is annulet's select with a deadline of 0, held against
// epoll_wait(0), as is annulet on its other engine; it has to do it without a system call. Before and after
// the timed looks a byte is sent, which the next look must report.
#include <annulet/selector/selector.hpp>

#include <chrono>
#include <vector>

#include "benches.hpp"
#include "engines.hpp"
#include "harness.hpp"
#include "raw_epoll.hpp"
#include "traffic.hpp"

namespace bench {
namespace {

using namespace std::chrono_literals;

constexpr std::size_t registered = 1000;

template <class Look>
void turn(meter& clock, const socket_pairs& sockets, std::uint64_t operations, Look look) {
  const auto check = [&] {
    char byte = 1;
    if (look() != 0) {
      fail("sel_zero: something is ready before anything was sent");
    }
    if (::write(sockets.writers()[77], &byte, 1) != 1) {
      fail("sel_zero: write failed");
    }
    if (look() != 1) {
      fail("sel_zero: a byte arrived and was not reported");
    }
    if (::read(sockets.readers()[77], &byte, 1) != 1) {
      fail("sel_zero: read failed");
    }
  };
  check();
  std::uint64_t found = 0;
  for (std::uint64_t i = 0; i < operations / 8 + 3; ++i) {
    found += look();
  }
  clock.start();
  for (std::uint64_t i = 0; i < operations; ++i) {
    found += look();
  }
  clock.stop(operations);
  if (found != 0) {
    fail("sel_zero: something was reported and nothing had been sent");
  }
  check();
}

}  // namespace

void bench_sel_zero(harness& run) {
  const socket_pairs sockets(registered);
  annulet::hub hub(on(annulet::engine_choice::uring));
  const auto fds = sockets.readers();
  const turn_function selects = [&](meter& clock, std::uint64_t operations) {
    annulet::basic_selector<int> selector;
    std::vector<annulet::basic_selector<int>::ready_type> ready;
    for (const int fd : fds) {
      selector.register_(fd, annulet::io_event::read, fd);
    }
    turn(clock, sockets, operations, [&] { return selector.select(ready, 0ms); });
  };
  run.hold({.bench = "sel_zero",
            .setting = "1000 idle",
            .operation = "a look",
            .subject = {"annulet select(0)", selects},
            .baselines = {{"epoll_wait(0)",
                           [&](meter& clock, std::uint64_t operations) {
                             raw_epoll epoll;
                             for (const int fd : fds) {
                               epoll.add(fd, EPOLLIN, 0);
                             }
                             turn(clock, sockets, operations, [&] { return epoll.wait(0).size(); });
                           },
                           goal::at_least(5.0)},
                          annulet_on_epoll(selects, "epoll_wait(0)")},
            .syscalls_at_most = 0.0});
}

}  // namespace bench
