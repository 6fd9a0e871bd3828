// What a select costs in system calls: as few as there is news; and what registrations cost while nobody
// selects.
//
// The ring says without a call whether anything has happened; epoll has to be asked, by each look. What
// changed it is told one by one. Where a file is ready no more when it is asked, it tells of nothing.
#include "support/cpu_time.hpp"
#include "support/engine.hpp"
#include "support/selecting.hpp"
#include "support/syscalls.hpp"
#include "support/texts.hpp"

#include <annulet/hub/hub.hpp>
#include <annulet/runtime/event.hpp>
#include <annulet/runtime/fiber.hpp>
#include <annulet/selector/selector.hpp>

#include <doctest/doctest.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <cstdint>
#include <stdexcept>
#include <string>
#include <vector>

using namespace std::chrono_literals;
using namespace annulet::test;
using annulet::hub;
using annulet::io_event;
using annulet::selector;

namespace {

constexpr std::uint64_t polls = SYS_poll, changes = SYS_epoll_ctl;

// A selector with keys that are quiet, and one whose peer can write. All are armed.
struct steady_state {
  steady_state() {
    std::generate(pairs.begin(), pairs.end(), [] { return make_socket_pair(); });
    for (const auto& pair : pairs) {
      sel.register_(pair.first.get(), io_event::read, 0);
    }
    for (int i = 0; i < 5; ++i) {
      sel.select(out, 0s);
      sel.select(out, 100us);
    }
  }
  void write() { send_byte(pairs[0].second.get()); }
  void consume() { (void)try_read(pairs[0].first.get()); }
  void found_it() {
    if (out.size() != 1) {
      throw std::runtime_error("select did not find what is there");
    }
  }

  hub home;
  annulet::basic_selector<int> sel;
  std::array<socket_pair, 100> pairs;
  std::vector<annulet::basic_selector<int>::ready_type> out;
};

constexpr unsigned times = 100;
// Others have their turn after so many switches, and so has the kernel; a select counts for one or two.
constexpr unsigned breaths(unsigned selects) { return selects / 32 + 1; }

// How many waits are made again: the kernel interrupts one where a ring was set up before the hub's, and
// refused by a later call, some time afterwards, when it comes to the end of that ring.
unsigned interruptions() {
  const auto refused = hub().engine_report().refused;
  return std::ranges::any_of(refused,
                             [](const std::string& why) {
                               return why.starts_with("io_uring_enter") ||
                                      why.starts_with("io_uring_register");
                             })
             ? 1
             : 0;
}

}  // namespace

TEST_CASE("a select with nothing pending makes no system call but the park's, and epoll's looks") {
  auto parts = count_syscalls([](auto mark) {
    steady_state s;
    mark();
    for (unsigned i = 0; i < 1000; ++i) {
      s.sel.select(s.out, 0s);
    }
    mark();
    for (unsigned i = 0; i < times; ++i) {
      s.sel.select(s.out, 300us);
    }
    mark();
  });
  REQUIRE(parts.size() == 2);
  const std::uint64_t waits = wait_call();
  if (on_epoll()) {
    CHECK(parts[0][waits] <= 1000 + breaths(1000));
    CHECK(total(parts[0]) == parts[0][waits]);
    CHECK(total(parts[1]) == parts[1][waits]);
    CHECK(parts[1][waits] >= 3 * times);  // a look, the park, and a look at its end
    CHECK(parts[1][waits] <= 3 * times + interruptions());
  } else {
    CHECK(total(parts[0]) == 0);
    CHECK(parts[1] == syscall_counts{{waits, times}});
  }
}

TEST_CASE("a select that finds something at once makes at most one enter and one poll") {
  auto parts = count_syscalls([](auto mark) {
    steady_state s;
    mark();
    for (unsigned i = 0; i < times; ++i) {
      s.write();
      s.sel.select(s.out);
      s.found_it();
      s.consume();
    }
    mark();
    s.write();
    s.sel.select(s.out);
    mark();
    for (unsigned i = 0; i < times; ++i) {
      s.sel.select(s.out);  // what was reported last time, and is still there
      s.found_it();
    }
    mark();
  });
  REQUIRE(parts.size() == 3);
  const std::uint64_t waits = wait_call();
  CHECK(parts[0][waits] <= times + (on_epoll() ? breaths(times) + interruptions() : 0));
  CHECK(parts[0][polls] <= times);
  CHECK(total(parts[0]) == parts[0][waits] + parts[0][polls] + 2 * times);
  CHECK(parts[2][polls] == times);
  CHECK(parts[2][waits] <= (on_epoll() ? times + breaths(times) : 0));
  CHECK(total(parts[2]) == parts[2][polls] + parts[2][waits]);
}

TEST_CASE(
    "a select that parks makes one enter and at most two polls, and one of each for every vain wake-up") {
  auto parts = count_syscalls([](auto mark) {
    steady_state s;
    annulet::event go;
    unsigned vain = 0;
    auto writer = annulet::spawn([&] {
      for (;;) {
        go.wait();
        go.clear();
        for (; vain > 0; --vain) {
          s.write();
          s.consume();
          for (int i = 0; i < 70; ++i) {
            annulet::this_fiber::yield();  // the hub looks now and then, and wakes the select for nothing
          }
        }
        s.write();
      }
    });
    annulet::this_fiber::yield();
    mark();
    for (unsigned i = 0; i < times; ++i) {
      go.set();
      s.sel.select(s.out);
      s.found_it();
      s.consume();
    }
    mark();
    vain = times;
    go.set();
    s.sel.select(s.out);
    s.found_it();
    mark();
    writer.kill();
    writer.join();
  });
  REQUIRE(parts.size() == 2);
  const std::uint64_t waits = wait_call();
  CAPTURE(parts[0]);
  CHECK(parts[0][waits] <= (on_epoll() ? 3 * times + interruptions() : times));
  CHECK(parts[0][polls] <= 2 * times);
  CHECK(total(parts[0]) == parts[0][waits] + parts[0][polls] + 2 * times);
  if (on_epoll()) {
    CHECK(parts[1][waits] >= times);  // the looks, which find nothing
    CHECK(parts[1][waits] <= 3 + 70 * times / 60);
    CHECK(parts[1][polls] <= 2);
  } else {
    CHECK(parts[1][waits] <= 1 + times);
    CHECK(parts[1][polls] <= 2 + times);
    CHECK(parts[1][polls] >= times);
  }
}

TEST_CASE(
    "changes cost no enter of their own but where files are let go, and the data alone nothing at all") {
  auto parts = count_syscalls([](auto mark) {
    steady_state s;
    std::vector<int> others;
    for (const auto& pair : s.pairs) {
      others.push_back(pair.second.get());
    }
    for (unsigned i = 0; i < 10; ++i) {
      s.sel.modify(s.pairs[1].first.get(), io_event::read, 1);
    }
    for (const int fd : others) {  // once before, so that the heap has grown by as much as this takes
      s.sel.register_(fd, io_event::read, 0);
    }
    s.sel.select(s.out, 0s);
    s.sel.unregister_all(others);
    mark();
    for (unsigned i = 0; i < times; ++i) {
      s.sel.modify(s.pairs[1].first.get(), io_event::read, 2);
    }
    mark();
    for (const int fd : others) {
      s.sel.register_(fd, io_event::read, 3);
    }
    s.sel.modify(s.pairs[1].first.get(), both, 2);
    mark();
    s.sel.select(s.out, 0s);
    s.found_it();
    mark();
    s.sel.unregister_all(others);
    mark();
  });
  REQUIRE(parts.size() == 4);
  CHECK(total(parts[0]) == 0);
  const std::uint64_t waits = wait_call();
  CHECK(parts[1][waits] == 0);
  CHECK(parts[1][polls] == 0);
  CHECK(parts[1][changes] == 0);
  if (on_epoll()) {
    CHECK(parts[2] == syscall_counts{{waits, 1}, {polls, 1}, {changes, times}});
    CHECK(parts[3] == syscall_counts{{changes, times}});
  } else {
    CHECK(parts[2] == syscall_counts{{waits, 1}, {polls, 1}});
    CHECK(total(parts[3]) <= 4);
  }
}

TEST_CASE(
    "interest that goes to and fro is told to the kernel once, and cut back when it turns out to cost") {
  auto parts = count_syscalls([](auto mark) {
    steady_state s;
    const int fd = s.pairs[1].first.get();
    const int peer = s.pairs[1].second.get();
    (void)fill(fd);
    const auto to_and_fro = [&] {
      s.sel.modify(fd, io_event::write);
      s.sel.select(s.out, 0s);
      s.sel.modify(fd, io_event::read);
      s.sel.select(s.out, 0s);
    };
    to_and_fro();
    mark();
    for (unsigned i = 0; i < times; ++i) {
      to_and_fro();
    }
    mark();
    for (unsigned i = 0; i < times; ++i) {
      (void)drain(peer);  // there is room, which nobody asks for now
      s.sel.select(s.out, 0s);
      if (!s.out.empty()) {
        throw std::runtime_error("what was not asked for was reported");
      }
      (void)fill(fd);
    }
    mark();
    (void)drain(peer);
    s.sel.modify(fd, io_event::write);
    s.sel.select(s.out, 0s);
    s.found_it();
    mark();
  });
  REQUIRE(parts.size() == 3);
  const std::uint64_t waits = wait_call();
  CHECK(parts[0][changes] == 0);
  CHECK(parts[0][polls] == 2 * times);
  CHECK(parts[0][waits] <= (on_epoll() ? 2 * times + breaths(2 * times) : 0));
  CHECK(parts[1][changes] <= 1);
  CHECK(parts[1][polls] <= 1);
  CHECK(parts[1][waits] <= (on_epoll() ? times + breaths(times) + 1 : 2));
}

TEST_CASE("a key that is busy while nobody selects wakes the hub a few times and then no more") {
  auto parts = count_syscalls([](auto mark) {
    steady_state s;
    mark();
    for (unsigned i = 0; i < times; ++i) {
      s.write();
      s.consume();
      annulet::this_fiber::sleep_for(300us);
    }
    mark();
    s.write();
    s.sel.select(s.out, 0s);
    s.found_it();
    mark();
  });
  REQUIRE(parts.size() == 2);
  const std::uint64_t waits = wait_call();
  CHECK(parts[0][waits] >= times);  // the sleeps
  CHECK(parts[0][waits] <= times + 8);
  CHECK(total(parts[0]) == parts[0][waits] + 2 * times);
}

TEST_CASE("descriptors that hang up or have unread data cost nothing while nobody selects") {
  hub home;
  selector sel;
  std::vector<socket_pair> pairs(1000);
  std::generate(pairs.begin(), pairs.end(), [] { return make_socket_pair(); });
  for (const auto& pair : pairs) {
    sel.register_(pair.first.get(), io_event::read);
  }
  SUBCASE("never looked at") {}
  SUBCASE("armed") { CHECK(look(sel).empty()); }
  SUBCASE("reported once") {
    for (auto& pair : pairs) {
      send_byte(pair.second.get());
    }
    CHECK(look(sel).size() == pairs.size());
  }
  for (std::size_t i = 0; i < pairs.size(); ++i) {
    send_byte(pairs[i].second.get());
    if (i % 2 == 0) {
      pairs[i].second.close();
    }
  }
  // First all of it is taken in, some events a wait: on a full machine not within the first sleep.
  annulet::hub_counts in_a_sleep;
  for (int i = 0; i < 20 && (i == 0 || in_a_sleep.enters > 2 || in_a_sleep.requests > 0); ++i) {
    const auto before = home.counts();
    annulet::this_fiber::sleep_for(200ms);
    const auto after = home.counts();
    in_a_sleep.enters = after.enters - before.enters;
    in_a_sleep.requests = after.requests - before.requests;
  }
  CHECK(in_a_sleep.enters <= 2);  // the sleep itself, and maybe a look before it
  CHECK(in_a_sleep.requests == 0);
  CHECK(least_cpu(10ms, process_cpu, [] { annulet::this_fiber::sleep_for(200ms); }) < 10ms);
  CHECK(look(sel).size() == pairs.size());
}
