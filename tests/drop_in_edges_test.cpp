// What select, poll, epoll_wait and the sleeps do where few programs look, each scene plainly and as a
// drop-in.

#include "support/blocked_signals.hpp"
#include "support/counted_signal.hpp"
#include "support/descriptor_sets.hpp"
#include "support/full_ends.hpp"
#include "support/texts.hpp"
#include "support/two_ends.hpp"
#include "support/while_waiting.hpp"

#include <annulet/hub/close.hpp>

#include <doctest/doctest.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <csignal>
#include <limits>
#include <string>
#include <thread>
#include <vector>

#include <pthread.h>

using namespace std::chrono_literals;
using annulet::test::blocked_signals;
using annulet::test::counted_signal;
using annulet::test::descriptor;
using annulet::test::full_ends;
using annulet::test::kind;
using annulet::test::make_eventfd;
using annulet::test::make_pipe;
using annulet::test::make_socket_pair;
using annulet::test::once_asleep;
using annulet::test::put;
using annulet::test::require_ok;
using annulet::test::same_in_both;
using annulet::test::scene_notes;
using annulet::test::send_byte;
using annulet::test::set_of;
using annulet::test::three_sets;
using annulet::test::wait_calls;
using annulet::test::with_act_meanwhile;

TEST_CASE(
    "others find the sets of a select that waits as they were given, and all zero when the time is over") {
  for (const int least : {0, 3000}) {
    CAPTURE(least);
    same_in_both([&](const wait_calls& c, scene_notes& notes) {
      const auto both = full_ends(kind::unix_stream);
      const descriptor duplicate(require_ok(::fcntl(both.mine.get(), F_DUPFD_CLOEXEC, least), "F_DUPFD"));
      const int fd = duplicate.get();
      three_sets sets(fd + 64);
      for (std::size_t i = 0; i < 3; ++i) {
        sets.add(i, fd);
      }
      const std::string given = sets.text_from(fd);
      std::string seen;
      const auto look = [&] {
        seen = sets.text_from(fd);
        send_byte(both.peer.get());
      };
      with_act_meanwhile(c, look, [&] {
        notes.result("select", c.select(fd + 1, sets.get(0), sets.get(1), sets.get(2), nullptr));
      });
      notes.note("as given", seen == given);
      notes.note(sets.text_from(fd));
      char byte = 0;
      notes.result("read", ::read(fd, &byte, 1));
      for (std::size_t i = 0; i < 3; ++i) {
        sets.add(i, fd);
      }
      timeval time{0, 3000};
      notes.result("select", c.select(fd + 1, sets.get(0), sets.get(1), sets.get(2), &time));
      notes.note(sets.text_from(fd));
      // A word is written back as a whole.
      sets.add(0, fd / 64 * 64 + 63);
      const timespec some{0, 3'000'000};
      notes.result("pselect", c.pselect(fd / 64 * 64 + 1, sets.get(0), nullptr, nullptr, &some, nullptr));
      notes.note(sets.text_from(fd));
    });
  }
}

TEST_CASE("two selects that wait have one set between them") {
  same_in_both([](const wait_calls& c, scene_notes& notes) {
    const auto pair = make_socket_pair();
    const int fd = pair.first.get();
    three_sets sets(fd);
    sets.add(0, fd);
    int first = -2;
    int second = -2;
    const auto wait = [&] {
      timeval time{5, 0};
      return c.select(fd + 1, sets.get(0), nullptr, nullptr, &time);
    };
    with_act_meanwhile(
        c,
        [&] {
          const once_asleep writes([&] { send_byte(pair.second.get()); });
          second = wait();
        },
        [&] { first = wait(); });
    notes.note("first", first);
    notes.note("second", second);
    notes.note(sets.text_from(fd));
  });
}

TEST_CASE("a select waits for room to write") {
  for (const kind what : {kind::unix_stream, kind::tcp, kind::pipe}) {
    CAPTURE(static_cast<int>(what));
    same_in_both([&](const wait_calls& c, scene_notes& notes) {
      const auto both = full_ends(what);
      const auto quiet = make_pipe();
      const int fd = both.mine.get();
      const int most = std::max(fd, quiet.reader.get()) + 1;
      for (const bool limited : {false, true}) {
        if (limited) {
          annulet::test::fill(fd);
        }
        three_sets sets(most);
        sets.add(0, quiet.reader.get());
        sets.add(1, fd);
        sets.add(2, fd);
        timeval time{5, 0};
        const once_asleep reads([&] { annulet::test::drain(both.peer.get()); });
        notes.result("select",
                     c.select(most, sets.get(0), sets.get(1), sets.get(2), limited ? &time : nullptr));
        notes.note(sets.text_from(fd));
      }
    });
  }
}

TEST_CASE("a select that asks for all three things is told of each when it comes") {
  same_in_both([](const wait_calls& c, scene_notes& notes) {
    const auto both = full_ends(kind::tcp);
    const int fd = both.mine.get();
    const auto wait = [&](const std::function<void()>& act) {
      three_sets sets(fd);
      for (std::size_t i = 0; i < 3; ++i) {
        sets.add(i, fd);
      }
      const once_asleep acts(act);
      notes.result("select", c.select(fd + 1, sets.get(0), sets.get(1), sets.get(2), nullptr));
      notes.note(sets.text_from(fd));
    };
    wait([&] { require_ok(static_cast<int>(::send(both.peer.get(), "!", 1, MSG_OOB)), "send"); });
    char byte = 0;
    notes.result("recv", ::recv(fd, &byte, 1, MSG_OOB));
    wait([&] { send_byte(both.peer.get()); });
    notes.result("read", ::read(fd, &byte, 1));
    wait([&] { annulet::test::drain(both.peer.get()); });
  });
}

TEST_CASE("select refuses a negative count, however negative, and leaves the sets alone") {
  same_in_both([](const wait_calls& c, scene_notes& notes) {
    for (const int count : {-1, -63, -64, -65, -126, -127, -128, -1000, std::numeric_limits<int>::min()}) {
      three_sets sets(64);
      for (std::size_t i = 0; i < 3; ++i) {
        sets.add(i, 5);
      }
      timeval time{0, 1000};
      notes.result("select", c.select(count, sets.get(0), sets.get(1), sets.get(2), &time));
      notes.result("select", c.select(count, sets.get(0), nullptr, nullptr, nullptr));
      const timespec some{0, 1'000'000};
      notes.result("pselect", c.pselect(count, nullptr, sets.get(1), nullptr, &some, nullptr));
      notes.note(sets.text_from(0));
    }
  });
}

TEST_CASE("what others write into the array of a poll that waits has no say in it") {
  for (const std::size_t size : {2U, 100U}) {
    CAPTURE(size);
    same_in_both([&](const wait_calls& c, scene_notes& notes) {
      const auto pair = make_socket_pair();
      const auto quiet = make_socket_pair();
      std::vector<pollfd> fds(size, {-1, 0, 0});
      fds.front() = {pair.first.get(), POLLIN, 0};
      fds.back() = {quiet.first.get(), 0, 0};
      with_act_meanwhile(
          c,
          [&] {
            put(fds.front(), {-1, POLLOUT, 77});
            put(fds.back(), {quiet.first.get(), POLLOUT, 77});
            send_byte(pair.second.get());
          },
          [&] { notes.result("poll", c.poll(fds.data(), size, 5000)); });
      notes.revents(fds);
      // Only that is written.
      notes.note("descriptor", fds.front().fd);
      notes.note("events", fds.front().events);
    });
  }
}

TEST_CASE("nor have events that others ask for too late") {
  same_in_both([](const wait_calls& c, scene_notes& notes) {
    const auto pair = make_socket_pair();
    std::vector<pollfd> fds{{pair.first.get(), 0, 0}};
    with_act_meanwhile(
        c,
        [&] {
          put(fds[0], {pair.first.get(), POLLIN, 0});
          send_byte(pair.second.get());
        },
        [&] { notes.result("poll", c.poll(fds.data(), 1, 60)); });
    notes.revents(fds);
  });
}

// A thread's poll would go on waiting for the file.
TEST_CASE("one that another fiber takes out of the array and closes is told where it stood") {
  annulet::hub home;
  std::array<annulet::test::socket_pair, 3> pairs;
  std::array<pollfd, 3> fds;
  for (std::size_t i = 0; i < 3; ++i) {
    pairs[i] = make_socket_pair();
    fds[i] = {pairs[i].first.get(), POLLIN, 0};
  }
  auto closer = annulet::spawn([&] {
    annulet::this_fiber::sleep_for(1ms);
    fds[0] = {-1, POLLOUT, 0};
    annulet_close(pairs[0].first.release());
  });
  CHECK(annulet_poll(fds.data(), 3, 5000) == 1);
  CHECK(fds[0].revents == POLLNVAL);
  CHECK(fds[0].fd == -1);
  CHECK(fds[0].events == POLLOUT);
  CHECK(fds[1].revents == 0);
  CHECK(fds[2].revents == 0);
  closer.get();
}

// The thread's own pselect would be the only one that waits there.
TEST_CASE("a poll or select without time lets a pending signal in, and all parked calls that let it in end") {
  annulet::hub home;
  const counted_signal usr1(SIGUSR1);
  const blocked_signals here{SIGUSR1};
  const sigset_t none = set_of({});
  const sigset_t keeps_out = set_of({SIGUSR1});
  const timespec no_time{};
  const timespec limit{5, 0};
  const timespec short_limit{0, 20'000'000};
  for (const bool polls : {false, true}) {
    CAPTURE(polls);
    const auto parked = [&](const sigset_t& mask, const timespec& time) {
      return annulet::spawn([&] {
        const int result = annulet_pselect(0, nullptr, nullptr, nullptr, &time, &mask);
        return result == -1 ? errno : result;
      });
    };
    auto first = parked(none, limit);
    auto second = parked(none, limit);
    auto other = parked(keeps_out, short_limit);
    annulet::this_fiber::sleep_for(2ms);
    const int before = usr1.times();
    ::pthread_kill(::pthread_self(), SIGUSR1);
    const int result = polls ? annulet_ppoll(nullptr, 0, &no_time, &none)
                             : annulet_pselect(0, nullptr, nullptr, nullptr, &no_time, &none);
    CHECK(result == -1);
    CHECK(errno == EINTR);
    CHECK(usr1.times() == before + 1);
    CHECK(first.get() == EINTR);
    CHECK(second.get() == EINTR);
    CHECK(other.get() == 0);
    CHECK(usr1.times() == before + 1);
  }
}

TEST_CASE("an epoll wait without time lets no signal in, unlike one with some") {
  same_in_both(
      [](const wait_calls& c, scene_notes& notes) {
        const counted_signal usr1(SIGUSR1);
        const blocked_signals here{SIGUSR1};
        const sigset_t none = set_of({});
        const descriptor set(require_ok(::epoll_create1(EPOLL_CLOEXEC), "epoll_create1"));
        ::pthread_kill(::pthread_self(), SIGUSR1);
        epoll_event event{};
        const timespec no_time{};
        notes.result("epoll_pwait", c.epoll_pwait(set.get(), &event, 1, 0, &none));
        notes.result("epoll_pwait2", c.epoll_pwait2(set.get(), &event, 1, &no_time, &none));
        notes.note("handled", usr1.times());
        notes.result("epoll_pwait", c.epoll_pwait(set.get(), &event, 1, 2000, &none));
        notes.note("handled", usr1.times());
      },
      annulet::test::beside::nobody);
}

TEST_CASE("an epoll set in a set in a set, as deep as the kernel lets them be") {
  same_in_both([](const wait_calls& c, scene_notes& notes) {
    const auto event = make_eventfd();
    std::vector<descriptor> sets;
    sets.reserve(5);
    const descriptor* inner = &event;
    for (int depth = 0; depth < 5; ++depth) {
      descriptor set(require_ok(::epoll_create1(EPOLL_CLOEXEC), "epoll_create1"));
      epoll_event about{EPOLLIN, {.u64 = 7}};
      require_ok(::epoll_ctl(set.get(), EPOLL_CTL_ADD, inner->get(), &about), "epoll_ctl");
      inner = &sets.emplace_back(std::move(set));
    }
    const int outer = sets.back().get();
    std::uint64_t count = 0;
    const auto wait = [&](const std::function<int()>& call) {
      const once_asleep adds([&] { annulet::test::add_to_eventfd(event.get()); });
      notes.result("woken", call());
      notes.result("read", ::read(event.get(), &count, sizeof(count)));
    };
    for (const int limit : {-1, 5000}) {
      wait([&] {
        epoll_event told{};
        return c.epoll_wait(outer, &told, 1, limit);
      });
      pollfd one{outer, POLLIN, 0};
      wait([&] { return c.poll(&one, 1, limit); });
      notes.note("revents", one.revents);
      wait([&] {
        three_sets sets_of(outer);
        sets_of.add(0, outer);
        return c.select(outer + 1, sets_of.get(0), nullptr, nullptr, nullptr);
      });
    }
    pollfd one{outer, POLLIN, 0};
    notes.result("and not", c.poll(&one, 1, 10));
  });
}

TEST_CASE("waits and sleeps that succeed leave errno alone") {
  same_in_both([](const wait_calls& c, scene_notes& notes) {
    const auto pair = make_socket_pair();
    const int fd = pair.first.get();
    const descriptor set(require_ok(::epoll_create1(EPOLL_CLOEXEC), "epoll_create1"));
    epoll_event event{EPOLLIN, {.u64 = 7}};
    require_ok(::epoll_ctl(set.get(), EPOLL_CTL_ADD, fd, &event), "epoll_ctl");
    const timespec some{0, 2'000'000};
    const sigset_t none = set_of({});
    const std::vector<std::function<int()>> calls = {
        [&] {
          timeval time{0, 2000};
          three_sets sets(fd);
          sets.add(0, fd);
          return c.select(fd + 1, sets.get(0), nullptr, nullptr, &time);
        },
        [&] {
          three_sets sets(5000);
          sets.add(0, fd);
          return c.pselect(5000, sets.get(0), nullptr, nullptr, &some, &none);
        },
        [&] {
          pollfd one{fd, POLLIN, 0};
          return c.poll(&one, 1, 2);
        },
        [&] {
          pollfd one{fd, POLLIN, 0};
          return c.ppoll(&one, 1, &some, &none);
        },
        [&] { return c.epoll_wait(set.get(), &event, 1, 2); },
        [&] { return c.epoll_pwait(set.get(), &event, 1, 2, &none); },
        [&] { return c.epoll_pwait2(set.get(), &event, 1, &some, &none); },
        [&] { return static_cast<int>(c.sleep(0)); },
        [&] { return c.usleep(2000); },
        [&] { return c.nanosleep(&some, nullptr); },
        [&] { return c.clock_nanosleep(CLOCK_BOOTTIME, 0, &some, nullptr); },
    };
    for (const bool ready : {false, true}) {
      if (ready) {
        send_byte(pair.second.get());
      }
      for (const auto& call : calls) {
        errno = 77;
        notes.result("call", call());
        notes.note("errno", errno);
      }
    }
    // Woken, and not at the end of the time.
    char byte = 0;
    notes.result("read", ::read(fd, &byte, 1));
    pollfd one{fd, POLLIN, 0};
    const once_asleep writes([&] { send_byte(pair.second.get()); });
    errno = 77;
    notes.result("poll", c.poll(&one, 1, -1));
    notes.note("errno", errno);
  });
}
