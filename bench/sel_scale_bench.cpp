// sel_scale: does a descriptor cost anything that is registered and silent?
//
//   annulet_bench sel_scale
//
// One socket is active, 10, 100, 1,000 and 9,900 are registered beside it and idle. A round writes a byte to
// the active one, waits, and reads. The subject is annulet's selector, held against poll(2), select(2) as far
// as FD_SETSIZE reaches, and level-triggered epoll, as is annulet on its other engine; at 9,900 also against
// itself at 10, in turn in the same run. As in sel_active, a contender registers the sockets when its turn
// begins and lets them go when it ends.
#include <sys/select.h>

#include "benches.hpp"
#include "engines.hpp"
#include "harness.hpp"
#include "pollers.hpp"

namespace bench {
namespace {

constexpr std::size_t fewest = 10;
constexpr std::size_t most = 9900;

void hold_with(harness& run, std::size_t idle) {
  const std::string setting = "1 active, " + std::to_string(idle) + " idle";
  if (!socket_pairs::possible(idle + 1)) {
    run.skip("sel_scale", setting, "too few open files allowed (ulimit -n)");
    return;
  }
  const socket_pairs sockets(idle + 1);
  annulet::hub hub(on(annulet::engine_choice::uring));
  traffic load(sockets, 1, 1);  // the first socket, always
  const auto turn_of = [&](poller_factory make, std::size_t registered) -> turn_function {
    return [&, make, registered](meter& clock, std::uint64_t events) {
      const auto by = make(sockets.readers().first(registered));
      run_rounds(clock, *by, load, events);
    };
  };
  contest what{.bench = "sel_scale",
               .setting = setting,
               .operation = "a round: a write, a wait, a read",
               .subject = {"annulet selector", turn_of(make_annulet_poller, idle + 1)},
               .baselines = {}};
  if (idle == most) {
    what.baselines.push_back(
        {"annulet selector, 10 idle", turn_of(make_annulet_poller, fewest + 1), goal::at_most(1.15)});
  }
  what.baselines.push_back({"epoll, level-triggered", turn_of(make_epoll_level_poller, idle + 1)});
  what.baselines.push_back(
      annulet_on_epoll(turn_of(make_annulet_poller, idle + 1), "epoll, level-triggered"));
  contender poll{"poll(2)", turn_of(make_poll_poller, idle + 1)};
  if (idle == most) {
    poll.goal = goal::at_least(300);
  }
  what.baselines.push_back(std::move(poll));
  if (sockets.readers().back() < FD_SETSIZE) {
    what.baselines.push_back({"select(2)", turn_of(make_select_poller, idle + 1)});
  }
  run.hold(what);
}

}  // namespace

void bench_sel_scale(harness& run) {
  for (const std::size_t idle : {fewest, std::size_t{100}, std::size_t{1000}, most}) {
    hold_with(run, idle);
  }
}

}  // namespace bench
