// sel_churn: descriptors that come and go between two selects.
//
//   annulet_bench sel_churn
//
// A round registers 64 sockets that are not ready, looks once with timeout 0, and removes all 64. The subject
// is annulet's selector through its public calls, removing one by one with unregister() and in one batch with
// unregister_all(); either is held against EPOLL_CTL_ADD, epoll_wait(0) and EPOLL_CTL_DEL, on either engine.
// Before each turn is timed, a checked round makes a byte arrive on a registered socket, which must be
// reported, and on a removed one, which must not.
#include <annulet/selector/selector.hpp>

#include <algorithm>
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

constexpr std::size_t keys = 64;

class epoll_side {
 public:
  void add(int fd, std::size_t index) { epoll_.add(fd, EPOLLIN, index); }
  void remove(std::span<const int> fds) {
    for (const int fd : fds) {
      epoll_.remove(fd);
    }
  }
  std::size_t look() { return epoll_.wait(0).size(); }

 private:
  raw_epoll epoll_;
};

class selector_side {
 public:
  void add(int fd, std::size_t index) {
    selector_.register_(fd, annulet::io_event::read, static_cast<int>(index));
  }
  void remove(std::span<const int> fds) {
    for (const int fd : fds) {
      selector_.unregister(fd);
    }
  }
  std::size_t look() { return selector_.select(ready_, 0ms); }

 protected:
  annulet::basic_selector<int> selector_;
  std::vector<annulet::basic_selector<int>::ready_type> ready_;
};

class batching_side : public selector_side {
 public:
  void remove(std::span<const int> fds) { selector_.unregister_all(fds); }
};

template <class Side>
void add_all(Side& side, std::span<const int> fds) {
  for (std::size_t i = 0; i < fds.size(); ++i) {
    side.add(fds[i], i);
  }
}

template <class Side>
void check_effect(Side& side, const socket_pairs& sockets) {
  const char byte = 1;
  char back = 0;
  add_all(side, sockets.readers());
  if (side.look() != 0) {
    fail("sel_churn: something is ready before anything was sent");
  }
  if (::write(sockets.writers()[5], &byte, 1) != 1) {
    fail("sel_churn: write failed");
  }
  if (side.look() != 1) {
    fail("sel_churn: a registered socket with a byte was not reported");
  }
  side.remove(sockets.readers());
  if (side.look() != 0) {
    fail("sel_churn: a removed socket was reported");
  }
  if (::read(sockets.readers()[5], &back, 1) != 1) {
    fail("sel_churn: read failed");
  }
}

template <class Side>
turn_function turn_of(const socket_pairs& sockets) {
  return [&sockets](meter& clock, std::uint64_t operations) {
    Side side;
    const auto run = [&](std::uint64_t rounds) {
      for (std::uint64_t i = 0; i < rounds; ++i) {
        add_all(side, sockets.readers());
        if (side.look() != 0) {
          fail("sel_churn: a socket was reported and nothing had been sent");
        }
        side.remove(sockets.readers());
      }
    };
    check_effect(side, sockets);
    const std::uint64_t rounds = std::max<std::uint64_t>(operations / keys, 1);
    run(rounds / 8 + 3);
    clock.start();
    run(rounds);
    clock.stop(rounds * keys);
    check_effect(side, sockets);
  };
}

}  // namespace

void bench_sel_churn(harness& run) {
  const socket_pairs sockets(keys);
  annulet::hub hub(on(annulet::engine_choice::uring));
  const contender baseline{"epoll ADD, wait(0), DEL", turn_of<epoll_side>(sockets)};
  contest what{.bench = "sel_churn",
               .setting = "64 keys, unregister one by one",
               .operation = "a registration, its removal, its share of a look",
               .subject = {"annulet unregister", turn_of<selector_side>(sockets)},
               .baselines = {baseline, annulet_on_epoll(turn_of<selector_side>(sockets), baseline.name)}};
  what.baselines[0].goal = goal::at_least(1.0);
  run.hold(what);

  what.setting = "64 keys, unregister_all";
  what.subject = {"annulet unregister_all", turn_of<batching_side>(sockets)};
  what.baselines[0].goal = goal::at_least(1.6);
  what.baselines[1] = annulet_on_epoll(turn_of<batching_side>(sockets), baseline.name);
  run.hold(what);
}

}  // namespace bench
