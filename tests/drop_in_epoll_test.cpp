// epoll_wait and its kin, each scene plainly and as a drop-in.

#include "support/page_before_nothing.hpp"
#include "support/plain_and_parked.hpp"

#include <annulet/hub/close.hpp>

#include <doctest/doctest.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <span>

using namespace std::chrono_literals;
using annulet::test::descriptor;
using annulet::test::later;
using annulet::test::make_eventfd;
using annulet::test::make_pipe;
using annulet::test::make_socket_pair;
using annulet::test::note_wait;
using annulet::test::page_before_nothing;
using annulet::test::require_ok;
using annulet::test::same_in_both;
using annulet::test::scene_notes;
using annulet::test::send_byte;
using annulet::test::wait_calls;

namespace {

descriptor make_epoll() { return descriptor(require_ok(::epoll_create1(EPOLL_CLOEXEC), "epoll_create1")); }

void add(const descriptor& set, const descriptor& file, std::uint32_t events, std::uint64_t data,
         int operation = EPOLL_CTL_ADD) {
  epoll_event event{events, {.u64 = data}};
  require_ok(::epoll_ctl(set.get(), operation, file.get(), &event), "epoll_ctl");
}

// What is told, in the order of the data.
void note_events(scene_notes& notes, std::span<epoll_event> events) {
  std::ranges::sort(events, {}, [](const epoll_event& e) { return std::uint64_t{e.data.u64}; });
  for (const epoll_event& e : events) {
    notes.note(std::to_string(e.data.u64), e.events);
  }
}

void note_call(scene_notes& notes, const wait_calls& c, const descriptor& set, int most, int limit) {
  std::array<epoll_event, 16> events{};
  const long count = notes.result("epoll_wait", c.epoll_wait(set.get(), events.data(), most, limit));
  note_events(notes, std::span(events).first(count > 0 ? static_cast<std::size_t>(count) : 0));
}

}  // namespace

TEST_CASE("a level is told again and again, an edge once, and one shot until it is armed anew") {
  for (const std::uint32_t how :
       {0U, static_cast<unsigned>(EPOLLET), static_cast<unsigned>(EPOLLONESHOT), EPOLLET | EPOLLONESHOT}) {
    CAPTURE(how);
    same_in_both([&](const wait_calls& c, scene_notes& notes) {
      const auto set = make_epoll();
      const auto pair = make_socket_pair();
      add(set, pair.first, EPOLLIN | EPOLLRDHUP | how, 7);
      const int long_enough = (how & EPOLLONESHOT) != 0 ? 20 : 5000;  // it is told of the first only
      for (int i = 0; i < 3; ++i) {
        const later writes([&] { send_byte(pair.second.get()); });
        note_call(notes, c, set, 16, i == 0 ? -1 : long_enough);
        note_call(notes, c, set, 16, 0);
        note_call(notes, c, set, 16, 3);
      }
      add(set, pair.first, EPOLLIN | how, 8, EPOLL_CTL_MOD);
      note_call(notes, c, set, 16, -1);
      require_ok(::shutdown(pair.second.get(), SHUT_WR), "shutdown");
      note_call(notes, c, set, 16, 3);
    });
  }
}

TEST_CASE("with room for one event at a time each has its turn") {
  same_in_both([](const wait_calls& c, scene_notes& notes) {
    const auto set = make_epoll();
    std::vector<annulet::test::socket_pair> pairs(5);
    for (std::size_t i = 0; i < pairs.size(); ++i) {
      pairs[i] = make_socket_pair();
      add(set, pairs[i].first, EPOLLIN, i);
    }
    {
      const later writes([&] { send_byte(pairs[0].second.get()); });
      note_call(notes, c, set, 1, -1);
    }
    for (const auto& pair : std::span(pairs).subspan(1)) {
      send_byte(pair.second.get());
    }
    for (std::size_t i = 0; i < 2 * pairs.size(); ++i) {
      note_call(notes, c, set, 1, -1);
    }
    note_call(notes, c, set, 16, -1);
  });
}

TEST_CASE("an exclusive entry, an epoll set within another, and a set above descriptor 1024") {
  same_in_both([](const wait_calls& c, scene_notes& notes) {
    const auto made = make_epoll();
    const descriptor set(require_ok(::fcntl(made.get(), F_DUPFD_CLOEXEC, 2000), "F_DUPFD"));
    const auto outer = make_epoll();
    const auto event = make_eventfd();
    add(set, event, EPOLLIN | EPOLLEXCLUSIVE, 1);
    add(outer, set, EPOLLIN, 2);
    annulet::test::add_to_eventfd(event.get());
    note_call(notes, c, set, 4, -1);
    note_call(notes, c, outer, 4, -1);
    std::uint64_t count = 0;
    notes.result("read", ::read(event.get(), &count, sizeof(count)));
    note_call(notes, c, outer, 4, 2);
    const later adds([&] { annulet::test::add_to_eventfd(event.get()); });
    note_call(notes, c, outer, 4, -1);
    note_call(notes, c, set, 4, 0);
  });
}

TEST_CASE("epoll waits are never too short") {
  same_in_both([](const wait_calls& c, scene_notes& notes) {
    const auto set = make_epoll();
    epoll_event event{};
    note_wait(notes, 3ms, [&] { notes.result("epoll_wait", c.epoll_wait(set.get(), &event, 1, 3)); });
    note_wait(notes, 3ms,
              [&] { notes.result("epoll_pwait", c.epoll_pwait(set.get(), &event, 1, 3, nullptr)); });
    const timespec some{0, 1'500'001};
    note_wait(notes, 1500us,
              [&] { notes.result("epoll_pwait2", c.epoll_pwait2(set.get(), &event, 1, &some, nullptr)); });
    const auto ready = make_eventfd(1);
    add(set, ready, EPOLLIN, 3);
    notes.result("epoll_pwait2", c.epoll_pwait2(set.get(), &event, 1, nullptr, nullptr));
  });
}

TEST_CASE("epoll_wait refuses what the kernel refuses") {
  same_in_both([](const wait_calls& c, scene_notes& notes) {
    const page_before_nothing page;
    const auto set = make_epoll();
    const auto pipe = make_pipe();
    epoll_event event{};
    for (const int limit : {0, 3, -1}) {
      notes.result("no set", c.epoll_wait(pipe.reader.get(), &event, 1, limit));
      notes.result("closed", c.epoll_wait(12'345, &event, 1, limit));
      notes.result("negative", c.epoll_wait(-1, &event, 1, limit));
      for (const int most : {0, -1, 1 << 30}) {
        notes.result("room", c.epoll_wait(set.get(), &event, most, limit));
      }
    }
    for (const timespec& bad : {timespec{-1, 0}, timespec{0, 1'000'000'000}, timespec{0, -1}}) {
      notes.result("a bad time", c.epoll_pwait2(set.get(), &event, 1, &bad, nullptr));
    }
    const timespec some{0, 1'000'000};
    const auto* const nowhere = static_cast<const timespec*>(page.last(8));
    notes.result("no time", c.epoll_pwait2(set.get(), &event, 1, nowhere, nullptr));
    notes.result("a bad mask",
                 c.epoll_pwait2(set.get(), &event, 1, &some, static_cast<const sigset_t*>(page.last(4))));
    notes.result("nowhere, and nothing", c.epoll_wait(set.get(), nullptr, 1, 2));
    const auto ready = make_eventfd(1);
    add(set, ready, EPOLLIN, 3);
    notes.result("nowhere", c.epoll_wait(set.get(), static_cast<epoll_event*>(page.last(4)), 1, -1));
  });
}

TEST_CASE("many fibers wait for one epoll descriptor, and each event is for one of them") {
  annulet::hub home;
  const auto set = make_epoll();
  const auto event =
      descriptor(require_ok(::eventfd(0, EFD_SEMAPHORE | EFD_NONBLOCK | EFD_CLOEXEC), "eventfd"));
  add(set, event, EPOLLIN | EPOLLET, 1);
  constexpr int fibers = 50;
  int woken = 0;
  std::vector<annulet::fiber<void>> waiting;
  for (int i = 0; i < fibers; ++i) {
    waiting.push_back(annulet::spawn([&] {
      epoll_event told{};
      CHECK(annulet_epoll_wait(set.get(), &told, 1, -1) == 1);
      CHECK(std::uint64_t{told.data.u64} == 1);
      ++woken;
    }));
  }
  annulet::this_fiber::sleep_for(2ms);
  for (int i = 0; i < fibers; ++i) {
    annulet::test::add_to_eventfd(event.get());
    annulet::this_fiber::sleep_for(1ms);
    CHECK(woken == i + 1);
  }
  for (auto& one : waiting) {
    one.get();
  }
}

TEST_CASE("an epoll descriptor that another fiber closes ends the wait for it with EBADF") {
  annulet::hub home;
  auto set = make_epoll();
  const int fd = set.release();
  auto closer = annulet::spawn([&] { annulet::close(fd); });
  epoll_event event{};
  CHECK(annulet_epoll_wait(fd, &event, 1, -1) == -1);
  CHECK(errno == EBADF);
  closer.get();
}
