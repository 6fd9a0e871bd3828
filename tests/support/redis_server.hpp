// A Redis server of a test's own, on an address and in a folder of its own. It ends with the test.
#pragma once

#include "folder.hpp"
#include "program.hpp"

#include <cstdint>
#include <optional>
#include <stdexcept>
#include <string>

#include <arpa/inet.h>

namespace annulet::test {

class redis_server {
 public:
  redis_server() : address_(loopback(make_tcp_listener().port)) {
    run_.emplace("/usr/bin/redis-server",
                 std::vector<std::string>{"--bind", host(), "--port", std::to_string(port()), "--dir",
                                          its_.path(), "--save", "", "--appendonly", "no"});
    if (!becomes_true([&] { return answers(); })) {
      run_->signal(SIGKILL);
      throw std::runtime_error("redis-server does not answer: " + run_->wait().out);
    }
  }

  [[nodiscard]] std::string host() const {
    char text[INET_ADDRSTRLEN];
    return ::inet_ntop(AF_INET, &address_.sin_addr, text, sizeof text);
  }
  [[nodiscard]] std::uint16_t port() const { return ntohs(address_.sin_port); }

 private:
  [[nodiscard]] bool answers() const {
    const descriptor socket(require_ok(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), "socket"));
    return ::connect(socket.get(), reinterpret_cast<const sockaddr*>(&address_), sizeof address_) == 0;
  }

  folder its_;
  sockaddr_in address_;
  std::optional<program> run_;
};

}  // namespace annulet::test
