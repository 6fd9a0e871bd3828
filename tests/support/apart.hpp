// Runs a piece of a test in a process of its own: what may crash, or changes the process for good.
#pragma once

#include "files.hpp"

#include <csignal>
#include <cstdio>
#include <exception>
#include <utility>

#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>

namespace annulet::test {

// The exit status of a forked child that runs the body and ends with the number it returns: 99 where it
// throws, 128 + n where signal n ended it. After so many seconds SIGALRM does. For a process without other
// threads.
template <class Body>
int run_apart(Body&& body, unsigned seconds = 20) {
  std::fflush(nullptr);
  const pid_t child = require_ok(::fork(), "fork");
  if (child == 0) {
    ::prctl(PR_SET_PDEATHSIG, SIGKILL);
    const rlimit no_core{0, 0};
    ::setrlimit(RLIMIT_CORE, &no_core);
    // The test framework's handlers are for the parent.
    for (const int signal : {SIGABRT, SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGALRM, SIGTERM}) {
      ::signal(signal, SIG_DFL);
    }
    ::alarm(seconds);
    int status = 99;
    try {
      status = std::forward<Body>(body)();
    } catch (const std::exception& e) {
      std::fprintf(stderr, "a child threw: %s\n", e.what());
    }
    std::fflush(nullptr);
    ::_exit(status);
  }
  int status = 0;
  while (::waitpid(child, &status, 0) < 0 && errno == EINTR) {
  }
  return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

}  // namespace annulet::test
