// The few system calls that annulet makes about descriptors, straight to the kernel: a program may interpose
// poll, close and the like with calls that come back here, and must not meet itself in a circle. Internal.
#pragma once

#include "io_result.hpp"

#include <cerrno>
#include <span>

#include <poll.h>
#include <sys/syscall.h>
#include <unistd.h>

namespace annulet::detail {

template <class... Args>
[[nodiscard]] io_result kernel(long number, Args... args) noexcept {
  const long result = ::syscall(number, args...);
  return io_result(static_cast<int>(result < 0 ? -errno : result));
}

// close(2), where EINTR is no error: Linux has closed it all the same.
[[nodiscard]] inline io_result close_file(int fd) noexcept {
  const io_result result = kernel(SYS_close, fd);
  return result.error() == EINTR ? io_result(0) : result;
}

// What poll(2) says at this moment. Interrupted by a signal, it asks again.
[[nodiscard]] inline io_result poll_now(std::span<pollfd> fds) noexcept {
  for (;;) {
    const io_result result = kernel(SYS_poll, fds.data(), fds.size(), 0);
    if (result.error() != EINTR) {
      return result;
    }
  }
}

}  // namespace annulet::detail
