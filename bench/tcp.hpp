// TCP over the loopback device, for the benches that need connections.
#pragma once

#include <cstdint>

namespace bench {

// On a port of its own choice, with room for 4,096 that wait.
class tcp_listener {
 public:
  tcp_listener();
  ~tcp_listener();
  tcp_listener(const tcp_listener&) = delete;
  tcp_listener& operator=(const tcp_listener&) = delete;

  int fd() const { return fd_; }
  std::uint16_t port() const { return port_; }

 private:
  int fd_;
  std::uint16_t port_ = 0;
};

// A blocking socket with TCP_NODELAY that resets its connection when it is closed, so that no port stays
// taken for a minute after a run.
int connect_to(std::uint16_t port);
void set_no_delay(int fd);

}  // namespace bench
