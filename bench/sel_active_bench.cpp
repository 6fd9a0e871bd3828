// sel_active: many descriptors, few of them active, after the shape of libevent's own benchmark.
//
//   annulet_bench sel_active
//
// N connected socket pairs are registered for reading. In each round one thread writes a byte to A of them,
// waits until A events have come, and reads each byte. N is 1,000 and 9,900, A is 1, 32 and 300; the A of a
// round are others than those of the round before. The subject is annulet's selector; it is held against raw
// level-triggered epoll (which promises what select promises: 512 events a call, interest registered once),
// with edge-triggered epoll printed beside it, and against libev, libevent and libuv. Annulet on its other
// engine, epoll, is held against raw epoll as well.
//
// All contenders use the same sockets. One that stays registered elsewhere would be woken for nothing at each
// write, so a contender registers them when its turn begins and lets them go when it ends, outside of the
// measured time, and warms up for an eighth of its rounds in between.
#include "benches.hpp"
#include "engines.hpp"
#include "harness.hpp"
#include "pollers.hpp"

namespace bench {
namespace {

constexpr const char* raw_name = "epoll, level-triggered";

void hold_with(harness& run, const socket_pairs& sockets, std::size_t active) {
  annulet::hub hub(on(annulet::engine_choice::uring));
  traffic load(sockets, active);
  const auto turn_of = [&](poller_factory make) -> turn_function {
    return [&, make](meter& clock, std::uint64_t events) {
      const auto by = make(sockets.readers());
      run_rounds(clock, *by, load, events);
    };
  };
  const auto bound_on_epoll = active == 1 ? std::nullopt : std::optional(goal::at_most(1.15));
  const double bound = active == 1 ? 1.2 : active == 32 ? 1.05 : 1.0;
  run.hold({.bench = "sel_active",
            .setting = "N=" + std::to_string(sockets.size()) + " A=" + std::to_string(active),
            .operation = "an event: its write, its share of the wait, its read",
            .subject = {"annulet selector", turn_of(make_annulet_poller)},
            .baselines = {{raw_name, turn_of(make_epoll_level_poller), goal::at_most(bound)},
                          annulet_on_epoll(turn_of(make_annulet_poller), raw_name, bound_on_epoll),
                          {"epoll, edge-triggered", turn_of(make_epoll_edge_poller)},
                          {"libev", turn_of(make_libev_poller), goal::at_most(1.0)},
                          {"libevent", turn_of(make_libevent_poller), goal::at_most(1.0)},
                          {"libuv", turn_of(make_libuv_poller), goal::at_most(1.0)}}});
}

}  // namespace

void bench_sel_active(harness& run) {
  for (const std::size_t count : {1000, 9900}) {
    if (!socket_pairs::possible(count)) {
      run.skip("sel_active", "N=" + std::to_string(count), "too few open files allowed (ulimit -n)");
      continue;
    }
    const socket_pairs sockets(count);
    for (const std::size_t active : {1, 32, 300}) {
      hold_with(run, sockets, active);
    }
  }
}

}  // namespace bench
