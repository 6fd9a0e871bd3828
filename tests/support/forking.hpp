// For tests that fork themselves: how the child has ended, what was wrong in it, and what it holds.
#pragma once

#include <chrono>
#include <csignal>
#include <cstddef>
#include <string>
#include <thread>

#include <dirent.h>
#include <sys/wait.h>
#include <unistd.h>
#include <array>

namespace annulet::test {

// How the child ended, as waitpid(2) has it. The thread waits; one that does not end is killed.
inline int status_of(pid_t child) {
  for (int i = 0; i < 20'000; ++i) {
    int status = -1;
    if (::waitpid(child, &status, WNOHANG) != 0) {
      return status;
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  ::kill(child, SIGKILL);
  int status = -1;
  ::waitpid(child, &status, 0);
  return status;
}

inline bool exited(int status, int code) { return WIFEXITED(status) && WEXITSTATUS(status) == code; }

// In a child: the first of these that does not hold is the exit status, from 10.
class verdict {
 public:
  verdict& holds(bool what) {
    ++number_;
    if (!what && failed_ == 0) {
      failed_ = number_;
    }
    return *this;
  }
  template <class Error, class Call>
  verdict& throws(Call&& call) {
    try {
      call();
    } catch (const Error&) {
      return holds(true);
    } catch (...) {
    }
    return holds(false);
  }
  [[noreturn]] void leave() const { ::_exit(failed_); }

 private:
  int number_ = 9;
  int failed_ = 0;
};

// Descriptors of this process whose link says so.
inline std::size_t descriptors_that_are(const std::string& what) {
  std::size_t count = 0;
  DIR* const list = ::opendir("/proc/self/fd");
  for (const dirent* each = ::readdir(list); each != nullptr; each = ::readdir(list)) {
    std::array<char, 256> target{};
    const std::string path = std::string("/proc/self/fd/") + each->d_name;
    if (::readlink(path.c_str(), target.data(), target.size() - 1) > 0 &&
        std::string(target.data()).find(what) != std::string::npos) {
      ++count;
    }
  }
  ::closedir(list);
  return count;
}

}  // namespace annulet::test
