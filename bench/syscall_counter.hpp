// Counts the system calls of the calling thread, and of the threads that it begins, by the kernel's own
// tracepoint, raw_syscalls:sys_enter.
//
// While such a counter exists every thread of the machine takes the slow way into the kernel, so none is open
// during a timed turn: each contender is counted in a turn of its own.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

namespace bench {

class syscall_counter {
 public:
  // None where the kernel or the rights of this process do not allow it; why_not() says which.
  static std::optional<syscall_counter> open();
  static const std::string& why_not();

  syscall_counter(syscall_counter&& other) noexcept;
  syscall_counter& operator=(syscall_counter&&) = delete;
  ~syscall_counter();

  void start();
  std::uint64_t stop();  // calls since start, its own not among them

 private:
  explicit syscall_counter(int fd) : fd_(fd) {}
  int fd_;
};

}  // namespace bench
