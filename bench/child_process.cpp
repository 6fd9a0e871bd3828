#include "child_process.hpp"

#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cerrno>
#include <csignal>
#include <cstring>
#include <string_view>

#include "harness.hpp"

namespace bench {

child_process::child_process(int processor, const std::function<void()>& body) {
  std::signal(SIGCHLD, [](int) {
    constexpr std::string_view words = "annulet_bench: the process on the other processor has ended early\n";
    [[maybe_unused]] const auto written = ::write(STDERR_FILENO, words.data(), words.size());
    _exit(1);
  });
  const pid_t parent = getpid();
  id_ = fork();
  if (id_ < 0) {
    fail("fork: %s", std::strerror(errno));
  }
  if (id_ == 0) {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent) {
      _exit(1);
    }
    std::signal(SIGCHLD, SIG_DFL);
    pin_this_thread(processor);
    body();
    _exit(0);
  }
}

void child_process::expect_end() { std::signal(SIGCHLD, SIG_DFL); }

child_process::~child_process() {
  expect_end();
  waitpid(id_, nullptr, 0);
}

}  // namespace bench
