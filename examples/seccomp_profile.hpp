// A seccomp profile for a process with hubs, by libseccomp: what annulet asks of the kernel, with the C
// library below it. Begin with it, and add what your own code calls.
//
//   example::confine({.uring = true});     // first of all: threads that exist already are not confined
//   annulet::hub hub;
//
// What a ring carries out is no system call, and no filter sees it: docs/SECURITY.md says what that is.
#pragma once

#include <seccomp.h>

#include <cerrno>
#include <cstdint>
#include <initializer_list>
#include <memory>
#include <system_error>

namespace example {

struct confinement {
  bool uring = true;  // without it hubs are on epoll, and need nothing more
  bool sockets = true;
  // open, pread and their kin. Without it, drop-ins cannot ask for /dev/tty, or for the main thread's stack
  // (/proc/self/maps), nor the C library for messages in the program's language.
  bool files = true;
  bool names = false;      // annulet_getaddrinfo: the C library reads files and asks servers
  bool processes = false;  // annulet::process, child, run_process; and fork
  // What a call that is not listed comes to. SCMP_ACT_LOG tells of it in the kernel's log and lets it go.
  std::uint32_t otherwise = SCMP_ACT_ERRNO(EPERM);
};

// Memory, threads, time and signals: every process of C++ needs most of these.
inline constexpr std::initializer_list<const char*> calls_of_runtime = {
    "mmap",
    "munmap",
    "mremap",
    "mprotect",
    "madvise",
    "mincore",
    "brk",
    "clone",
    "clone3",
    "set_robust_list",
    "rseq",
    "futex",
    "exit",
    "exit_group",
    "gettid",
    "getpid",
    "sched_yield",
    "sched_getaffinity",
    "prlimit64",
    "getrandom",
    "clock_gettime",
    "clock_nanosleep",
    "nanosleep",
    "restart_syscall",
    "rt_sigaction",
    "rt_sigprocmask",
    "rt_sigreturn",
    "rt_sigpending",
    "sigaltstack",
    "tgkill",
    "rt_sigtimedwait",
    "sched_setaffinity",
};
// What every hub does about descriptors: its eventfd, poll(2) behind each event, drop-ins. On either engine:
// by a receive or a send it asks whether a number has a socket, by a pipe what this kernel's writes can be
// told, and what io_uring cannot poll is put into an epoll set.
inline constexpr std::initializer_list<const char*> calls_of_hub = {
    "eventfd2",
    "signalfd4",
    "timerfd_create",
    "timerfd_settime",
    "epoll_create1",
    "epoll_ctl",
    "epoll_pwait",
    "epoll_pwait2",
    "poll",
    "ppoll",
    "pselect6",
    "read",
    "readv",
    "write",
    "writev",
    "preadv2",
    "pwritev2",
    "recvfrom",
    "recvmsg",
    "sendto",
    "sendmsg",
    "getsockopt",
    "close",
    "dup3",
    "pipe2",
    "fcntl",
    "ioctl",
    "statx",
    "fstat",
    "newfstatat",
    "lseek",
    "process_vm_readv",
    "process_vm_writev",
    "kcmp",
};
inline constexpr std::initializer_list<const char*> calls_of_uring = {
    "io_uring_setup",
    "io_uring_enter",
    "io_uring_register",
};
inline constexpr std::initializer_list<const char*> calls_of_sockets = {
    "socket",   "socketpair",  "bind",        "listen",     "accept4",  "connect",
    "shutdown", "getsockname", "getpeername", "setsockopt", "sendmmsg",
};
inline constexpr std::initializer_list<const char*> calls_of_files = {
    "openat", "pread64", "preadv", "pwritev", "fsync", "fdatasync",
};
inline constexpr std::initializer_list<const char*> calls_of_names = {
    "openat",
    "uname",
    "access",
    "getrandom",
};
// The last are what a program in C calls to begin, who is confined as well.
inline constexpr std::initializer_list<const char*> calls_of_processes = {
    "execve",
    "wait4",
    "waitid",
    "pidfd_open",
    "pidfd_send_signal",
    "kill",
    "vfork",
    "close_range",
    "setpgid",
    "getpgid",
    "fchdir",
    "dup2",
    "access",
    "openat",
    "pread64",
    "arch_prctl",
    "set_tid_address",
};

// For this thread, and those that it starts from now on. Throws std::system_error.
inline void confine(const confinement& what) {
  const auto require = [](int result, const char* call) {
    if (result < 0) {
      throw std::system_error(-result, std::generic_category(), call);
    }
  };
  const std::unique_ptr<void, void (*)(scmp_filter_ctx)> filter(::seccomp_init(what.otherwise),
                                                                &::seccomp_release);
  require(filter == nullptr ? -ENOMEM : 0, "seccomp_init");
  const auto allow = [&](bool wanted, std::initializer_list<const char*> calls) {
    for (const char* const name : wanted ? calls : std::initializer_list<const char*>{}) {
      // Some architectures have fewer, as they have no poll.
      if (const int number = ::seccomp_syscall_resolve_name(name); number >= 0) {
        const int added = ::seccomp_rule_add(filter.get(), SCMP_ACT_ALLOW, number, 0);
        require(added == -EEXIST ? 0 : added, name);
      }
    }
  };
  allow(true, calls_of_runtime);
  allow(true, calls_of_hub);
  allow(what.uring, calls_of_uring);
  allow(what.sockets || what.names, calls_of_sockets);
  allow(what.files, calls_of_files);
  allow(what.names, calls_of_names);
  allow(what.processes, calls_of_processes);
  require(::seccomp_load(filter.get()), "seccomp_load");
}

}  // namespace example
