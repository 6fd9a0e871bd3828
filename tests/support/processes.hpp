// Children for tests, and what is left of them.
#pragma once

#include "files.hpp"

#include <cerrno>
#include <chrono>
#include <csignal>
#include <exception>
#include <thread>

#include <sys/wait.h>
#include <unistd.h>

namespace annulet::test {

// A child that calls fn, and uses nothing of a hub. From the first moment on SIGTERM ends it: the test
// framework has a handler of its own, which must not run in it.
template <class Fn>
pid_t forked(Fn&& fn) {
  sigset_t all;
  sigset_t before;
  sigfillset(&all);
  ::pthread_sigmask(SIG_SETMASK, &all, &before);
  const pid_t child = ::fork();
  if (child == 0) {
    std::signal(SIGTERM, SIG_DFL);
  }
  ::pthread_sigmask(SIG_SETMASK, &before, nullptr);
  if (child == 0) {
    fn();
    ::_exit(99);
  }
  return require_ok(child, "fork");
}

// Whether this process has any, zombies among them.
inline bool has_children() {
  siginfo_t info{};
  return ::waitid(P_ALL, 0, &info, WEXITED | WNOHANG | WNOWAIT) == 0;
}

// Stops the thread until it has ended; false where that takes too long.
inline bool await_zombie(pid_t child) {
  for (int i = 0; i < 10'000; ++i) {
    siginfo_t info{};
    require_ok(::waitid(P_PID, static_cast<id_t>(child), &info, WEXITED | WNOHANG | WNOWAIT), "waitid");
    if (info.si_pid == child) {
      return true;
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  return false;
}

}  // namespace annulet::test
