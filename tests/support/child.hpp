// Runs code that may end the process, in a child; and catches what a process says on stderr.
#pragma once

#include <cerrno>
#include <csignal>
#include <cstdlib>
#include <exception>
#include <string>
#include <system_error>

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

namespace annulet_test {

// What is written to descriptor 2 while it lives goes into a file in memory.
class stderr_capture {
 public:
  stderr_capture() : file_(::memfd_create("stderr", MFD_CLOEXEC)), kept_(::dup(STDERR_FILENO)) {
    // Without O_APPEND two threads that write to a memfd at once write to the same place.
    if (file_ < 0 || ::fcntl(file_, F_SETFL, O_APPEND) != 0 || kept_ < 0 ||
        ::dup2(file_, STDERR_FILENO) < 0) {
      throw std::system_error(errno, std::generic_category(), "stderr_capture");
    }
  }
  ~stderr_capture() {
    ::dup2(kept_, STDERR_FILENO);
    ::close(kept_);
    ::close(file_);
  }
  stderr_capture(const stderr_capture&) = delete;
  stderr_capture& operator=(const stderr_capture&) = delete;

  [[nodiscard]] std::string text() const {
    std::string all;
    char piece[4096];
    for (off_t at = 0;;) {
      const ssize_t got = ::pread(file_, piece, sizeof piece, at);
      if (got <= 0) {
        return all;
      }
      all.append(piece, static_cast<std::size_t>(got));
      at += got;
    }
  }

 private:
  int file_;
  int kept_;
};

struct child_end {
  int exit = -1;   // what it returned, or -1
  int signal = 0;  // what ended it, or 0
  std::string said;

  [[nodiscard]] bool says(const std::string& words) const { return said.find(words) != std::string::npos; }
};

// Calls fn() in a forked child, which ends with its result (bool: 0 means true), or with 99 where it throws.
// A child that takes longer than the limit gets SIGALRM.
template <class Fn>
child_end in_child(Fn&& fn, unsigned seconds = 60) {
  const stderr_capture capture;
  const pid_t child = ::fork();
  if (child < 0) {
    throw std::system_error(errno, std::generic_category(), "fork");
  }
  if (child == 0) {
    const rlimit no_core{0, 0};
    ::setrlimit(RLIMIT_CORE, &no_core);
    for (const int number : {SIGSEGV, SIGBUS, SIGABRT, SIGALRM, SIGFPE, SIGILL, SIGTERM}) {
      std::signal(number, SIG_DFL);  // the test framework has its own
    }
    ::alarm(seconds);
    int result = 99;
    try {
      result = fn() ? 0 : 1;
    } catch (const std::exception& e) {
      const std::string what = std::string("thrown: ") + e.what() + "\n";
      [[maybe_unused]] const auto written = ::write(STDERR_FILENO, what.data(), what.size());
    } catch (...) {
    }
    ::_exit(result);
  }
  int status = 0;
  while (::waitpid(child, &status, 0) < 0 && errno == EINTR) {
  }
  child_end end;
  end.said = capture.text();
  if (WIFEXITED(status)) {
    end.exit = WEXITSTATUS(status);
  } else if (WIFSIGNALED(status)) {
    end.signal = WTERMSIG(status);
  }
  return end;
}

}  // namespace annulet_test
