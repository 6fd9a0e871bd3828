// Writes to descriptors, each scene plainly and as a drop-in: result, errno, bytes, and the flags afterwards.

#include "support/counted_signal.hpp"
#include "support/plain_and_parked_io.hpp"
#include "support/two_ends.hpp"
#include "support/while_waiting.hpp"

#include <doctest/doctest.h>

#include <array>
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

namespace {

struct writing_call {
  const char* name;
  bool of_sockets;
  long (*call)(const io_calls_of&, int fd, const char* from, std::size_t size);
};

constexpr std::array writing_calls = {
    writing_call{"write", false,
                 [](const io_calls_of& c, int fd, const char* from, std::size_t size) -> long {
                   return c.write(fd, from, size);
                 }},
    writing_call{"writev", false,
                 [](const io_calls_of& c, int fd, const char* from, std::size_t size) -> long {
                   const iovec parts[3] = {{const_cast<char*>(from), size / 3},
                                           {nullptr, 0},
                                           {const_cast<char*>(from) + size / 3, size - size / 3}};
                   return c.writev(fd, parts, 3);
                 }},
    writing_call{"send", true,
                 [](const io_calls_of& c, int fd, const char* from, std::size_t size) -> long {
                   return c.send(fd, from, size, 0);
                 }},
    writing_call{"sendto", true,
                 [](const io_calls_of& c, int fd, const char* from, std::size_t size) -> long {
                   return c.sendto(fd, from, size, 0, nullptr, 0);
                 }},
    writing_call{"sendmsg", true,
                 [](const io_calls_of& c, int fd, const char* from, std::size_t size) -> long {
                   iovec part{const_cast<char*>(from), size};
                   msghdr message{};
                   message.msg_iov = &part;
                   message.msg_iovlen = 1;
                   return c.sendmsg(fd, &message, 0);
                 }},
};

std::string numbered(std::size_t size) {
  std::string text;
  while (text.size() < size) {
    text += std::to_string(text.size()) + ' ';
  }
  text.resize(size);
  return text;
}

// All that comes, until the end or so much.
std::string read_all(int fd, std::size_t most) {
  std::string all;
  std::array<char, 8192> part{};
  while (all.size() < most) {
    const ssize_t got = ::read(fd, part.data(), part.size());
    if (got <= 0) {
      break;
    }
    all.append(part.data(), static_cast<std::size_t>(got));
  }
  return all;
}

}  // namespace

TEST_CASE("a write to a stream that blocks ends when all is written, however slowly the peer reads") {
  for (const kind what : {kind::unix_stream, kind::tcp, kind::pipe, kind::pty}) {
    CAPTURE(static_cast<int>(what));
    same_io_in_both([&](const io_calls_of& c, scene_notes& notes) {
      const std::string text = numbered(what == kind::pty ? 20'000 : 3'000'000);
      for (const writing_call& one : writing_calls) {
        if (one.of_sockets && !is_socket(what)) {
          continue;
        }
        ends both = make_ends(what, true);
        std::string got;
        {
          const later reads([&] { got = read_all(both.peer.get(), text.size()); });
          notes.result(one.name, one.call(c, both.mine.get(), text.data(), text.size()));
        }
        notes.note("the same", got == text);
        notes.note("flags", ::fcntl(both.mine.get(), F_GETFL));
      }
    });
  }
}

TEST_CASE("a write that cannot go on ends with what was written, or with the reason where nothing was") {
  for (const kind what : {kind::unix_stream, kind::tcp, kind::pipe}) {
    for (const act does : {act::resets, act::stays_silent}) {
      CAPTURE(static_cast<int>(what));
      CAPTURE(static_cast<int>(does));
      same_io_in_both(
          [&](const io_calls_of& c, scene_notes& notes) {
            const counted_signal pipe_signal(SIGPIPE);
            const counted_signal usr1(SIGUSR1, SA_RESTART);
            const std::string text = numbered(8'000'000);
            for (const writing_call& one : writing_calls) {
              if (one.of_sockets && !is_socket(what)) {
                continue;
              }
              ends both = make_ends(what, true);
              if (is_socket(what) && does == act::stays_silent) {
                set_limit(both.mine.get(), SO_SNDTIMEO, 30ms);
              }
              {
                const once_asleep acts([&, self = ::pthread_self()] {
                  if (does == act::stays_silent && !is_socket(what)) {
                    ::pthread_kill(self, SIGUSR1);
                  }
                  do_act(does, both, what);
                });
                const long wrote = one.call(c, both.mine.get(), text.data(), text.size());
                notes.note("a part", wrote > 0 && wrote < static_cast<long>(text.size()));
              }
              notes.note("SIGPIPE", pipe_signal.times());
              if (does == act::resets) {
                notes.result("again", one.call(c, both.mine.get(), text.data(), text.size()));
                notes.result("and again", one.call(c, both.mine.get(), text.data(), text.size()));
                notes.note("SIGPIPE", pipe_signal.times());
              }
            }
          },
          annulet::test::beside::nobody);
    }
  }
}

TEST_CASE("O_NONBLOCK, as the program has set it, gives EAGAIN and parts") {
  for (const kind what : {kind::unix_stream, kind::unix_datagram, kind::tcp, kind::pipe}) {
    CAPTURE(static_cast<int>(what));
    same_io_in_both([&](const io_calls_of& c, scene_notes& notes) {
      const std::string text = numbered(what == kind::unix_datagram ? 1000 : 20'000'000);
      for (const writing_call& one : writing_calls) {
        if (one.of_sockets && !is_socket(what)) {
          continue;
        }
        ends both = make_ends(what, true);
        set_nonblocking(both.mine.get());
        long wrote = 1;
        int calls = 0;
        while (wrote > 0 && calls < 10'000) {
          wrote = one.call(c, both.mine.get(), text.data(), text.size());
          ++calls;
        }
        notes.result(one.name, wrote);
        notes.note("flags", ::fcntl(both.mine.get(), F_GETFL));
      }
    });
  }
}
