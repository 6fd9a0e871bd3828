// Two TCP sockets that are connected, both blocking.
#pragma once

#include "files.hpp"

#include <poll.h>

namespace annulet::test {

struct tcp_pair {
  descriptor client;
  descriptor server;
};

inline tcp_pair connected_pair() {
  const auto listener = make_tcp_listener();
  descriptor client(require_ok(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), "socket"));
  const sockaddr_in address = loopback(listener.port);
  require_ok(::connect(client.get(), reinterpret_cast<const sockaddr*>(&address), sizeof(address)),
             "connect");
  pollfd ready{listener.socket.get(), POLLIN, 0};
  require_ok(::poll(&ready, 1, 5000), "poll");
  descriptor server(require_ok(::accept4(listener.socket.get(), nullptr, nullptr, SOCK_CLOEXEC), "accept4"));
  return {std::move(client), std::move(server)};
}

}  // namespace annulet::test
