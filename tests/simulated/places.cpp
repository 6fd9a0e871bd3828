#include "places.hpp"

#include <algorithm>
#include <array>
#include <cerrno>
#include <system_error>
#include <utility>

#include <fcntl.h>
#include <sys/socket.h>
#include <unistd.h>

namespace simulated {

namespace {

// Those of the world stay out of the numbers that are used again and again.
int far_away(int fd) {
  const int moved = ::fcntl(fd, F_DUPFD_CLOEXEC, 5'000);
  ::close(fd);
  return moved;
}

}  // namespace

place::place(oracle::dice& d) : kind_(static_cast<kind>(d.below(3))) {
  std::array<int, 2> ends{};
  const int made = kind_ == kind::duplex
                       ? ::socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, ends.data())
                       : ::pipe2(ends.data(), O_NONBLOCK | O_CLOEXEC);
  if (made != 0) {
    throw std::system_error(errno, std::generic_category(), "two ends");
  }
  const std::size_t near = kind_ == kind::writes ? 1 : 0;
  near_ = ends[near];
  far_ = far_away(ends[1 - near]);
  if (is_socket()) {
    const int size = 4096;  // soon full
    (void)::setsockopt(near_, SOL_SOCKET, SO_SNDBUF, &size, sizeof(size));
    (void)::setsockopt(far_, SOL_SOCKET, SO_SNDBUF, &size, sizeof(size));
  } else {
    (void)::fcntl(far_, F_SETPIPE_SZ, 4096);
  }
}

place::~place() {
  for (const int fd : {near_, far_}) {
    if (fd >= 0) {
      ::close(fd);
    }
  }
}

void place::require_next(const std::uint8_t* bytes, std::size_t count) {
  for (std::size_t i = 0; i < count; ++i, ++received_) {
    if (bytes[i] != received_) {
      throw broken{"descriptor " + std::to_string(near_) + ": byte " + std::to_string(received_) + " is " +
                   std::to_string(bytes[i])};
    }
  }
}

void place::require_end() const {
  if (!far_has_gone() || received_ != sent_) {
    throw broken{"descriptor " + std::to_string(near_) +
                 ": an end that is none, or bytes before it are lost"};
  }
}

void place::fill(std::uint8_t* bytes, std::size_t count) const noexcept {
  for (std::size_t i = 0; i < count; ++i) {
    bytes[i] = static_cast<std::uint8_t>(written_ + i);
  }
}

long place::drain(std::size_t most) {
  std::array<std::uint8_t, 512> bytes{};
  const ssize_t got = ::read(far_, bytes.data(), std::min(most, bytes.size()));
  for (ssize_t i = 0; i < got; ++i, ++seen_) {
    if (bytes[static_cast<std::size_t>(i)] != seen_) {
      throw broken{"the far end of descriptor " + std::to_string(near_) + ": byte " + std::to_string(seen_) +
                   " is " + std::to_string(bytes[static_cast<std::size_t>(i)])};
    }
  }
  return got < 0 ? -errno : got;
}

void place::require_far_sees_end() {
  if (far_ < 0) {
    return;
  }
  if (!can_write()) {  // the far end writes
    const std::uint8_t byte = sent_;
    if (!shut_ && (::write(far_, &byte, 1) != -1 || errno != EPIPE)) {
      throw broken{"a closed descriptor is still held: its writer has no EPIPE"};
    }
    return;
  }
  long got = 0;
  do {
    got = drain(512);
  } while (got > 0);
  if (got != 0 && got != -ECONNRESET) {
    throw broken{"a closed descriptor is still held: its peer has no end, but " + std::to_string(got)};
  }
  if (seen_ != written_ && got != -ECONNRESET) {
    throw broken{"of what was written before the close, bytes are lost"};
  }
}

void place::act(oracle::dice& d) {
  if (far_ < 0) {
    return;
  }
  const std::size_t what = d.below(32);
  if (what == 0) {
    ::close(std::exchange(far_, -1));
  } else if (what == 1 && is_socket()) {
    (void)::shutdown(far_, SHUT_WR);
    shut_ = true;
  } else if (what < 18 && can_read() && !shut_) {
    std::array<std::uint8_t, 64> bytes{};
    const std::size_t count = 1 + d.below(bytes.size());
    for (std::size_t i = 0; i < count; ++i) {
      bytes[i] = static_cast<std::uint8_t>(sent_ + i);
    }
    const ssize_t put = ::write(far_, bytes.data(), count);
    sent_ = static_cast<std::uint8_t>(sent_ + std::max<ssize_t>(put, 0));
  } else if (can_write()) {
    (void)drain(1 + d.below(512));
  }
}

}  // namespace simulated
