// The eventfd by which a thread that sleeps in its hub is woken, and the write to it. Internal.
#pragma once

#include "syscalls.hpp"

#include <annulet/runtime/check.hpp>

#include <cerrno>
#include <cstdint>

#include <fcntl.h>
#include <sys/eventfd.h>

namespace annulet::detail {

// The numbers are out of the way: a program that has closed what it did not open gets them for files of its
// own only after hundreds of others, and until then a write to them is an error, and not eight bytes in a
// file.
inline io_result duplicate_out_of_the_way(int fd) noexcept {
  constexpr int seldom_reached = 768;  // the usual limit is 1024
  return kernel(SYS_fcntl, fd, F_DUPFD_CLOEXEC, seldom_reached);
}

inline io_result make_wake_fd() noexcept {
  const io_result made = kernel(SYS_eventfd2, 0, EFD_CLOEXEC | EFD_NONBLOCK);
  if (!made.ok()) {
    return made;
  }
  const int fd = static_cast<int>(made.value());
  const io_result moved = duplicate_out_of_the_way(fd);
  if (moved.ok()) {
    (void)kernel(SYS_close, fd);
  }
  return moved.ok() ? moved : made;
}

inline io_result duplicate_wake_fd(int fd) noexcept {
  const io_result moved = duplicate_out_of_the_way(fd);
  return moved.ok() ? moved : kernel(SYS_fcntl, fd, F_DUPFD_CLOEXEC, 0);
}

// Any thread. It also fails where the count is full: then the hub is woken anyway. Without its descriptor the
// hub would sleep for ever, so that ends the process.
inline void wake_up(int eventfd) noexcept {
  const std::uint64_t one = 1;
  check(kernel(SYS_write, eventfd, &one, sizeof(one)).error() != EBADF,
        "the hub's eventfd was closed, and not by the hub, so that nobody can wake it");
}

}  // namespace annulet::detail
