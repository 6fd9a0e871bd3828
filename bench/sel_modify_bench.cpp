// sel_modify: the interest of registered descriptors changes from reading to writing and back.
//
//   annulet_bench sel_modify
//
// A round changes 64 sockets from reading to writing, looks with timeout 0, changes them back and looks
// again. None of them has anything to read. In one setting all can be written to, so that the first look must
// find all 64 ready and the second none; in the other their buffers are full, so that neither look may find
// any, and what is armed in the kernel has to follow each change. The subject is annulet's selector, held
// against EPOLL_CTL_MOD and epoll_wait(0), on either engine. Before and after the timed rounds a byte is sent
// to one of the sockets, which the next look must report for reading.
#include <annulet/selector/selector.hpp>

#include <algorithm>
#include <array>
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
using annulet::io_event;

constexpr std::size_t keys = 64;

class epoll_side {
 public:
  explicit epoll_side(std::span<const int> fds) {
    for (std::size_t i = 0; i < fds.size(); ++i) {
      epoll_.add(fds[i], EPOLLIN, i);
    }
  }
  void change(int fd, io_event to, std::size_t index) { epoll_.modify(fd, mask(to), index); }

  // How many are ready for that; anything else that is reported ends the process.
  std::size_t look(io_event expected) {
    const auto ready = epoll_.wait(0);
    for (const epoll_event& event : ready) {
      if (event.events != mask(expected)) {
        fail("sel_modify: epoll reported %#x", event.events);
      }
    }
    return ready.size();
  }

 private:
  static std::uint32_t mask(io_event event) { return event == io_event::read ? EPOLLIN : EPOLLOUT; }
  raw_epoll epoll_;
};

class selector_side {
 public:
  explicit selector_side(std::span<const int> fds) {
    for (std::size_t i = 0; i < fds.size(); ++i) {
      selector_.register_(fds[i], io_event::read, static_cast<int>(i));
    }
  }
  void change(int fd, io_event to, std::size_t index) { selector_.modify(fd, to, static_cast<int>(index)); }
  std::size_t look(io_event expected) {
    selector_.select(ready_, 0ms);
    for (const auto& [key, events] : ready_) {
      if (events != expected) {
        fail("sel_modify: the selector reported descriptor %d for something else", key->fd);
      }
    }
    return ready_.size();
  }

 private:
  annulet::basic_selector<int> selector_;
  std::vector<annulet::basic_selector<int>::ready_type> ready_;
};

template <class Side>
void check_effect(Side& side, const socket_pairs& sockets) {
  char byte = 1;
  if (::write(sockets.writers()[5], &byte, 1) != 1) {
    fail("sel_modify: write failed");
  }
  if (side.look(io_event::read) != 1) {
    fail("sel_modify: a byte arrived and was not reported");
  }
  if (::read(sockets.readers()[5], &byte, 1) != 1) {
    fail("sel_modify: read failed");
  }
}

template <class Side>
turn_function turn_of(const socket_pairs& sockets, std::size_t writable) {
  return [&sockets, writable](meter& clock, std::uint64_t operations) {
    const auto fds = sockets.readers();
    Side side(fds);
    const auto change_all = [&](io_event to) {
      for (std::size_t k = 0; k < keys; ++k) {
        side.change(fds[k], to, k);
      }
    };
    const auto run = [&](std::uint64_t rounds) {
      for (std::uint64_t i = 0; i < rounds; ++i) {
        change_all(io_event::write);
        if (side.look(io_event::write) != writable) {
          fail("sel_modify: not %zu sockets were reported for writing", writable);
        }
        change_all(io_event::read);
        if (side.look(io_event::read) != 0) {
          fail("sel_modify: a socket was reported after its interest had gone back");
        }
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

void hold_with(harness& run, const socket_pairs& sockets, std::string setting, std::size_t writable) {
  run.hold(
      {.bench = "sel_modify",
       .setting = std::move(setting),
       .operation = "to write and back on one key, its share of two looks",
       .subject = {"annulet modify", turn_of<selector_side>(sockets, writable)},
       .baselines = {{"epoll MOD, wait(0)", turn_of<epoll_side>(sockets, writable), goal::at_least(1.0)},
                     annulet_on_epoll(turn_of<selector_side>(sockets, writable), "epoll MOD, wait(0)")}});
}

// Until nothing more goes into them.
void fill(std::span<const int> fds) {
  static constexpr std::array<char, 65536> bytes{};
  for (const int fd : fds) {
    while (::write(fd, bytes.data(), bytes.size()) > 0) {
    }
    while (::write(fd, bytes.data(), 1) > 0) {
    }
  }
}

}  // namespace

void bench_sel_modify(harness& run) {
  const socket_pairs sockets(keys);
  annulet::hub hub(on(annulet::engine_choice::uring));
  hold_with(run, sockets, "64 keys, writable", keys);
  fill(sockets.readers());
  hold_with(run, sockets, "64 keys, buffers full", 0);
}

}  // namespace bench
