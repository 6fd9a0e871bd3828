// Another program as a user runs it: started with arguments and limits, read line by line, signalled, and
// waited for. Nothing here waits longer than `patience`, and nothing that was started is left behind.
#pragma once

#include "cpu_time.hpp"
#include "files.hpp"

#include <array>
#include <chrono>
#include <csignal>
#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include <linux/close_range.h>
#include <poll.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

namespace annulet::test {

// For what has to happen, on however busy a machine; a test that waits so long has failed.
constexpr std::chrono::seconds patience(30);

struct program_end {
  int exit = -1;    // its status; -1 where a signal ended it, or it did not end
  std::string out;  // what was not read line by line
  std::string err;
};

class program {
 public:
  // What `prepare` does happens in the child, just before the program takes over.
  program(
      const std::filesystem::path& path, const std::vector<std::string>& arguments,
      const std::function<void()>& prepare = [] {}) {
    pipe_pair out = make_pipe(O_CLOEXEC), err = make_pipe(O_CLOEXEC);
    std::vector<char*> words{const_cast<char*>(path.c_str())};
    for (const std::string& word : arguments) {
      words.push_back(const_cast<char*>(word.c_str()));
    }
    words.push_back(nullptr);
    child_ = require_ok(::fork(), "fork");
    if (child_ == 0) {
      ::prctl(PR_SET_PDEATHSIG, SIGKILL);
      ::dup2(out.writer.get(), STDOUT_FILENO);
      ::dup2(err.writer.get(), STDERR_FILENO);
      ::close_range(STDERR_FILENO + 1, ~0U, CLOSE_RANGE_CLOEXEC);  // ours, and what we were started with
      prepare();
      ::execv(path.c_str(), words.data());
      ::_exit(127);
    }
    out_ = std::move(out.reader);
    err_ = std::move(err.reader);
  }
  ~program() {
    if (child_ > 0) {
      ::kill(child_, SIGKILL);
      reap();
    }
  }
  program(const program&) = delete;
  program& operator=(const program&) = delete;

  [[nodiscard]] pid_t pid() const noexcept { return child_; }
  void signal(int number) const { require_ok(::kill(child_, number), "kill"); }

  // The next line of its standard output, without the end; nothing where there is none any more.
  std::optional<std::string> line() {
    const auto until = clock::now() + patience;
    for (;;) {
      if (const auto end = text_.out.find('\n'); end != std::string::npos) {
        std::string first = text_.out.substr(0, end);
        text_.out.erase(0, end + 1);
        return first;
      }
      if (out_.get() < 0 || !take_in(until)) {
        return std::nullopt;
      }
    }
  }

  // Until it has ended. One that does not end is killed.
  program_end wait() {
    const auto until = clock::now() + patience;
    while ((out_.get() >= 0 || err_.get() >= 0) && take_in(until)) {
    }
    const bool ended = out_.get() < 0 && err_.get() < 0;
    if (!ended) {
      ::kill(child_, SIGKILL);
    }
    const int status = reap();
    text_.exit = ended && WIFEXITED(status) ? WEXITSTATUS(status) : -1;
    return text_;
  }

  // CPU time that it has used so far.
  [[nodiscard]] std::chrono::nanoseconds cpu() const {
    clockid_t its_clock{};
    if (::clock_getcpuclockid(child_, &its_clock) != 0) {
      throw std::runtime_error("clock_getcpuclockid");
    }
    return cpu_time(its_clock);
  }

 private:
  using clock = std::chrono::steady_clock;

  // Some of what it says; false where nothing came in time.
  bool take_in(clock::time_point until) {
    const auto left = std::chrono::ceil<std::chrono::milliseconds>(until - clock::now()).count();
    std::array<pollfd, 2> both{{{out_.get(), POLLIN, 0}, {err_.get(), POLLIN, 0}}};
    if (left <= 0 || ::poll(both.data(), both.size(), static_cast<int>(left)) <= 0) {
      return false;
    }
    take_in(both[0], out_, text_.out);
    take_in(both[1], err_, text_.err);
    return true;
  }
  static void take_in(const pollfd& asked, descriptor& from, std::string& text) {
    std::array<char, 4096> piece;
    if (asked.fd < 0 || asked.revents == 0) {
      return;
    }
    const auto got = ::read(asked.fd, piece.data(), piece.size());
    if (got <= 0) {
      from.close();
      return;
    }
    text.append(piece.data(), static_cast<std::size_t>(got));
  }

  int reap() {
    int status = 0;
    while (::waitpid(child_, &status, 0) < 0 && errno == EINTR) {
    }
    child_ = -1;
    return status;
  }

  pid_t child_ = -1;
  descriptor out_, err_;
  program_end text_;
};

// Whether it comes true in time.
template <class Condition>
bool becomes_true(Condition condition) {
  for (const auto until = std::chrono::steady_clock::now() + patience;
       std::chrono::steady_clock::now() < until;) {
    if (condition()) {
      return true;
    }
    ::usleep(1000);
  }
  return false;
}

// For `prepare`.
inline void limit_descriptors(rlim_t soft, rlim_t hard) {
  const rlimit limit{soft, hard};
  ::setrlimit(RLIMIT_NOFILE, &limit);
}

// What was built into the folder beside that of the test program.
inline std::filesystem::path built(const std::string& folder, const std::string& name) {
  return std::filesystem::read_symlink("/proc/self/exe").parent_path().parent_path() / folder / name;
}

}  // namespace annulet::test
