// How long a thread was ready to run, and others of the machine had the cores.
#pragma once

#include "files.hpp"

#include <array>
#include <chrono>
#include <cstdlib>

#include <fcntl.h>
#include <unistd.h>

namespace annulet::test {

// Of the thread that makes it, since it was made. Zero where the kernel does not count that.
class waited_for_a_core {
 public:
  [[nodiscard]] std::chrono::nanoseconds so_far() const { return of_all_time() - before_; }

 private:
  // The second number: see Documentation/scheduler/sched-stats.rst of Linux.
  [[nodiscard]] std::chrono::nanoseconds of_all_time() const {
    std::array<char, 128> text{};
    char* second = nullptr;
    if (::pread(counts_.get(), text.data(), text.size() - 1, 0) > 0) {
      std::strtoull(text.data(), &second, 10);
    }
    return std::chrono::nanoseconds(second == nullptr ? 0 : std::strtoll(second, nullptr, 10));
  }

  descriptor counts_{::open("/proc/thread-self/schedstat", O_RDONLY | O_CLOEXEC)};
  std::chrono::nanoseconds before_ = of_all_time();
};

}  // namespace annulet::test
