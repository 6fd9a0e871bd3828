// A thread's signal mask as the kernel has it, and the calls about it, straight to the kernel. Internal.
#pragma once

#include "syscalls.hpp"

#include <csignal>
#include <cstdint>

namespace annulet::detail {

// A bit for each signal, from the lowest: 1 to 64.
using signal_mask = std::uint64_t;
static_assert(_NSIG - 1 <= 64, "more signals than a mask here has room for");

[[nodiscard]] constexpr signal_mask bit_of(int signal) noexcept { return signal_mask{1} << (signal - 1); }

// Of those that a program blocks: two are the threads library's own, which no thread may keep from it, two
// cannot be blocked, and a fault whose signal is blocked ends the process.
inline constexpr signal_mask all_signals =
    ~(bit_of(32) | bit_of(33) | bit_of(SIGKILL) | bit_of(SIGSTOP) | bit_of(SIGSEGV) | bit_of(SIGBUS) |
      bit_of(SIGFPE) | bit_of(SIGILL) | bit_of(SIGTRAP) | bit_of(SIGSYS));

[[nodiscard]] inline bool is_handled(int signal) noexcept {
  struct sigaction now {};
  return ::sigaction(signal, nullptr, &now) == 0 && now.sa_handler != SIG_DFL && now.sa_handler != SIG_IGN;
}

[[nodiscard]] inline signal_mask thread_mask() noexcept {
  signal_mask now = 0;
  (void)kernel(SYS_rt_sigprocmask, SIG_BLOCK, nullptr, &now, sizeof(now));
  return now;
}

// Returns what it was.
inline signal_mask set_thread_mask(signal_mask blocked) noexcept {
  signal_mask before = 0;
  (void)kernel(SYS_rt_sigprocmask, SIG_SETMASK, &blocked, &before, sizeof(before));
  return before;
}

// Those that have come and are blocked: for this thread, or for any of the process.
[[nodiscard]] inline signal_mask pending_signals() noexcept {
  signal_mask pending = 0;
  (void)kernel(SYS_rt_sigpending, &pending, sizeof(pending));
  return pending;
}

}  // namespace annulet::detail
