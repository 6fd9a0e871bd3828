// sel_modify: the interest of registered descriptors changes from reading to writing and back.
//
//   annulet_bench sel_modify
//
// 64 sockets are writable and not readable. A round changes all of them from reading to writing, looks with
// timeout 0 and must find all 64 ready to be written to and nothing else, changes them back, and must find
// none. The subject is annulet's selector, held against EPOLL_CTL_MOD and epoll_wait(0).
#include <annulet/hub/hub.hpp>
#include <annulet/selector/selector.hpp>

#include <algorithm>
#include <chrono>
#include <vector>

#include "benches.hpp"
#include "harness.hpp"
#include "raw_epoll.hpp"
#include "traffic.hpp"

namespace bench {
namespace {

using namespace std::chrono_literals;

constexpr std::size_t keys = 64;

class epoll_side {
 public:
  explicit epoll_side(std::span<const int> fds) {
    for (std::size_t i = 0; i < fds.size(); ++i)
      epoll_.add(fds[i], EPOLLIN, i);
  }
  void to_write(int fd, std::size_t index) { epoll_.modify(fd, EPOLLOUT, index); }
  void to_read(int fd, std::size_t index) { epoll_.modify(fd, EPOLLIN, index); }

  // How many can be written to; anything else that is reported ends the process.
  std::size_t look() {
    const auto ready = epoll_.wait(0);
    for (const epoll_event& event : ready) {
      if (event.events != EPOLLOUT)
        fail("sel_modify: epoll reported %#x", event.events);
    }
    return ready.size();
  }

 private:
  raw_epoll epoll_;
};

class selector_side {
 public:
  explicit selector_side(std::span<const int> fds) {
    for (std::size_t i = 0; i < fds.size(); ++i) {
      selector_.register_(fds[i], annulet::io_event::read, static_cast<int>(i));
    }
  }
  void to_write(int fd, std::size_t index) {
    selector_.modify(fd, annulet::io_event::write, static_cast<int>(index));
  }
  void to_read(int fd, std::size_t index) {
    selector_.modify(fd, annulet::io_event::read, static_cast<int>(index));
  }
  std::size_t look() {
    selector_.select(ready_, 0ms);
    for (const auto& [key, events] : ready_) {
      if (events != annulet::io_event::write)
        fail("sel_modify: descriptor %d not for writing", key->fd);
    }
    return ready_.size();
  }

 private:
  annulet::basic_selector<int> selector_;
  std::vector<annulet::basic_selector<int>::ready_type> ready_;
};

template <class Side>
turn_function turn_of(const socket_pairs& sockets) {
  return [&sockets](meter& clock, std::uint64_t operations) {
    const auto fds = sockets.readers();
    Side side(fds);
    const auto run = [&](std::uint64_t rounds) {
      for (std::uint64_t i = 0; i < rounds; ++i) {
        for (std::size_t k = 0; k < keys; ++k)
          side.to_write(fds[k], k);
        if (side.look() != keys)
          fail("sel_modify: not all sockets were reported for writing");
        for (std::size_t k = 0; k < keys; ++k)
          side.to_read(fds[k], k);
        if (side.look() != 0)
          fail("sel_modify: a socket was reported after its interest had gone back");
      }
    };
    const std::uint64_t rounds = std::max<std::uint64_t>(operations / keys, 1);
    run(rounds / 8 + 3);
    clock.start();
    run(rounds);
    clock.stop(rounds * keys);
  };
}

}  // namespace

void bench_sel_modify(harness& run) {
  const socket_pairs sockets(keys);
  annulet::hub hub;
  run.hold({.bench = "sel_modify",
            .setting = "64 keys",
            .operation = "to write and back on one key, its share of two looks",
            .subject = {"annulet modify", turn_of<selector_side>(sockets)},
            .baselines = {{"epoll MOD, wait(0)", turn_of<epoll_side>(sockets), goal::at_least(1.0)}}});
}

}  // namespace bench
