// Reads of descriptors, each scene plainly and as a drop-in: result, errno, bytes, and the flags afterwards.

#include "support/counted_signal.hpp"
#include "support/plain_and_parked_io.hpp"
#include "support/two_ends.hpp"
#include "support/while_waiting.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <cstring>
#include <string>

#include <pthread.h>

using namespace std::chrono_literals;
using annulet::test::act;
using annulet::test::counted_signal;
using annulet::test::do_act;
using annulet::test::ends;
using annulet::test::io_calls_of;
using annulet::test::is_socket;
using annulet::test::kind;
using annulet::test::kinds;
using annulet::test::later;
using annulet::test::make_ends;
using annulet::test::once_asleep;
using annulet::test::require_ok;
using annulet::test::same_io_in_both;
using annulet::test::scene_notes;
using annulet::test::set_limit;
using annulet::test::set_nonblocking;
using annulet::test::wait_where_it_ends;

namespace {

struct reading_call {
  const char* name;
  bool of_sockets;
  long (*call)(const io_calls_of&, int fd, char* into);
};

constexpr std::size_t room = 16;
constexpr std::array reading_calls = {
    reading_call{"read", false,
                 [](const io_calls_of& c, int fd, char* into) -> long { return c.read(fd, into, room); }},
    reading_call{"readv", false,
                 [](const io_calls_of& c, int fd, char* into) -> long {
                   const iovec parts[2] = {{into, 2}, {into + 2, room - 2}};
                   return c.readv(fd, parts, 2);
                 }},
    reading_call{"recv", true,
                 [](const io_calls_of& c, int fd, char* into) -> long { return c.recv(fd, into, room, 0); }},
    reading_call{"recvfrom", true,
                 [](const io_calls_of& c, int fd, char* into) -> long {
                   sockaddr_storage from{};
                   socklen_t size = sizeof(from);
                   return c.recvfrom(fd, into, room, 0, reinterpret_cast<sockaddr*>(&from), &size);
                 }},
    reading_call{"recvmsg", true,
                 [](const io_calls_of& c, int fd, char* into) -> long {
                   iovec part{into, room};
                   msghdr message{};
                   message.msg_iov = &part;
                   message.msg_iovlen = 1;
                   return c.recvmsg(fd, &message, 0);
                 }},
};

void note_read(scene_notes& notes, const io_calls_of& c, const reading_call& one, int fd) {
  std::array<char, room> bytes{};
  notes.result(one.name, one.call(c, fd, bytes.data()));
  notes.note(std::string(bytes.data(), bytes.size()));
  notes.note("flags", ::fcntl(fd, F_GETFL));
}

}  // namespace

TEST_CASE("reads wait for a peer that answers, half closes, resets or is silent") {
  for (const kind what : kinds) {
    for (const act does : {act::answers, act::half_closes, act::resets, act::stays_silent}) {
      for (const bool nonblocking : {false, true}) {
        for (const bool limited : {false, true}) {
          const bool would_hang = does == act::stays_silent && !nonblocking && !limited;
          const bool no_end =
              what == kind::unix_datagram && (does == act::half_closes || does == act::resets);
          // Whether a reader of a terminal that is hung up gets EIO or the end is a matter of moments.
          const bool hangs_up = what == kind::pty && (does == act::half_closes || does == act::resets);
          if (hangs_up || would_hang || (limited && !is_socket(what)) ||
              (no_end && !nonblocking && !limited)) {
            continue;
          }
          CAPTURE(static_cast<int>(what));
          CAPTURE(static_cast<int>(does));
          CAPTURE(nonblocking);
          CAPTURE(limited);
          same_io_in_both([&](const io_calls_of& c, scene_notes& notes) {
            for (const reading_call& one : reading_calls) {
              if (one.of_sockets && !is_socket(what)) {
                continue;
              }
              ends both = make_ends(what);
              if (nonblocking) {
                set_nonblocking(both.mine.get());
              }
              if (nonblocking) {
                note_read(notes, c, one, both.mine.get());
                do_act(does, both, what);
              } else {
                const bool has_to_come = does != act::stays_silent && !no_end;
                if (limited) {
                  set_limit(both.mine.get(), SO_RCVTIMEO, has_to_come ? 5000ms : 30ms);
                }
                const once_asleep acts([&] { do_act(does, both, what); });
                note_read(notes, c, one, both.mine.get());
              }
              if (limited) {
                set_limit(both.mine.get(), SO_RCVTIMEO, 30ms);
              }
              note_read(notes, c, one,
                        both.mine.get() + (does == act::answers && !nonblocking && !limited ? 1000 : 0));
            }
          });
        }
      }
    }
  }
}

TEST_CASE("a signal ends a read, unless its handler has calls restarted, and always one with a time limit") {
  for (const kind what : kinds) {
    for (const int flags : {0, SA_RESTART}) {
      for (const bool limited : {false, true}) {
        if (limited && !is_socket(what)) {
          continue;
        }
        CAPTURE(static_cast<int>(what));
        CAPTURE(flags);
        CAPTURE(limited);
        same_io_in_both(
            [&](const io_calls_of& c, scene_notes& notes) {
              const counted_signal usr1(SIGUSR1, flags);
              for (const reading_call& one : reading_calls) {
                if (one.of_sockets && !is_socket(what)) {
                  continue;
                }
                ends both = make_ends(what);
                if (limited) {
                  set_limit(both.mine.get(), SO_RCVTIMEO, 5000ms);
                }
                std::atomic<bool> over{false};
                const once_asleep acts([&, self = ::pthread_self(), before = usr1.times()] {
                  ::pthread_kill(self, SIGUSR1);
                  while (usr1.times() == before) {
                    std::this_thread::sleep_for(1ms);
                  }
                  wait_where_it_ends(over, flags == SA_RESTART && !limited);
                  do_act(act::answers, both, what);
                });
                note_read(notes, c, one, both.mine.get());
                over = true;
              }
              notes.note("handled", usr1.times());
            },
            annulet::test::beside::nobody);
      }
    }
  }
}

TEST_CASE("MSG_WAITALL gives what has come when the time is over, and waits until then") {
  for (const kind what : {kind::unix_stream, kind::tcp}) {
    CAPTURE(static_cast<int>(what));
    same_io_in_both([&](const io_calls_of& c, scene_notes& notes) {
      using clock = std::chrono::steady_clock;
      const ends both = make_ends(what);
      const auto write_part = [&](const char* part) {
        require_ok(static_cast<int>(::write(both.peer.get(), part, std::strlen(part))), "write");
      };
      write_part("one ");
      set_limit(both.mine.get(), SO_RCVTIMEO, 300ms);
      std::array<char, 16> bytes{};
      iovec parts[2] = {{bytes.data(), 2}, {bytes.data() + 2, 14}};
      msghdr message{};
      message.msg_iov = parts;
      message.msg_iovlen = 2;
      clock::time_point written;
      clock::time_point begin;
      long got = 0;
      {
        const once_asleep writes([&] {
          write_part("two ");
          std::this_thread::sleep_for(5ms);
          write_part("three");
          written = clock::now();
        });
        begin = clock::now();
        got = c.recvmsg(both.mine.get(), &message, MSG_WAITALL);
        notes.note(clock::now() - begin < 290ms ? "early" : "not early");  // Linux counts in ticks
      }
      // On a busy machine the writer may have come too late: then the rest is there still.
      const bool in_time = written - begin < 300ms;
      const bool whole = got >= 4 && (got == 13 || !in_time);
      notes.note("got what had come", whole ? 1 : got);
      const long rest = c.recv(both.mine.get(), bytes.data() + got,
                               bytes.size() - static_cast<std::size_t>(got), MSG_DONTWAIT);
      notes.note("in all", got + std::max(rest, 0L));
      notes.note(std::string(bytes.data(), 13));
    });
  }
}

TEST_CASE("MSG_WAITALL, MSG_PEEK, MSG_DONTWAIT and MSG_OOB") {
  for (const kind what : {kind::unix_stream, kind::tcp}) {
    CAPTURE(static_cast<int>(what));
    same_io_in_both([&](const io_calls_of& c, scene_notes& notes) {
      ends both = make_ends(what);
      std::array<char, 16> bytes{};
      std::atomic<bool> has_peeked{false};
      const auto slowly = [&] {
        for (const char* part : {"one ", "two ", "three"}) {
          require_ok(static_cast<int>(::write(both.peer.get(), part, std::strlen(part))), "write");
          while (!has_peeked) {
            std::this_thread::sleep_for(1ms);
          }
          std::this_thread::sleep_for(5ms);
        }
      };
      {
        const once_asleep writes(slowly);
        notes.result("peek", c.recv(both.mine.get(), bytes.data(), 10, MSG_PEEK));
        has_peeked = true;
        notes.result("peek at all", c.recv(both.mine.get(), bytes.data(), 10, MSG_PEEK | MSG_WAITALL));
        notes.note(std::string(bytes.data(), 10));
        notes.result("all", c.recv(both.mine.get(), bytes.data(), 12, MSG_WAITALL));
        notes.note(std::string(bytes.data(), 12));
      }
      notes.result("no wait", c.recv(both.mine.get(), bytes.data(), 12, MSG_DONTWAIT));
      notes.result("no more", c.recv(both.mine.get(), bytes.data(), 12, MSG_DONTWAIT));
      notes.result("urgent", c.recv(both.mine.get(), bytes.data(), 1, MSG_OOB));
      set_limit(both.mine.get(), SO_RCVTIMEO, 300ms);
      notes.result("errors", c.recv(both.mine.get(), bytes.data(), 1, MSG_ERRQUEUE));
      const later ends_it([&] {
        require_ok(static_cast<int>(::write(both.peer.get(), "end", 3)), "write");
        require_ok(::shutdown(both.peer.get(), SHUT_WR), "shutdown");
      });
      notes.result("until the end", c.recv(both.mine.get(), bytes.data(), 16, MSG_WAITALL));
      notes.result("at the end", c.recv(both.mine.get(), bytes.data(), 16, MSG_WAITALL));
    });
  }
}
