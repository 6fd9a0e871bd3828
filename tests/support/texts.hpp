// What tests write to descriptors and read from them, and what poll(2) says of one.
#pragma once

#include "files.hpp"

#include <chrono>
#include <stdexcept>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include <poll.h>

namespace annulet::test {

inline void write_text(int fd, std::string_view text) {
  const auto took = require_ok(static_cast<int>(::write(fd, text.data(), text.size())), "write");
  if (static_cast<std::size_t>(took) != text.size()) {
    throw std::runtime_error("a short write");
  }
}

// What one read gives; empty at the end of file and where nothing is there.
inline std::string read_text(int fd, std::size_t most = 65536) {
  std::string text(most, '\0');
  const auto got = ::read(fd, text.data(), text.size());
  if (got < 0 && errno != EAGAIN) {
    require_ok(-1, "read");
  }
  text.resize(got < 0 ? 0 : static_cast<std::size_t>(got));
  return text;
}

// Whether a receive would say end of file at this moment. Takes nothing in.
inline bool at_end_of_file(int socket) noexcept {
  char byte;
  return ::recv(socket, &byte, 1, MSG_PEEK | MSG_DONTWAIT) == 0;
}

// Writes until the descriptor takes no more. Returns how many bytes it took.
inline std::size_t fill(int fd) {
  const std::vector<char> block(65536, 'x');
  std::size_t written = 0;
  for (std::size_t size = block.size(); size > 0;) {
    const auto took = ::write(fd, block.data(), size);
    if (took > 0) {
      written += static_cast<std::size_t>(took);
    } else if (errno == EAGAIN) {
      size /= 2;  // a pipe takes nothing of what does not fit whole
    } else {
      require_ok(-1, "write");
    }
  }
  return written;
}

// revents of one poll(2) with timeout 0.
inline short revents_of(int fd, int events) {
  pollfd asked{fd, static_cast<short>(events), 0};
  require_ok(::poll(&asked, 1, 0), "poll");
  return asked.revents;
}

// Fills a TCP connection for good: of what it takes at once some moves on to the peer for a while, and leaves
// room again.
inline void fill_for_good(int fd, int peer) {
  const int size = 16384;
  require_ok(::setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &size, sizeof(size)), "SO_SNDBUF");
  require_ok(::setsockopt(peer, SOL_SOCKET, SO_RCVBUF, &size, sizeof(size)), "SO_RCVBUF");
  for (int quiet = 0; quiet < 20; ++quiet) {
    if ((revents_of(fd, POLLOUT) & POLLOUT) != 0) {
      fill(fd);
      quiet = 0;
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
}

inline std::uint16_t port_of(int socket) {
  sockaddr_in address{};
  socklen_t size = sizeof(address);
  require_ok(::getsockname(socket, reinterpret_cast<sockaddr*>(&address), &size), "getsockname");
  return ntohs(address.sin_port);
}

inline void connect_socket(int socket, std::uint16_t port) {
  const sockaddr_in address = loopback(port);
  require_ok(::connect(socket, reinterpret_cast<const sockaddr*>(&address), sizeof(address)), "connect");
}

inline descriptor make_udp_socket() {
  descriptor socket(require_ok(::socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0), "socket"));
  const sockaddr_in address = loopback(0);
  require_ok(::bind(socket.get(), reinterpret_cast<const sockaddr*>(&address), sizeof(address)), "bind");
  return socket;
}

// Each sends to the other.
inline socket_pair make_udp_pair() {
  socket_pair pair{make_udp_socket(), make_udp_socket()};
  connect_socket(pair.first.get(), port_of(pair.second.get()));
  connect_socket(pair.second.get(), port_of(pair.first.get()));
  return pair;
}

}  // namespace annulet::test
