// What the demo measures with, and the room that it needs.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>

namespace demo {

// Throws std::system_error of errno.
[[noreturn]] void fail(const std::string& what);

// CPU time of the calling thread, in user and kernel.
std::chrono::nanoseconds thread_cpu();

// How long this process has been ready to run while others had its CPU; 0 where the kernel does not tell.
std::chrono::nanoseconds waited_for_cpu();

// Two CPUs that this process may use, one for each side; nothing where there is but one.
struct two_cpus {
  int server, client;
};
std::optional<two_cpus> choose_cpus();
// Nothing: wherever the kernel likes.
void pin_to(std::optional<int> cpu);

// Raises the soft limit as far as the hard one allows. Throws std::runtime_error where that is not enough.
void need_descriptors(std::size_t count);

// Counts the system calls of the calling thread, by the kernel's own tracepoint raw_syscalls:sys_enter. While
// one exists, every system call of the machine takes longer, so it is no company for a clock.
class syscall_counter {
 public:
  syscall_counter();
  ~syscall_counter();
  syscall_counter(const syscall_counter&) = delete;
  syscall_counter& operator=(const syscall_counter&) = delete;

  // So far; nothing where it is not permitted.
  [[nodiscard]] std::optional<std::uint64_t> count() const;
  // Why it is not permitted; empty where it is.
  [[nodiscard]] const std::string& why_not() const { return why_not_; }

 private:
  int fd_ = -1;
  std::string why_not_;
};

}  // namespace demo
