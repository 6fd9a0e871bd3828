// Runs a piece of a test in a forked child, for what ends the process or changes it for good.
#pragma once

#include "descriptors.hpp"

#include <cstdio>
#include <exception>
#include <string>
#include <utility>

#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

namespace annulet::test {

struct child_end {
  int status = 0;        // as waitpid gives it
  std::string messages;  // what it wrote to stderr

  [[nodiscard]] bool exited_with(int code) const noexcept {
    return WIFEXITED(status) && WEXITSTATUS(status) == code;
  }
  [[nodiscard]] bool died_of(int signal) const noexcept {
    return WIFSIGNALED(status) && WTERMSIG(status) == signal;
  }
  [[nodiscard]] bool says(std::string_view text) const noexcept {
    return messages.find(text) != std::string::npos;
  }
};

// The child's exit status is what the body returns, or 99 where it throws; what() is among the messages then.
// After so many seconds SIGALRM ends it. No other thread of this process may run meanwhile.
template <class Body>
child_end in_child(Body&& body, unsigned seconds = 20) {
  auto [from_child, to_parent] = make_pipe(O_CLOEXEC);
  std::fflush(nullptr);
  const pid_t child = require_ok(::fork(), "fork");
  if (child == 0) {
    ::prctl(PR_SET_PDEATHSIG, SIGKILL);
    const rlimit no_core{0, 0};
    ::setrlimit(RLIMIT_CORE, &no_core);
    ::dup2(to_parent.get(), STDERR_FILENO);
    to_parent.close();
    from_child.close();
    // What the test framework would do with these is for the parent only.
    for (const int signal : {SIGABRT, SIGSEGV, SIGALRM, SIGTERM}) {
      ::signal(signal, SIG_DFL);
    }
    ::alarm(seconds);
    int code = 99;
    try {
      code = std::forward<Body>(body)();
    } catch (const std::exception& e) {
      std::fprintf(stderr, "threw: %s\n", e.what());
    }
    std::fflush(nullptr);
    ::_exit(code);
  }
  to_parent.close();
  child_end end;
  char buffer[4096];
  for (;;) {
    const auto got = ::read(from_child.get(), buffer, sizeof(buffer));
    if (got <= 0) {
      break;
    }
    end.messages.append(buffer, static_cast<std::size_t>(got));
  }
  while (::waitpid(child, &end.status, 0) < 0 && errno == EINTR) {
  }
  return end;
}

}  // namespace annulet::test
