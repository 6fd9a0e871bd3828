// Signals that come while a write or a connect waits, each scene plainly and as a drop-in.

#include "support/counted_signal.hpp"
#include "support/full_ends.hpp"
#include "support/texts.hpp"
#include "support/two_ends.hpp"
#include "support/while_waiting.hpp"

#include <doctest/doctest.h>

#include <atomic>
#include <chrono>
#include <csignal>
#include <string>
#include <thread>
#include <vector>

#include <pthread.h>
#include <sys/un.h>

using namespace std::chrono_literals;
using annulet::test::counted_signal;
using annulet::test::descriptor;
using annulet::test::ends;
using annulet::test::fill_blocking;
using annulet::test::io_calls_of;
using annulet::test::kind;
using annulet::test::kinds;
using annulet::test::make_ends;
using annulet::test::note_wait;
using annulet::test::once_asleep;
using annulet::test::require_ok;
using annulet::test::same_io_in_both;
using annulet::test::scene_notes;
using annulet::test::set_limit;
using annulet::test::set_nonblocking;
using annulet::test::wait_where_it_ends;

TEST_CASE(
    "a signal ends a write that has written something, and one that has not where calls are not restarted") {
  for (const kind what : kinds) {
    for (const int flags : {0, SA_RESTART}) {
      for (const bool part : {false, true}) {
        // A terminal's writes are carried out by a thread, which is not told of a signal that restarts calls.
        if (part && (what == kind::unix_datagram || (what == kind::pty && flags == SA_RESTART))) {
          continue;
        }
        CAPTURE(static_cast<int>(what));
        CAPTURE(flags);
        CAPTURE(part);
        same_io_in_both(
            [&](const io_calls_of& c, scene_notes& notes) {
              const counted_signal usr1(SIGUSR1, flags);
              ends both = make_ends(what, true);
              if (!part) {
                fill_blocking(both, what);
              }
              set_nonblocking(both.peer.get());
              const std::string text(part ? 8'000'000 : 1, 'x');
              std::atomic<bool> over{false};
              {
                const once_asleep acts([&, self = ::pthread_self()] {
                  ::pthread_kill(self, SIGUSR1);
                  while (usr1.times() == 0) {
                    std::this_thread::sleep_for(1ms);
                  }
                  wait_where_it_ends(over, !part && flags == SA_RESTART);
                  while (!over) {
                    annulet::test::drain(both.peer.get());
                    std::this_thread::sleep_for(1ms);
                  }
                });
                const long wrote = c.write(both.mine.get(), text.data(), text.size());
                over = true;
                notes.result("wrote", wrote > 1 ? 2 : wrote);
                notes.note("all", wrote == static_cast<long>(text.size()));
              }
              notes.note("handled", usr1.times());
            },
            annulet::test::beside::nobody);
      }
    }
  }
}

TEST_CASE("a signal ends a connect to a Unix socket that takes nobody now") {
  for (const int flags : {0, SA_RESTART}) {
    for (const bool limited : {false, true}) {
      CAPTURE(flags);
      CAPTURE(limited);
      same_io_in_both(
          [&](const io_calls_of& c, scene_notes& notes) {
            const counted_signal usr1(SIGUSR1, flags);
            const auto fresh = [](int more) {
              return descriptor(
                  require_ok(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | more, 0), "socket"));
            };
            const descriptor listener = fresh(0);
            sockaddr_un address{};
            address.sun_family = AF_UNIX;
            auto* const peer = reinterpret_cast<sockaddr*>(&address);
            require_ok(::bind(listener.get(), peer, sizeof(sa_family_t)), "bind");
            require_ok(::listen(listener.get(), 0), "listen");
            socklen_t size = sizeof(address);
            require_ok(::getsockname(listener.get(), peer, &size), "getsockname");
            std::vector<descriptor> waiting;
            do {
              waiting.push_back(fresh(SOCK_NONBLOCK));
            } while (::connect(waiting.back().get(), peer, size) == 0);
            const descriptor mine = fresh(0);
            if (limited) {
              set_limit(mine.get(), SO_SNDTIMEO, 900ms);
            }
            std::atomic<bool> over{false};
            {
              const once_asleep acts([&, self = ::pthread_self()] {
                ::pthread_kill(self, SIGUSR1);
                std::this_thread::sleep_for(20ms);
                wait_where_it_ends(over, flags == SA_RESTART && !limited);
                ::close(require_ok(::accept(listener.get(), nullptr, nullptr), "accept"));
              });
              notes.result("connect", c.connect(mine.get(), peer, size));
              over = true;
              notes.note("handled", usr1.times());
            }
            const descriptor late = fresh(0);
            set_limit(late.get(), SO_SNDTIMEO, 20ms);
            while (::connect(waiting.emplace_back(fresh(SOCK_NONBLOCK)).get(), peer, size) == 0) {
            }
            note_wait(notes, 10ms, [&] { notes.result("connect", c.connect(late.get(), peer, size)); });
          },
          annulet::test::beside::nobody);
    }
  }
}

TEST_CASE("what the masks of all fibers block comes when the call is over") {
  same_io_in_both(
      [](const io_calls_of& c, scene_notes& notes) {
        const counted_signal usr1(SIGUSR1);
        const timespec limit{0, 100'000'000};
        sigset_t mask;
        sigemptyset(&mask);
        sigaddset(&mask, SIGUSR1);
        int during = 0;
        {
          const auto begin = std::chrono::steady_clock::now();
          const once_asleep acts([&, self = ::pthread_self()] {
            ::pthread_kill(self, SIGUSR1);
            std::this_thread::sleep_for(10ms);
            const int handled = usr1.times();
            const bool goes_on = std::chrono::steady_clock::now() - begin < 100ms;
            during = goes_on ? handled : 0;
          });
          const bool parks = c.read != annulet::test::plain_io.read;
          notes.result("ppoll", (parks ? annulet_ppoll : ::ppoll)(nullptr, 0, &limit, &mask));
        }
        notes.note("during", during);
        notes.note("after", usr1.times());
      },
      annulet::test::beside::nobody);
}
