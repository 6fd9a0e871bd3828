// What makes files ready and not ready.

#include "files.hpp"

#include <array>
#include <csignal>
#include <limits>

#include <fcntl.h>
#include <netinet/tcp.h>
#include <sys/epoll.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/timerfd.h>
#include <termios.h>
#include <unistd.h>

namespace oracle {

namespace {

constexpr std::size_t most_rounds = 64;
thread_local std::array<char, 4096> spare;  // what is in it is of no interest

void put_number(int fd, std::uint64_t number) noexcept {
  [[maybe_unused]] const auto written = ::write(fd, &number, sizeof(number));
}

bool take_number(int fd) noexcept {
  std::uint64_t number = 0;
  return ::read(fd, &number, sizeof(number)) > 0;
}

void set_timer(int fd, long first, long then) noexcept {
  itimerspec time{};
  time.it_value.tv_nsec = first;
  time.it_interval.tv_nsec = then;
  ::timerfd_settime(fd, 0, &time, nullptr);
}

// To this thread's signals, wherever it is called: the selecting thread made the file.
void raise(const file& f) noexcept {
  static const pid_t process = ::getpid();
  ::syscall(SYS_tgkill, process, process, f.number);
}

void call(const file& listener_const) noexcept {
  auto& listener = const_cast<file&>(listener_const);
  if (listener.callers.size() >= 8) {
    return;
  }
  const int caller = ::socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  if (caller >= 0) {
    ::connect(caller, reinterpret_cast<const sockaddr*>(&listener.address), sizeof(listener.address));
    listener.callers.push_back(caller);
  }
}

bool answer(const descriptor& listener) noexcept {
  const int called = ::accept4(listener.fd, nullptr, nullptr, SOCK_CLOEXEC);
  if (called < 0) {
    return false;
  }
  ::close(called);
  for (const int caller : listener.of->callers) {
    ::close(caller);
  }
  listener.of->callers.clear();
  return true;
}

// Never so much that a terminal is full: when it has room again the kernel tells nobody, so that neither a
// poll request nor epoll ever hears of it.
bool put_to_terminal(const descriptor& to, std::size_t bytes) noexcept {
  constexpr std::size_t most = 3000;
  if (to.of->sent + bytes > most) {
    return false;
  }
  to.of->sent += bytes;
  return ::write(to.fd, spare.data(), bytes) > 0;
}

bool take_from_terminal(const descriptor& from, std::size_t bytes) noexcept {
  if (::read(from.fd, spare.data(), bytes) > 0) {
    return true;
  }
  if (const auto peer = from.of->peer.lock(); peer != nullptr) {
    peer->sent = 0;
  }
  return false;
}

bool put_bytes(const descriptor& to, std::size_t bytes) noexcept {
  bytes = bytes < spare.size() ? bytes : spare.size();
  switch (to.of->what) {
    case kind::tcp:
    case kind::unix_stream:
    case kind::unix_seqpacket:
    case kind::unix_datagram:
    case kind::unix_sender:
    case kind::udp:
      return ::send(to.fd, spare.data(), bytes, MSG_NOSIGNAL | MSG_DONTWAIT) > 0;
    case kind::pipe_writer:
    case kind::regular:
      return ::write(to.fd, spare.data(), bytes) > 0;
    case kind::terminal_master:
    case kind::terminal_slave:
      return put_to_terminal(to, bytes);
    default:
      return false;
  }
}

bool take_bytes(const descriptor& from, std::size_t bytes) noexcept {
  bytes = bytes < spare.size() ? bytes : spare.size();
  switch (from.of->what) {
    case kind::event:
    case kind::timer:
      return take_number(from.fd);
    case kind::epoll:
      return take_number(from.of->inner);
    case kind::signal: {
      signalfd_siginfo info;
      return ::read(from.fd, &info, sizeof(info)) > 0;
    }
    case kind::tcp_listener:
      return answer(from);
    case kind::process:
      if (from.of->process != nullptr) {
        from.of->process->reap();
      }
      return false;
    case kind::directory:
    case kind::null_device:
    case kind::regular:
    case kind::pipe_writer:
      return false;
    case kind::terminal_master:
    case kind::terminal_slave:
      return take_from_terminal(from, bytes);
    case kind::pipe_reader:
      return ::read(from.fd, spare.data(), bytes) > 0;
    default:
      return ::recv(from.fd, spare.data(), bytes, MSG_DONTWAIT) > 0;
  }
}

void twist_socket(const descriptor& which, dice& d) noexcept {
  const int fd = which.fd;
  const kind what = which.of->what;
  constexpr std::array ways = {SHUT_RD, SHUT_WR, SHUT_RDWR};
  const bool stream = what != kind::unix_datagram && what != kind::udp;
  switch (d.below(stream ? 7 : 4)) {
    case 0: {
      const int size = d.one_in(2) ? 4096 : 16384;
      ::setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &size, sizeof(size));
      break;
    }
    case 1: {
      int error = 0;
      socklen_t size = sizeof(error);
      ::getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &size);
      break;
    }
    case 2: {
      const int least = d.one_in(2) ? 1 : 200;
      ::setsockopt(fd, SOL_SOCKET, SO_RCVLOWAT, &least, sizeof(least));
      break;
    }
    case 3:
      if (what != kind::tcp) {
        ::shutdown(fd, ways[d.below(ways.size())]);
      } else if (d.one_in(2)) {
        ::send(fd, spare.data(), 1, MSG_OOB | MSG_NOSIGNAL | MSG_DONTWAIT);
      } else {
        const int most = d.one_in(2) ? 512 : -1;
        ::setsockopt(fd, IPPROTO_TCP, TCP_NOTSENT_LOWAT, &most, sizeof(most));
      }
      break;
    case 4: {
      const linger abort{1, 0};  // the close that comes will be a reset
      ::setsockopt(fd, SOL_SOCKET, SO_LINGER, &abort, sizeof(abort));
      break;
    }
    default:
      ::shutdown(fd, ways[d.below(ways.size())]);
      break;
  }
}

// Towards a port where nobody is, whose answer is an error; or back to the peer.
void twist_udp(const descriptor& which, dice& d) noexcept {
  sockaddr_in address = which.of->address;
  if (d.one_in(2)) {
    address.sin_port = htons(9);
  }
  ::connect(which.fd, reinterpret_cast<const sockaddr*>(&address), sizeof(address));
  put_bytes(which, 10);
}

void twist_epoll(const descriptor& which, dice& d) noexcept {
  constexpr std::array masks = {0U, 1U * EPOLLIN, 1U * EPOLLOUT, EPOLLIN | EPOLLET, EPOLLIN | EPOLLONESHOT};
  epoll_event want{d.pick(masks), {}};
  ::epoll_ctl(which.fd, EPOLL_CTL_MOD, which.of->inner, &want);
  if (d.one_in(4)) {
    ::epoll_ctl(which.fd, d.one_in(2) ? EPOLL_CTL_DEL : EPOLL_CTL_ADD, which.of->inner, &want);
  }
}

void twist_signal(const descriptor& which, dice& d) noexcept {
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, which.of->number);
  if (d.one_in(2)) {
    sigaddset(&set, SIGUSR1);
  }
  ::signalfd(which.fd, &set, 0);
}

}  // namespace

void put(const descriptor& to, std::size_t bytes) noexcept {
  switch (to.of->what) {
    case kind::event:
      put_number(to.fd, bytes);
      break;
    case kind::epoll:
      put_number(to.of->inner, 1);
      break;
    case kind::timer:
      set_timer(to.fd, static_cast<long>(bytes), 0);
      break;
    case kind::signal:
      raise(*to.of);
      break;
    case kind::process:
      if (to.of->process != nullptr) {
        to.of->process->end();
      }
      break;
    case kind::tcp_listener:
      call(*to.of);
      break;
    default:
      put_bytes(to, bytes);
      break;
  }
}

void fill(const descriptor& to) noexcept {
  if (to.of->what == kind::event) {
    drain(to);
    put_number(to.fd, std::numeric_limits<std::uint64_t>::max() - 1);
    return;
  }
  if (to.of->what == kind::regular) {
    return;
  }
  for (std::size_t round = 0; round < most_rounds && put_bytes(to, 1024); ++round) {
  }
  for (std::size_t round = 0; round < most_rounds && put_bytes(to, 64); ++round) {
  }
}

void take(const descriptor& from, std::size_t bytes) noexcept { take_bytes(from, bytes); }

void drain(const descriptor& from) noexcept {
  for (std::size_t round = 0; round < most_rounds && take_bytes(from, spare.size()); ++round) {
  }
}

void twist(const descriptor& which, dice& d) noexcept {
  switch (which.of->what) {
    case kind::udp:
      if (d.one_in(2)) {
        twist_udp(which, d);
      } else {
        twist_socket(which, d);
      }
      break;
    case kind::tcp:
    case kind::unix_stream:
    case kind::unix_seqpacket:
    case kind::unix_datagram:
      twist_socket(which, d);
      break;
    case kind::timer:
      set_timer(which.fd, d.one_in(3) ? 0 : static_cast<long>(1 + d.below(100'000)),
                d.one_in(4) ? 500'000'000 : 0);
      break;
    case kind::epoll:
      twist_epoll(which, d);
      break;
    case kind::signal:
      twist_signal(which, d);
      break;
    case kind::pipe_reader:
    case kind::pipe_writer:
      ::fcntl(which.fd, F_SETPIPE_SZ, d.one_in(2) ? 4096 : 8192);
      break;
    case kind::terminal_master:
    case kind::terminal_slave:
      // Only what was received: of room that comes by flushing what was sent nobody hears either.
      ::tcflush(which.fd, TCIFLUSH);
      break;
    default:
      break;
  }
}

}  // namespace oracle
