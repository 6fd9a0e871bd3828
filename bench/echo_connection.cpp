// Receiving and sending without waiting, for the servers of `echo` that do so themselves.
#include <sys/socket.h>
#include <cerrno>
#include <cstring>
#include <utility>

#include "echo.hpp"

namespace bench {

echo_connection::echo_connection(echo_connection&& other) noexcept
    : fd_(std::exchange(other.fd_, -1)), unsent_(std::move(other.unsent_)) {}

echo_connection::~echo_connection() {
  if (fd_ >= 0) {
    ::close(fd_);
  }
}

std::size_t echo_connection::receive(std::span<char> into) const {
  const ssize_t count = ::recv(fd_, into.data(), into.size(), MSG_DONTWAIT);
  if (count == 0 || (count < 0 && errno != EAGAIN)) {
    fail("echo: a server's recv: %s", count == 0 ? "end of file" : std::strerror(errno));
  }
  return count < 0 ? 0 : static_cast<std::size_t>(count);
}

std::size_t echo_connection::send_some(std::span<const char> bytes) const {
  const ssize_t count = ::send(fd_, bytes.data(), bytes.size(), MSG_DONTWAIT | MSG_NOSIGNAL);
  if (count < 0 && errno != EAGAIN) {
    fail("echo: a server's send: %s", std::strerror(errno));
  }
  return count < 0 ? 0 : static_cast<std::size_t>(count);
}

void echo_connection::send(std::span<const char> bytes, echo_course& course) {
  const std::size_t sent = send_some(bytes);
  if (sent < bytes.size()) {
    unsent_.assign(bytes.begin() + static_cast<std::ptrdiff_t>(sent), bytes.end());
  }
  course.echoed(sent);
}

void echo_connection::send_rest(echo_course& course) {
  const std::size_t sent = send_some(unsent_);
  unsent_.erase(unsent_.begin(), unsent_.begin() + static_cast<std::ptrdiff_t>(sent));
  course.echoed(sent);
}

std::vector<echo_connection> own_connections(std::span<const int> connections) {
  std::vector<echo_connection> owned;
  owned.reserve(connections.size());
  for (const int fd : connections) {
    owned.emplace_back(fd);
  }
  return owned;
}

}  // namespace bench
