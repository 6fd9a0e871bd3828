// Two descriptors of which one waits for what the other does, of several kinds.
#pragma once

#include "connected_pair.hpp"
#include "files.hpp"

#include <array>
#include <chrono>

#include <pty.h>
#include <sys/time.h>
#include <termios.h>

namespace annulet::test {

enum class kind { unix_stream, unix_datagram, tcp, pipe, pty };
inline constexpr std::array kinds = {kind::unix_stream, kind::unix_datagram, kind::tcp, kind::pipe,
                                     kind::pty};

struct ends {
  descriptor mine;
  descriptor peer;
};

// Both blocking. Of a pipe mine is the one to read, or the one to write.
inline ends make_ends(kind what, bool to_write = false) {
  switch (what) {
    case kind::unix_stream:
    case kind::unix_datagram: {
      int pair[2];
      const int type = what == kind::unix_stream ? SOCK_STREAM : SOCK_DGRAM;
      require_ok(::socketpair(AF_UNIX, type | SOCK_CLOEXEC, 0, pair), "socketpair");
      return {descriptor(pair[0]), descriptor(pair[1])};
    }
    case kind::tcp: {
      auto [client, server] = connected_pair();
      return {std::move(client), std::move(server)};
    }
    case kind::pipe: {
      auto [reader, writer] = make_pipe(O_CLOEXEC);
      return to_write ? ends{std::move(writer), std::move(reader)}
                      : ends{std::move(reader), std::move(writer)};
    }
    case kind::pty: {
      int master = -1;
      int slave = -1;
      termios raw{};
      ::cfmakeraw(&raw);
      require_ok(::openpty(&master, &slave, nullptr, &raw, nullptr), "openpty");
      return {descriptor(slave), descriptor(master)};
    }
  }
  return {};
}

inline bool is_socket(kind what) { return what != kind::pipe && what != kind::pty; }

inline void set_nonblocking(int fd) {
  require_ok(::fcntl(fd, F_SETFL, ::fcntl(fd, F_GETFL) | O_NONBLOCK), "F_SETFL");
}

inline void set_limit(int fd, int option, std::chrono::milliseconds limit) {
  const timeval time{limit.count() / 1000, limit.count() % 1000 * 1000};
  require_ok(::setsockopt(fd, SOL_SOCKET, option, &time, sizeof(time)), "setsockopt");
}

enum class act { answers, half_closes, resets, stays_silent };

inline void do_act(act what, ends& both, kind how) {
  switch (what) {
    case act::answers:
      require_ok(static_cast<int>(::write(both.peer.get(), "hello", 5)), "write");
      break;
    case act::half_closes:
      if (is_socket(how)) {
        require_ok(::shutdown(both.peer.get(), SHUT_WR), "shutdown");
      } else {
        both.peer.close();
      }
      break;
    case act::resets: {
      const linger now{1, 0};
      (void)::setsockopt(both.peer.get(), SOL_SOCKET, SO_LINGER, &now, sizeof(now));
      both.peer.close();
      break;
    }
    case act::stays_silent:
      break;
  }
}

}  // namespace annulet::test
