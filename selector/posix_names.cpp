// libannulet-posix: the standard names of the calls in posix.h, for programs and libraries that nobody
// changes. On a thread with a hub they are those calls; on others what they were without this library, the
// cancellation points of libc included.
//
//   LD_PRELOAD=libannulet-posix.so program      or on the link line, before libc: -lannulet-posix
//
// The program makes its hubs with the shared libannulet: one that has the static library in it has hubs that
// this one does not know, and on their threads these are the plain calls.
//
// A signal's handler may make these calls, as it may make the plain ones: it never parks (hub_core::of_caller
// and is_in_handler).

#include "posix.h"
#include "posix_checked.h"

#include <annulet/hub/hub_core.hpp>

#include <atomic>
#include <cerrno>
#include <cstddef>

#include <dlfcn.h>
#include <netdb.h>
#include <unistd.h>

namespace {

using annulet::detail::hub_core;

template <std::size_t size>
struct call_name {
  // Implicit, for it is written as a template's argument.
  consteval call_name(const char (&text)[size]) noexcept {  // NOLINT
    for (std::size_t i = 0; i < size; ++i) {
      letters[i] = text[i];
    }
  }
  char letters[size]{};
};

// What the name means after this library. One that an older libc does not have is the kernel's call.
template <call_name name, auto drop_in>
class plain_call {
 public:
  using function = decltype(drop_in);

  // Also before this library was initialized: those that were before it may call.
  static function get() noexcept {
    const function known = known_.load(std::memory_order_relaxed);
    return known != nullptr ? known : find();
  }

 private:
  static function find() noexcept {
    const int kept = errno;
    void* const symbol = ::dlsym(RTLD_NEXT, name.letters);
    errno = kept;
    const auto found = symbol == nullptr ? drop_in : reinterpret_cast<function>(symbol);
    known_.store(found, std::memory_order_relaxed);
    return found;
  }

  // Looked up at once, for the first call may be a handler's.
  static inline std::atomic<function> known_{find()};
};

template <call_name name, auto drop_in, class... Args>
auto call(Args... arguments) {
  if (!hub_core::may_have_caller()) [[likely]] {
    return plain_call<name, drop_in>::get()(arguments...);
  }
  return drop_in(arguments...);
}

}  // namespace

#pragma GCC visibility push(default)

extern "C" {

int select(int nfds, fd_set* readfds, fd_set* writefds, fd_set* exceptfds, timeval* timeout) {
  return call<"select", annulet_select>(nfds, readfds, writefds, exceptfds, timeout);
}
int pselect(int nfds, fd_set* readfds, fd_set* writefds, fd_set* exceptfds, const timespec* timeout,
            const sigset_t* mask) {
  return call<"pselect", annulet_pselect>(nfds, readfds, writefds, exceptfds, timeout, mask);
}
int poll(pollfd* fds, nfds_t nfds, int milliseconds) {
  return call<"poll", annulet_poll>(fds, nfds, milliseconds);
}
int ppoll(pollfd* fds, nfds_t nfds, const timespec* timeout, const sigset_t* mask) {
  return call<"ppoll", annulet_ppoll>(fds, nfds, timeout, mask);
}
int epoll_wait(int epoll, epoll_event* events, int maxevents, int milliseconds) {
  return call<"epoll_wait", annulet_epoll_wait>(epoll, events, maxevents, milliseconds);
}
int epoll_pwait(int epoll, epoll_event* events, int maxevents, int milliseconds, const sigset_t* mask) {
  return call<"epoll_pwait", annulet_epoll_pwait>(epoll, events, maxevents, milliseconds, mask);
}
int epoll_pwait2(int epoll, epoll_event* events, int maxevents, const timespec* timeout,
                 const sigset_t* mask) {
  return call<"epoll_pwait2", annulet_epoll_pwait2>(epoll, events, maxevents, timeout, mask);
}

unsigned sleep(unsigned seconds) { return call<"sleep", annulet_sleep>(seconds); }
int usleep(useconds_t microseconds) { return call<"usleep", annulet_usleep>(microseconds); }
int nanosleep(const timespec* time, timespec* left) {
  return call<"nanosleep", annulet_nanosleep>(time, left);
}
int clock_nanosleep(clockid_t clock, int flags, const timespec* time, timespec* left) {
  return call<"clock_nanosleep", annulet_clock_nanosleep>(clock, flags, time, left);
}

ssize_t read(int fd, void* into, std::size_t size) { return call<"read", annulet_read>(fd, into, size); }
ssize_t write(int fd, const void* from, std::size_t size) {
  return call<"write", annulet_write>(fd, from, size);
}
ssize_t readv(int fd, const iovec* into, int count) { return call<"readv", annulet_readv>(fd, into, count); }
ssize_t writev(int fd, const iovec* from, int count) {
  return call<"writev", annulet_writev>(fd, from, count);
}
ssize_t recv(int socket, void* into, std::size_t size, int flags) {
  return call<"recv", annulet_recv>(socket, into, size, flags);
}
ssize_t recvfrom(int socket, void* into, std::size_t size, int flags, sockaddr* sender,
                 socklen_t* sender_size) {
  return call<"recvfrom", annulet_recvfrom>(socket, into, size, flags, sender, sender_size);
}
ssize_t recvmsg(int socket, msghdr* message, int flags) {
  return call<"recvmsg", annulet_recvmsg>(socket, message, flags);
}
ssize_t send(int socket, const void* from, std::size_t size, int flags) {
  return call<"send", annulet_send>(socket, from, size, flags);
}
ssize_t sendto(int socket, const void* from, std::size_t size, int flags, const sockaddr* receiver,
               socklen_t receiver_size) {
  return call<"sendto", annulet_sendto>(socket, from, size, flags, receiver, receiver_size);
}
ssize_t sendmsg(int socket, const msghdr* message, int flags) {
  return call<"sendmsg", annulet_sendmsg>(socket, message, flags);
}
int accept(int socket, sockaddr* peer, socklen_t* peer_size) {
  return call<"accept", annulet_accept>(socket, peer, peer_size);
}
int accept4(int socket, sockaddr* peer, socklen_t* peer_size, int flags) {
  return call<"accept4", annulet_accept4>(socket, peer, peer_size, flags);
}
int connect(int socket, const sockaddr* peer, socklen_t peer_size) {
  return call<"connect", annulet_connect>(socket, peer, peer_size);
}
int close(int fd) { return call<"close", annulet_close>(fd); }

int getaddrinfo(const char* node, const char* service, const addrinfo* hints, addrinfo** found) {
  return call<"getaddrinfo", annulet_getaddrinfo>(node, service, hints, found);
}

// What _FORTIFY_SOURCE has made of some of them.
int __poll_chk(pollfd* fds, nfds_t nfds, int milliseconds, std::size_t room) {
  return call<"__poll_chk", annulet_poll_chk>(fds, nfds, milliseconds, room);
}
int __ppoll_chk(pollfd* fds, nfds_t nfds, const timespec* timeout, const sigset_t* mask, std::size_t room) {
  return call<"__ppoll_chk", annulet_ppoll_chk>(fds, nfds, timeout, mask, room);
}
ssize_t __read_chk(int fd, void* into, std::size_t size, std::size_t room) {
  return call<"__read_chk", annulet_read_chk>(fd, into, size, room);
}
ssize_t __recv_chk(int socket, void* into, std::size_t size, std::size_t room, int flags) {
  return call<"__recv_chk", annulet_recv_chk>(socket, into, size, room, flags);
}
ssize_t __recvfrom_chk(int socket, void* into, std::size_t size, std::size_t room, int flags,
                       sockaddr* sender, socklen_t* sender_size) {
  return call<"__recvfrom_chk", annulet_recvfrom_chk>(socket, into, size, room, flags, sender, sender_size);
}
}

#pragma GCC visibility pop
