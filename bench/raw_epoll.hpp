// A bare epoll descriptor for the benches that hold the selector's calls against epoll_ctl and epoll_wait.
#pragma once

#include <sys/epoll.h>
#include <unistd.h>
#include <array>
#include <cerrno>
#include <cstdint>
#include <cstring>
#include <span>

#include "harness.hpp"

namespace bench {

class raw_epoll {
 public:
  raw_epoll() : fd_(epoll_create1(EPOLL_CLOEXEC)) {
    if (fd_ < 0) {
      fail("epoll_create1: %s", std::strerror(errno));
    }
  }
  ~raw_epoll() { ::close(fd_); }
  raw_epoll(const raw_epoll&) = delete;
  raw_epoll& operator=(const raw_epoll&) = delete;

  void add(int fd, std::uint32_t events, std::uint64_t data) { control(EPOLL_CTL_ADD, fd, events, data); }
  void modify(int fd, std::uint32_t events, std::uint64_t data) { control(EPOLL_CTL_MOD, fd, events, data); }
  void remove(int fd) { control(EPOLL_CTL_DEL, fd, 0, 0); }

  std::span<const epoll_event> wait(int timeout_ms) {
    int count = 0;
    do {
      count = epoll_wait(fd_, events_.data(), static_cast<int>(events_.size()), timeout_ms);
    } while (count < 0 && errno == EINTR);  // the end of a ring that was closed before interrupts too
    if (count < 0) {
      fail("epoll_wait: %s", std::strerror(errno));
    }
    return {events_.data(), static_cast<std::size_t>(count)};
  }

 private:
  void control(int what, int fd, std::uint32_t events, std::uint64_t data) {
    epoll_event event{};
    event.events = events;
    event.data.u64 = data;
    if (epoll_ctl(fd_, what, fd, &event) != 0) {
      fail("epoll_ctl: %s", std::strerror(errno));
    }
  }

  int fd_;
  std::array<epoll_event, 512> events_;
};

}  // namespace bench
