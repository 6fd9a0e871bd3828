// A client of a TCP server on this machine. Its calls block, but none for longer than `patience`.
#pragma once

#include "program.hpp"

#include <algorithm>
#include <random>
#include <string_view>

#include <sys/socket.h>
#include <sys/time.h>

namespace annulet::test {

inline descriptor connect_to(std::uint16_t port, int receive_buffer = 0) {
  descriptor socket(require_ok(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), "socket"));
  const timeval limit{patience.count(), 0};
  require_ok(::setsockopt(socket.get(), SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit), "SO_RCVTIMEO");
  require_ok(::setsockopt(socket.get(), SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit), "SO_SNDTIMEO");
  if (receive_buffer != 0) {
    require_ok(::setsockopt(socket.get(), SOL_SOCKET, SO_RCVBUF, &receive_buffer, sizeof receive_buffer),
               "SO_RCVBUF");
  }
  sockaddr_in address{};  // where the examples listen
  address.sin_family = AF_INET;
  address.sin_port = htons(port);
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  require_ok(::connect(socket.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address), "connect");
  return socket;
}

inline void send_all(const descriptor& socket, std::string_view bytes) {
  while (!bytes.empty()) {
    const auto sent = ::send(socket.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL);
    require_ok(static_cast<int>(sent), "send");
    bytes.remove_prefix(static_cast<std::size_t>(sent));
  }
}

// As many bytes, or those before the end of file. Throws where they do not come, or the peer resets.
inline std::string receive(const descriptor& socket, std::size_t count) {
  std::string bytes(count, '\0');
  std::size_t have = 0;
  while (have < count) {
    const auto got = ::recv(socket.get(), bytes.data() + have, count - have, 0);
    require_ok(static_cast<int>(got), "recv");
    if (got == 0) {
      break;
    }
    have += static_cast<std::size_t>(got);
  }
  bytes.resize(have);
  return bytes;
}

inline std::string echo(const descriptor& socket, std::string_view bytes) {
  send_all(socket, bytes);
  return receive(socket, bytes.size());
}

// The peer is told by a reset, not by an end of file.
inline void reset(descriptor& socket) {
  const linger at_once{1, 0};
  require_ok(::setsockopt(socket.get(), SOL_SOCKET, SO_LINGER, &at_once, sizeof at_once), "SO_LINGER");
  socket.close();
}

inline std::string random_bytes(std::size_t count) {
  std::mt19937_64 random(count);
  std::string bytes(count, '\0');
  std::ranges::generate(bytes, [&] { return static_cast<char>(random()); });
  return bytes;
}

}  // namespace annulet::test
