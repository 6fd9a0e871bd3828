// Counts the system calls of a piece of a test, by number, in a traced child.
#pragma once

#include "files.hpp"

#include <doctest/doctest.h>

#include <csignal>
#include <cstdint>
#include <cstdio>
#include <exception>
#include <map>
#include <span>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

namespace annulet::test {

using syscall_counts = std::map<std::uint64_t, unsigned>;  // by number

inline unsigned total(const syscall_counts& counts) {
  unsigned sum = 0;
  for (const auto& [number, count] : counts) {
    sum += count;
  }
  return sum;
}

using syscall_arguments = std::span<const std::uint64_t, 6>;

// Calls body(mark) in a child; mark() ends a part. Returns what each part between two marks called, the one
// before the first mark left out. Throws where the child did not end well, or cannot be traced. Each call
// after the first mark is shown to see(number, arguments) too, in the parent; pointers mean nothing there.
// restart_syscall is none: so the kernel goes on with a poll that it has interrupted.
template <class Body, class See>
std::vector<syscall_counts> count_syscalls(Body&& body, See&& see) {
  // A call that nobody else makes, and that changes nothing.
  constexpr long mark_call = SYS_sched_get_priority_max;
  constexpr long mark_argument = 0x6d61726b;
  std::fflush(nullptr);
  const pid_t child = require_ok(::fork(), "fork");
  if (child == 0) {
    ::alarm(60);
    ::signal(SIGALRM, SIG_DFL);
    int status = 98;
    if (::ptrace(PTRACE_TRACEME, 0, nullptr, nullptr) == 0) {
      ::raise(SIGSTOP);
      try {
        body([] { ::syscall(mark_call, mark_argument); });
        status = 0;
      } catch (const std::exception& e) {
        std::fprintf(stderr, "the traced child threw: %s\n", e.what());
        status = 99;
      }
    }
    ::_exit(status);
  }
  std::vector<syscall_counts> parts(1);
  int status = 0;
  bool first = true;
  while (::waitpid(child, &status, 0) == child && WIFSTOPPED(status)) {
    int deliver = 0;
    if (std::exchange(first, false)) {
      require_ok(static_cast<int>(
                     ::ptrace(PTRACE_SETOPTIONS, child, nullptr, PTRACE_O_TRACESYSGOOD | PTRACE_O_EXITKILL)),
                 "ptrace");
    } else if (WSTOPSIG(status) == (SIGTRAP | 0x80)) {
      __ptrace_syscall_info info{};
      ::ptrace(PTRACE_GET_SYSCALL_INFO, child, sizeof(info), &info);
      if (info.op == PTRACE_SYSCALL_INFO_ENTRY && info.entry.nr != SYS_restart_syscall) {
        if (info.entry.nr == mark_call && info.entry.args[0] == mark_argument) {
          parts.emplace_back();
        } else {
          ++parts.back()[info.entry.nr];
          if (parts.size() > 1) {
            see(info.entry.nr, syscall_arguments(info.entry.args));
          }
        }
      }
    } else {
      deliver = WSTOPSIG(status);
    }
    ::ptrace(PTRACE_SYSCALL, child, nullptr, static_cast<long>(deliver));
  }
  if (!WIFEXITED(status) || WEXITSTATUS(status) != 0) {
    throw std::runtime_error("the traced child did not end well: status " + std::to_string(status));
  }
  parts.erase(parts.begin());
  parts.pop_back();  // the child's end
  return parts;
}

template <class Body>
std::vector<syscall_counts> count_syscalls(Body&& body) {
  return count_syscalls(std::forward<Body>(body), [](std::uint64_t, syscall_arguments) {});
}

}  // namespace annulet::test

// So that a failed check says which calls there were: "2 of call 7, 1 of call 233".
template <>
struct doctest::StringMaker<annulet::test::syscall_counts> {
  static String convert(const annulet::test::syscall_counts& counts) {
    std::string words;
    for (const auto& [number, count] : counts) {
      words += (words.empty() ? "" : ", ") + std::to_string(count) + " of call " + std::to_string(number);
    }
    return words.empty() ? "none" : words.c_str();
  }
};
