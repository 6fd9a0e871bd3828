// A program's own dealings with SIGSEGV, for tests of what ours does beside them.
#pragma once

#include "child.hpp"
#include "own_memory.hpp"

#include <csignal>
#include <cstddef>
#include <cstdint>
#include <utility>

#include <unistd.h>

namespace annulet_test {

// An address that nobody has mapped, and that a compiler does not know as such.
inline void fault() { *reinterpret_cast<volatile char*>(page / 2) = 1; }

inline struct sigaction of_segv() {
  struct sigaction now {};
  ::sigaction(SIGSEGV, nullptr, &now);
  return now;
}

inline stack_t signal_stack() {
  stack_t now{};
  ::sigaltstack(nullptr, &now);
  return now;
}

inline void handle_with(void (*handler)(int, siginfo_t*, void*), int flags = 0) {
  struct sigaction own {};
  own.sa_sigaction = handler;
  own.sa_flags = SA_SIGINFO | flags;
  ::sigaddset(&own.sa_mask, SIGUSR1);
  ::sigaction(SIGSEGV, &own, nullptr);
}

// What a handler may rely on: else another status.
inline void exit_with_42(int number, siginfo_t* info, void* context) {
  sigset_t blocked;
  ::pthread_sigmask(SIG_BLOCK, nullptr, &blocked);
  const bool right = number == SIGSEGV && info->si_signo == SIGSEGV && info->si_code > 0 &&
                     reinterpret_cast<std::uintptr_t>(info->si_addr) == page / 2 && context != nullptr &&
                     ::sigismember(&blocked, SIGUSR1) == 1 && ::sigismember(&blocked, SIGSEGV) == 1;
  ::_exit(right ? 42 : 43);
}

inline volatile std::sig_atomic_t calls = 0;

// For a case in a child; `fn` is called with nothing of the test framework's in the way.
template <class Fn>
child_end alone(Fn&& fn) {
  return in_child([&] {
    stack_t none{};
    none.ss_flags = SS_DISABLE;
    ::sigaltstack(&none, nullptr);  // the test framework has one
    calls = 0;
    return fn();
  });
}

}  // namespace annulet_test
