#include "tcp.hpp"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <unistd.h>
#include <cerrno>
#include <cstring>

#include "harness.hpp"

namespace bench {
namespace {

sockaddr_in loopback(std::uint16_t port, in_addr_t host = INADDR_LOOPBACK) {
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(port);
  address.sin_addr.s_addr = htonl(host);
  return address;
}

int require(int result, const char* call) {
  if (result < 0) {
    fail("%s: %s", call, std::strerror(errno));
  }
  return result;
}

}  // namespace

tcp_listener::tcp_listener() : fd_(require(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), "socket")) {
  sockaddr_in address = loopback(0);
  socklen_t size = sizeof address;
  require(::bind(fd_, reinterpret_cast<const sockaddr*>(&address), size), "bind");
  require(::listen(fd_, 4096), "listen");
  require(::getsockname(fd_, reinterpret_cast<sockaddr*>(&address), &size), "getsockname");
  port_ = ntohs(address.sin_port);
}

tcp_listener::~tcp_listener() { ::close(fd_); }

int connect_to(std::uint16_t port) {
  const int fd = require(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), "socket");
  // From an address of its own, where ports are free that other programs on this machine have bound.
  constexpr in_addr_t own_host = INADDR_LOOPBACK + 0x100;
  const sockaddr_in source = loopback(0, own_host);
  require(::bind(fd, reinterpret_cast<const sockaddr*>(&source), sizeof source), "bind");
  const sockaddr_in address = loopback(port);
  require(::connect(fd, reinterpret_cast<const sockaddr*>(&address), sizeof address), "connect");
  const linger reset{.l_onoff = 1, .l_linger = 0};
  require(::setsockopt(fd, SOL_SOCKET, SO_LINGER, &reset, sizeof reset), "SO_LINGER");
  set_no_delay(fd);
  return fd;
}

void set_no_delay(int fd) {
  const int on = 1;
  require(::setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on), "TCP_NODELAY");
}

}  // namespace bench
