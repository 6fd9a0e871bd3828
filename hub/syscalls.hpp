// The few system calls that annulet makes about descriptors, straight to the kernel: a program may interpose
// poll, close and the like with calls that come back here, and must not meet itself in a circle. Internal.
#pragma once

#include "io_result.hpp"

#include <annulet/runtime/sanitizer.hpp>
#include <annulet_plants.hpp>

#include <cerrno>
#include <span>
#include <type_traits>

#include <poll.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

namespace annulet::detail {

template <class Arg>
[[nodiscard]] long as_register(Arg argument) noexcept {
  if constexpr (std::is_pointer_v<Arg>) {
    return reinterpret_cast<long>(argument);
  } else if constexpr (std::is_null_pointer_v<Arg>) {
    return 0;
  } else {
    return static_cast<long>(argument);
  }
}

// The thread sanitizer keeps a record of each number, and would hold the uses of its next file against those
// of one that was closed unseen.
template <class... Rest>
void sanitize_call(long number, long first = 0, long second = 0, Rest...) noexcept {
  if (number == SYS_close || number == SYS_dup3) {
    __sanitizer_syscall_pre_impl_close(number == SYS_close ? first : second);
  }
}

#if defined(__x86_64__) && !defined(__ILP32__)

// In place, so that no return stands behind the system call: the kernel's own returns leave the CPU no
// memory of ours, and each of those that follow costs as much as a switch of fibers.
[[nodiscard, gnu::always_inline]] inline long enter_kernel(long number, long a = 0, long b = 0, long c = 0,
                                                           long d = 0, long e = 0, long f = 0) noexcept {
  // Not const: where a compiler puts what it knows of such a one in its place, it chooses the register.
  register long r10 __asm__("r10") = d;
  register long r8 __asm__("r8") = e;
  register long r9 __asm__("r9") = f;
  __asm__ volatile("syscall"
                   : "+a"(number)
                   : "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9)
                   : "rcx", "r11", "memory");
  return number;
}

#else

[[nodiscard]] inline long enter_kernel(long number, long a = 0, long b = 0, long c = 0, long d = 0,
                                       long e = 0, long f = 0) noexcept {
  const long result = ::syscall(number, a, b, c, d, e, f);
  return result < 0 ? -errno : result;
}

#endif

template <class... Args>
[[nodiscard, gnu::always_inline]] inline io_result kernel(long number, Args... args) noexcept {
  if constexpr (built_in == sanitizer::thread) {
    sanitize_call(number, as_register(args)...);
  }
  if (stand_in != nullptr) {
    const long registers[6] = {as_register(args)...};
    return io_result(static_cast<int>(stand_in(number, registers)));
  }
  return io_result(static_cast<int>(enter_kernel(number, as_register(args)...)));
}

// Calls again what a signal has interrupted: for calls that do not wait.
template <class Call>
[[gnu::always_inline]] inline io_result uninterrupted(Call&& call) noexcept {
  for (;;) {
    const io_result result = call();
    if (result.error() != EINTR) {
      return result;
    }
  }
}

// close(2), where EINTR is no error: Linux has closed it all the same.
[[nodiscard]] inline io_result close_file(int fd) noexcept {
  const io_result result = kernel(SYS_close, fd);
  return result.error() == EINTR ? io_result(0) : result;
}

// What poll(2) says at this moment. Interrupted by a signal, it asks again.
[[nodiscard]] inline io_result poll_now(std::span<pollfd> fds) noexcept {
  return uninterrupted([&] {
#if defined(SYS_poll)
    return kernel(SYS_poll, fds.data(), fds.size(), 0);
#else  // the newer architectures, arm64 and RISC-V among them
    timespec none{};
    return kernel(SYS_ppoll, fds.data(), fds.size(), &none, nullptr, 0);
#endif
  });
}

}  // namespace annulet::detail
