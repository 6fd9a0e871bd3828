// What the fuzz targets share: their input, the calls past the C library, which looks at what it is given,
// and how a difference is told.
#pragma once

#include <fuzzer/FuzzedDataProvider.h>

#include <cerrno>
#include <cstdio>
#include <cstdlib>

#include <poll.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/select.h>
#include <sys/syscall.h>
#include <unistd.h>

namespace fuzz {

using input = FuzzedDataProvider;

[[noreturn]] inline void give_up(const char* why) {
  std::perror(why);
  std::abort();
}

[[noreturn]] inline void differ(const char* call, int plain, int plain_error, int ours, int our_error) {
  std::fprintf(stderr,
               "%s: plainly %d (errno %d), as a drop-in %d (errno %d), or they write something else\n", call,
               plain, plain_error, ours, our_error);
  std::abort();
}

constexpr std::size_t mask_size = sizeof(unsigned long);

constexpr timespec no_time{};

// The sanitizers look at the pointers that a call of the C library gets. The kernel writes what is left into
// the time.
inline int plain_ppoll(pollfd* fds, nfds_t count, const timespec* time, const sigset_t* mask) {
  timespec left = time == nullptr ? no_time : *time;
  return static_cast<int>(
      ::syscall(SYS_ppoll, fds, count, time == nullptr ? nullptr : &left, mask, mask_size));
}
inline int plain_pselect(int numbers, fd_set* reads, fd_set* writes, fd_set* excepts, const timespec* time,
                         const sigset_t* mask) {
  timespec left = time == nullptr ? no_time : *time;
  const struct {
    const sigset_t* mask;
    std::size_t size;
  } with{mask, mask_size};
  return static_cast<int>(
      ::syscall(SYS_pselect6, numbers, reads, writes, excepts, time == nullptr ? nullptr : &left, &with));
}
inline int plain_epoll_pwait2(int set, epoll_event* events, int most, const timespec* time,
                              const sigset_t* mask) {
  return static_cast<int>(::syscall(SYS_epoll_pwait2, set, events, most, time, mask, mask_size));
}

}  // namespace fuzz
