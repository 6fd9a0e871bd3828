// Which signals end which drop-ins.
//
// ANNULET_SIGNALS says how many are sent at random moments.

#include "oracle/run.hpp"
#include "support/blocked_signals.hpp"
#include "support/counted_signal.hpp"
#include "support/plain_and_parked.hpp"
#include "support/while_waiting.hpp"

#include <doctest/doctest.h>

#include <array>
#include <atomic>
#include <chrono>
#include <csignal>
#include <random>
#include <string>

#include <pthread.h>

using namespace std::chrono_literals;
using annulet::test::blocked_signals;
using annulet::test::counted_signal;
using annulet::test::descriptor;
using annulet::test::later;
using annulet::test::make_eventfd;
using annulet::test::make_pipe;
using annulet::test::note_wait;
using annulet::test::once_asleep;
using annulet::test::require_ok;
using annulet::test::same_in_both;
using annulet::test::scene_notes;
using annulet::test::send_byte;
using annulet::test::set_of;
using annulet::test::wait_calls;

namespace {

const sigset_t none = set_of({});

// Every call that waits, with nothing to come, for a second at most or for ever.
struct waiting_call {
  const char* name;
  std::function<long(const wait_calls&, const sigset_t* mask, bool for_ever)> call;
  bool takes_mask;
};

std::vector<waiting_call> waiting_calls(const descriptor& quiet, const descriptor& set) {
  static constexpr timespec limit{5, 0};
  static epoll_event event;
  return {
      {"select",
       [&](const wait_calls& c, const sigset_t*, bool for_ever) {
         fd_set in;
         FD_ZERO(&in);
         FD_SET(quiet.get(), &in);
         timeval time{5, 0};
         const int result = c.select(quiet.get() + 1, &in, nullptr, nullptr, for_ever ? nullptr : &time);
         const int error = errno;
         if (FD_ISSET(quiet.get(), &in) == 0 || (!for_ever && time.tv_sec != 4)) {
           return 100L;
         }
         errno = error;
         return static_cast<long>(result);
       },
       false},
      {"pselect",
       [&](const wait_calls& c, const sigset_t* mask, bool for_ever) {
         fd_set in;
         FD_ZERO(&in);
         FD_SET(quiet.get(), &in);
         return static_cast<long>(
             c.pselect(quiet.get() + 1, &in, nullptr, nullptr, for_ever ? nullptr : &limit, mask));
       },
       true},
      {"poll",
       [&](const wait_calls& c, const sigset_t*, bool for_ever) {
         pollfd one{quiet.get(), POLLIN, 0};
         return static_cast<long>(c.poll(&one, 1, for_ever ? -1 : 5000));
       },
       false},
      {"ppoll",
       [&](const wait_calls& c, const sigset_t* mask, bool for_ever) {
         pollfd one{quiet.get(), POLLIN, 0};
         return static_cast<long>(c.ppoll(&one, 1, for_ever ? nullptr : &limit, mask));
       },
       true},
      {"epoll_wait",
       [&](const wait_calls& c, const sigset_t*, bool for_ever) {
         return static_cast<long>(c.epoll_wait(set.get(), &event, 1, for_ever ? -1 : 5000));
       },
       false},
      {"epoll_pwait",
       [&](const wait_calls& c, const sigset_t* mask, bool for_ever) {
         return static_cast<long>(c.epoll_pwait(set.get(), &event, 1, for_ever ? -1 : 5000, mask));
       },
       true},
      {"epoll_pwait2",
       [&](const wait_calls& c, const sigset_t* mask, bool for_ever) {
         return static_cast<long>(c.epoll_pwait2(set.get(), &event, 1, for_ever ? nullptr : &limit, mask));
       },
       true},
      {"sleep", [](const wait_calls& c, const sigset_t*, bool) { return static_cast<long>(c.sleep(5)); },
       false},
      {"usleep",
       [](const wait_calls& c, const sigset_t*, bool) { return static_cast<long>(c.usleep(5'000'000)); },
       false},
      {"nanosleep",
       [](const wait_calls& c, const sigset_t*, bool) {
         timespec left{};
         const int result = c.nanosleep(&limit, &left);
         return left.tv_sec == 4 && left.tv_nsec > 0 ? static_cast<long>(result) : 100L;
       },
       false},
      {"clock_nanosleep",
       [](const wait_calls& c, const sigset_t*, bool) {
         timespec left{};
         const int result = c.clock_nanosleep(CLOCK_BOOTTIME, 0, &limit, &left);
         return left.tv_sec == 4 && left.tv_nsec > 0 ? static_cast<long>(result) : 100L;
       },
       false},
  };
}

// The scene with each call in turn; the descriptor never has anything.
template <class Scene>
void with_each(const wait_calls& c, scene_notes& notes, Scene&& play) {
  const descriptor quiet = make_eventfd();
  const descriptor set(require_ok(::epoll_create1(EPOLL_CLOEXEC), "epoll_create1"));
  for (const waiting_call& one : waiting_calls(quiet, set)) {
    notes.note(one.name);
    play(c, notes, one);
  }
}

}  // namespace

TEST_CASE("a handled signal ends each call that waits, whether its handler restarts calls or not") {
  for (const int flags : {0, SA_RESTART}) {
    for (const bool for_ever : {false, true}) {
      CAPTURE(flags);
      same_in_both(
          [&](const wait_calls& calls, scene_notes& all) {
            with_each(calls, all, [&](const wait_calls& c, scene_notes& notes, const waiting_call& one) {
              const counted_signal usr1(SIGUSR1, flags);
              const once_asleep sends([self = ::pthread_self()] { ::pthread_kill(self, SIGUSR1); });
              notes.result(one.name, one.call(c, nullptr, for_ever));
              notes.note("handled", usr1.times());
            });
          },
          annulet::test::beside::nobody);
    }
  }
}

TEST_CASE("a signal that is ignored ends none, nor one that the thread blocks") {
  same_in_both(
      [](const wait_calls& c, scene_notes& notes) {
        const counted_signal ignored(SIGUSR1, 0, SIG_IGN);
        const counted_signal kept(SIGUSR2);
        {
          const blocked_signals here{SIGUSR2};
          const later sends([self = ::pthread_self()] {
            ::pthread_kill(self, SIGUSR1);
            ::pthread_kill(self, SIGUSR2);
            ::pthread_kill(self, SIGCHLD);
          });
          note_wait(notes, 30ms, [&] { notes.result("poll", c.poll(nullptr, 0, 30)); });
          notes.note("handled", kept.times());
        }
        notes.note("handled", kept.times());
      },
      annulet::test::beside::nobody);
}

TEST_CASE("a signal that waits is let in by the mask, unless there is something to report") {
  same_in_both(
      [](const wait_calls& calls, scene_notes& all) {
        with_each(calls, all, [](const wait_calls& c, scene_notes& notes, const waiting_call& one) {
          if (!one.takes_mask) {
            return;
          }
          const counted_signal usr1(SIGUSR1);
          const blocked_signals here{SIGUSR1};
          ::pthread_kill(::pthread_self(), SIGUSR1);
          notes.result("lets it in", one.call(c, &none, true));
          notes.note("handled", usr1.times());
          const later sends([self = ::pthread_self()] { ::pthread_kill(self, SIGUSR1); }, 4ms);
          notes.result("parked", one.call(c, &none, true));
          notes.note("handled", usr1.times());
        });
        const counted_signal usr1(SIGUSR1);
        const blocked_signals here{SIGUSR1};
        ::pthread_kill(::pthread_self(), SIGUSR1);
        const descriptor ready = make_eventfd(1);
        pollfd one{ready.get(), POLLIN, 0};
        all.result("with something ready", calls.ppoll(&one, 1, nullptr, &none));
        all.note("handled", usr1.times());
        const timespec zero{};
        one.events = POLLPRI;
        all.result("with no time", calls.ppoll(&one, 1, &zero, &none));
        all.note("handled", usr1.times());
      },
      annulet::test::beside::nobody);
}

TEST_CASE("the mask keeps out what the thread lets in, until the call is over") {
  same_in_both(
      [](const wait_calls& c, scene_notes& notes) {
        const counted_signal usr1(SIGUSR1);
        const sigset_t keeps_out = set_of({SIGUSR1});
        const timespec some{0, 30'000'000};
        int while_waiting = -1;
        {
          const later sends([self = ::pthread_self()] { ::pthread_kill(self, SIGUSR1); }, 4ms);
          note_wait(notes, c.parks ? 0ms : 30ms, [&] {
            notes.result("ppoll", c.ppoll(nullptr, 0, &some, &keeps_out));
            while_waiting = usr1.times();
          });
        }
        notes.note("handled once", usr1.times());
        CHECK(while_waiting <= 1);
      },
      annulet::test::beside::nobody);
}

TEST_CASE("a signal ends those parked calls that let it in, and no others") {
  annulet::hub home;
  const counted_signal usr1(SIGUSR1);
  const counted_signal usr2(SIGUSR2);
  const blocked_signals here{SIGUSR1, SIGUSR2};
  const sigset_t all_but_1 = set_of({SIGUSR2});
  const sigset_t all_but_2 = set_of({SIGUSR1});
  std::string order;
  bool looked_at = false;
  const auto parked = [&](const sigset_t& mask, std::string name) {
    return annulet::spawn([&, name] {
      const int result = annulet_ppoll(nullptr, 0, nullptr, &mask);
      order += name + (result == -1 && errno == EINTR ? " " : "? ");
    });
  };
  auto first = parked(all_but_1, "1");
  auto second = parked(all_but_2, "2");
  auto both = parked(none, "both");
  auto thread = annulet::spawn([&] { CHECK(annulet_poll(nullptr, 0, 100) == 0); });
  auto sender = annulet::spawn([&looked_at, self = ::pthread_self()] {
    annulet::this_fiber::sleep_for(5ms);
    ::pthread_kill(self, SIGUSR2);
    while (!looked_at) {
      annulet::this_fiber::sleep_for(1ms);
    }
    ::pthread_kill(self, SIGUSR1);
  });
  second.join();
  both.join();
  CHECK(order == "2 both ");
  CHECK(usr1.times() == 0);
  CHECK(usr2.times() == 1);
  looked_at = true;
  first.join();
  CHECK(order == "2 both 1 ");
  CHECK(usr1.times() == 1);
  sender.join();
  thread.join();
}

TEST_CASE("where fibers are always ready, a signal that a mask lets in comes all the same") {
  annulet::hub home;
  const counted_signal usr1(SIGUSR1);
  const blocked_signals here{SIGUSR1};
  bool over = false;
  auto busy = annulet::spawn([&] {
    while (!over) {
      annulet::this_fiber::yield();
    }
  });
  const later sends([self = ::pthread_self()] { ::pthread_kill(self, SIGUSR1); });
  CHECK(annulet_ppoll(nullptr, 0, nullptr, &none) == -1);
  CHECK(errno == EINTR);
  CHECK(usr1.times() == 1);
  over = true;
  busy.get();
}

TEST_CASE("one that runs while another fiber runs ends none") {
  annulet::hub home;
  const counted_signal usr1(SIGUSR1);
  auto parked = annulet::spawn([] { return annulet_poll(nullptr, 0, 30); });
  annulet::this_fiber::sleep_for(2ms);
  ::raise(SIGUSR1);
  CHECK(usr1.times() == 1);
  CHECK(parked.get() == 0);
}

TEST_CASE("a signal to the process reaches the main thread's poll, though other threads would take it") {
  const counted_signal usr1(SIGUSR1);
  std::atomic<bool> over{false};
  std::thread other([&] {
    while (!over) {
      std::this_thread::sleep_for(1ms);
    }
  });
  {
    annulet::hub home;
    const later sends([] { ::kill(::getpid(), SIGUSR1); });
    CHECK(annulet_poll(nullptr, 0, 5000) == -1);
    CHECK(errno == EINTR);
  }
  over = true;
  other.join();
}

namespace {

std::atomic<std::int64_t> handled_at{0};

void count_and_note_time(int signal) {
  handled_at = annulet::detail::clock_now();
  annulet::test::count_signal(signal);
}

}  // namespace

TEST_CASE("signals at random moments: none is missed, none is too early") {
  const auto rounds = static_cast<unsigned>(oracle::from_environment("ANNULET_SIGNALS", 2'000));
  annulet::hub home;
  const counted_signal usr1(SIGUSR1, 0, &count_and_note_time);
  const counted_signal usr2(SIGUSR2, 0, &count_and_note_time);
  const blocked_signals here{SIGUSR1, SIGUSR2};
  const sigset_t lets_2_in = set_of({SIGUSR1});
  const descriptor quiet = make_eventfd();
  const descriptor set(require_ok(::epoll_create1(EPOLL_CLOEXEC), "epoll_create1"));
  std::mt19937 random(std::random_device{}());
  bool over = false;
  // Events, so that the wait ends for them, too, and fibers run.
  auto ticker = annulet::spawn([&] {
    while (!over) {
      annulet::this_fiber::sleep_for(50us);
    }
  });
  std::atomic<unsigned> asked{0};
  std::thread sender([&, self = ::pthread_self(), engine = std::mt19937(random())]() mutable {
    for (unsigned done = 0; done < rounds;) {
      if (asked.load() > done) {
        for (auto spins = engine() % 20'000; spins != 0; --spins) {
          __asm__ volatile("");
        }
        ::pthread_kill(self, done % 3 == 2 ? SIGUSR2 : SIGUSR1);
        ++done;
      }
    }
  });
  unsigned wrong = 0;
  int other_result = 0;
  std::int64_t other_began = 0;
  for (unsigned round = 0; round < rounds && wrong == 0; ++round) {
    const int signal = round % 3 == 2 ? SIGUSR2 : SIGUSR1;
    // Beside it, with another mask or an equal one.
    auto beside = annulet::spawn([&, equal = round % 2 == 0] {
      const timespec limit{0, 200'000};
      other_began = annulet::detail::clock_now();
      other_result = annulet_ppoll(nullptr, 0, &limit, equal ? &none : &lets_2_in);
    });
    const int before = usr1.times() + usr2.times();
    asked = round + 1;
    epoll_event event{};
    pollfd one{quiet.get(), POLLIN, 0};
    fd_set in;
    FD_ZERO(&in);
    FD_SET(quiet.get(), &in);
    int result = 0;
    switch (round % 4) {
      case 0:
        result = annulet_ppoll(&one, 1, nullptr, &none);
        break;
      case 1:
        result = annulet_pselect(quiet.get() + 1, &in, nullptr, nullptr, nullptr, &none);
        break;
      case 2:
        result = annulet_epoll_pwait(set.get(), &event, 1, -1, &none);
        break;
      default:
        result = annulet_epoll_pwait2(set.get(), &event, 1, nullptr, &none);
    }
    const bool interrupted = result == -1 && errno == EINTR;
    const int handled_now = usr1.times() + usr2.times() - before;
    beside.get();
    const bool must_not = round % 2 == 1 && signal == SIGUSR1 && other_result != 0;
    const bool in_its_time = handled_at > other_began && handled_at < other_began + 200'000;
    const bool missed = round % 2 == 0 && in_its_time && other_result == 0;
    wrong += interrupted && handled_now == 1 && !must_not && !missed ? 0 : 1;
    CHECK(interrupted);
    CHECK(handled_now == 1);
    CHECK(!must_not);
    CHECK(!missed);
  }
  asked = rounds;
  sender.join();
  over = true;
  ticker.get();
  CHECK(usr1.times() + usr2.times() == static_cast<int>(rounds));
}
