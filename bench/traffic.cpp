#include "traffic.hpp"

#include <fcntl.h>
#include <sys/socket.h>
#include <unistd.h>
#include <algorithm>
#include <cerrno>
#include <cstring>
#include <numeric>
#include <random>

#include "harness.hpp"

namespace bench {

socket_pairs::socket_pairs(std::size_t count) {
  for (std::size_t i = 0; i < count; ++i) {
    int ends[2];
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, ends) != 0) {
      fail("socketpair %zu of %zu: %s", i + 1, count, std::strerror(errno));
    }
    // The writing end moves out of the low numbers.
    const int moved = fcntl(ends[1], F_DUPFD_CLOEXEC, static_cast<int>(count) + 50);
    if (moved < 0) {
      fail("moving a descriptor up: %s", std::strerror(errno));
    }
    ::close(ends[1]);
    readers_.push_back(ends[0]);
    writers_.push_back(moved);
  }
}

socket_pairs::~socket_pairs() {
  for (const int fd : readers_) {
    ::close(fd);
  }
  for (const int fd : writers_) {
    ::close(fd);
  }
}

bool socket_pairs::possible(std::size_t count) { return open_file_limit() >= 2 * count + 100; }

traffic::traffic(const socket_pairs& sockets, std::size_t active, std::size_t among)
    : sockets_(sockets),
      active_(active),
      order_(among == 0 ? sockets.size() : among),
      awaited_(sockets.size()) {
  std::iota(order_.begin(), order_.end(), 0U);
  std::shuffle(order_.begin(), order_.end(), std::minstd_rand(20));  // the same in every run
  if (active > order_.size()) {
    fail("%zu active sockets of %zu", active, order_.size());
  }
}

std::size_t traffic::socket_of(std::size_t place) const {
  const std::size_t at = first_ + place;
  return order_[at < order_.size() ? at : at - order_.size()];
}

void traffic::set_round(std::uint64_t round) {
  round_ = round;
  first_ = round * active_ % order_.size();
}

void traffic::begin_round() {
  set_round(round_ + 1);
  received_ = 0;
  for (std::size_t i = 0; i < active_; ++i) {
    awaited_[socket_of(i)] = stamp();
  }
}

void traffic::send_round() const {
  const unsigned char byte = stamp();
  for (std::size_t i = 0; i < active_; ++i) {
    const std::size_t socket = socket_of(i);
    if (::write(sockets_.writers()[socket], &byte, 1) != 1) {
      fail("write: %s", std::strerror(errno));
    }
  }
}

void traffic::on_ready(std::size_t socket) {
  if (socket >= awaited_.size() || awaited_[socket] == 0) {
    fail("socket %zu was reported ready and nothing had been sent to it", socket);
  }
  unsigned char byte = 0;
  const ssize_t got = ::read(sockets_.readers()[socket], &byte, 1);
  if (got != 1) {
    fail("socket %zu was reported ready and had no byte (read gave %zd)", socket, got);
  }
  if (byte != awaited_[socket]) {
    fail("socket %zu gave byte %d, not %d", socket, byte, awaited_[socket]);
  }
  awaited_[socket] = 0;
  ++received_;
}

}  // namespace bench
