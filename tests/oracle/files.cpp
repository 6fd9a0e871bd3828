#include "files.hpp"

#include <array>
#include <cerrno>
#include <csignal>
#include <cstdlib>
#include <system_error>

#include <arpa/inet.h>
#include <fcntl.h>
#include <pty.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/timerfd.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>

namespace oracle {

namespace {

constexpr std::array signals = {SIGUSR1, SIGUSR2, SIGWINCH, SIGVTALRM};

sigset_t set_of(int number) {
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, number);
  return set;
}

int must(int result, const char* call) {
  if (result < 0) {
    throw std::system_error(errno, std::generic_category(), call);
  }
  return result;
}

sockaddr_in local_address(in_port_t port) {
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = port;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  return address;
}

sockaddr_in own_address(int fd) {
  sockaddr_in address{};
  socklen_t size = sizeof(address);
  ::getsockname(fd, reinterpret_cast<sockaddr*>(&address), &size);
  return address;
}

int connect_to(int fd, const sockaddr_in& address) {
  return ::connect(fd, reinterpret_cast<const sockaddr*>(&address), sizeof(address));
}

void be_small(int socket) {
  const int size = 4096;
  ::setsockopt(socket, SOL_SOCKET, SO_SNDBUF, &size, sizeof(size));
  ::setsockopt(socket, SOL_SOCKET, SO_RCVBUF, &size, sizeof(size));
}

std::vector<descriptor> one(int fd, kind what) {
  if (fd < 0) {
    return {};
  }
  return {{fd, std::make_shared<file>(what)}};
}

std::vector<descriptor> two(int a, kind first, int b, kind second) {
  std::vector<descriptor> both = {{a, std::make_shared<file>(first)}, {b, std::make_shared<file>(second)}};
  both[0].of->peer = both[1].of;
  both[1].of->peer = both[0].of;
  return both;
}

std::vector<descriptor> make_pipe() {
  std::array<int, 2> ends{};
  if (::pipe2(ends.data(), O_NONBLOCK | O_CLOEXEC) != 0) {
    return {};
  }
  ::fcntl(ends[1], F_SETPIPE_SZ, 4096);
  return two(ends[0], kind::pipe_reader, ends[1], kind::pipe_writer);
}

std::vector<descriptor> make_unix(int type, kind what) {
  std::array<int, 2> ends{};
  if (::socketpair(AF_UNIX, type | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, ends.data()) != 0) {
    return {};
  }
  be_small(ends[0]);
  be_small(ends[1]);
  return two(ends[0], what, ends[1], what);
}

std::vector<descriptor> make_one_way() {
  const int receiver = ::socket(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  const int sender = ::socket(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  socklen_t size = sizeof(sa_family_t);  // a name that the kernel chooses
  ::bind(receiver, reinterpret_cast<const sockaddr*>(&address), size);
  size = sizeof(address);
  ::getsockname(receiver, reinterpret_cast<sockaddr*>(&address), &size);
  if (::connect(sender, reinterpret_cast<const sockaddr*>(&address), size) != 0) {
    ::close(receiver);
    ::close(sender);
    return {};
  }
  return two(receiver, kind::unix_receiver, sender, kind::unix_sender);
}

std::vector<descriptor> make_udp() {
  std::array<int, 2> ends{};
  std::array<sockaddr_in, 2> names{};
  for (std::size_t i = 0; i < 2; ++i) {
    ends[i] = ::socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    const sockaddr_in any = local_address(0);
    ::bind(ends[i], reinterpret_cast<const sockaddr*>(&any), sizeof(any));
    be_small(ends[i]);
    names[i] = own_address(ends[i]);
  }
  if (connect_to(ends[0], names[1]) != 0 || connect_to(ends[1], names[0]) != 0) {
    ::close(ends[0]);
    ::close(ends[1]);
    return {};
  }
  auto both = two(ends[0], kind::udp, ends[1], kind::udp);
  both[0].of->address = names[1];
  both[1].of->address = names[0];
  return both;
}

std::vector<descriptor> make_listener() {
  const int fd = ::socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  const sockaddr_in any = local_address(0);
  if (::bind(fd, reinterpret_cast<const sockaddr*>(&any), sizeof(any)) != 0 || ::listen(fd, 8) != 0) {
    ::close(fd);
    return {};
  }
  auto made = one(fd, kind::tcp_listener);
  made[0].of->address = own_address(fd);
  return made;
}

std::vector<descriptor> make_terminal() {
  std::array<int, 2> ends{};
  termios raw{};
  ::cfmakeraw(&raw);
  raw.c_cflag |= CREAD;
  if (::openpty(&ends[0], &ends[1], nullptr, &raw, nullptr) != 0) {
    return {};
  }
  for (const int fd : ends) {
    ::fcntl(fd, F_SETFL, O_RDWR | O_NONBLOCK);
    ::fcntl(fd, F_SETFD, FD_CLOEXEC);
  }
  return two(ends[0], kind::terminal_master, ends[1], kind::terminal_slave);
}

std::vector<descriptor> make_epoll() {
  auto made = one(::epoll_create1(EPOLL_CLOEXEC), kind::epoll);
  if (!made.empty()) {
    made[0].of->inner = must(::eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC), "eventfd");
    epoll_event want{EPOLLIN, {}};
    ::epoll_ctl(made[0].fd, EPOLL_CTL_ADD, made[0].of->inner, &want);
  }
  return made;
}

std::vector<descriptor> make_signal(dice& d) {
  const int number = d.pick(signals);
  const sigset_t set = set_of(number);
  auto made = one(::signalfd(-1, &set, SFD_NONBLOCK | SFD_CLOEXEC), kind::signal);
  if (!made.empty()) {
    made[0].of->number = number;
  }
  return made;
}

}  // namespace

const char* name_of(kind what) noexcept {
  constexpr std::array<const char*, kinds> names = {
      "pipe reader",    "pipe writer",   "tcp",          "tcp listener",  "unix stream",
      "unix seqpacket", "unix datagram", "unix sender",  "unix receiver", "udp",
      "eventfd",        "timerfd",       "signalfd",     "pidfd",         "pty master",
      "pty slave",      "epoll",         "regular file", "directory",     "null device"};
  return names[static_cast<std::size_t>(what)];
}

bool end_shows(kind what) noexcept {
  return what == kind::pipe_reader || what == kind::pipe_writer || what == kind::tcp ||
         what == kind::unix_stream || what == kind::unix_seqpacket || what == kind::terminal_master ||
         what == kind::terminal_slave;
}

child::child() {
  std::array<int, 2> sign{};
  must(::pipe2(sign.data(), O_CLOEXEC), "pipe2");
  pid_ = must(::fork(), "fork");
  if (pid_ == 0) {
    // Nothing of the parent's is left open here, or its ends would never come; the sign goes last.
    ::prctl(PR_SET_PDEATHSIG, SIGKILL);
    const auto last = static_cast<unsigned>(sign[1]);
    ::syscall(SYS_close_range, 0U, last - 1, 0U);
    ::syscall(SYS_close_range, last + 1, ~0U, 0U);
    ::close(sign[1]);
    for (;;) {
      ::pause();
    }
  }
  ::close(sign[1]);
  char none = 0;
  while (::read(sign[0], &none, 1) < 0 && errno == EINTR) {
  }
  ::close(sign[0]);
}

child::~child() { reap(); }

void child::end() noexcept {
  if (!reaped_) {
    ::kill(pid_, SIGKILL);
    siginfo_t info;
    while (::waitid(P_PID, static_cast<id_t>(pid_), &info, WEXITED | WNOWAIT) != 0 && errno == EINTR) {
    }
  }
}

void child::reap() noexcept {
  end();
  if (!reaped_) {
    ::waitpid(pid_, nullptr, 0);
    reaped_ = true;
  }
}

file::~file() {
  if (inner >= 0) {
    ::close(inner);
  }
  for (const int caller : callers) {
    ::close(caller);
  }
}

workshop::workshop() : path_(must(::open("/", O_PATH | O_CLOEXEC), "open")) {
  ::signal(SIGPIPE, SIG_IGN);
  for (const int number : signals) {
    const sigset_t set = set_of(number);
    ::pthread_sigmask(SIG_BLOCK, &set, nullptr);
  }
  listener_ = must(::socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0), "socket");
  sockaddr_in any = local_address(0);
  any.sin_addr.s_addr = htonl(INADDR_ANY);
  must(::bind(listener_, reinterpret_cast<const sockaddr*>(&any), sizeof(any)), "bind");
  must(::listen(listener_, 64), "listen");
  port_ = own_address(listener_).sin_port;
}

workshop::~workshop() {
  ::close(path_);
  ::close(listener_);
  for (const int number : signals) {
    const sigset_t set = set_of(number);
    const timespec at_once{};
    while (::sigtimedwait(&set, nullptr, &at_once) > 0) {
    }
    ::pthread_sigmask(SIG_UNBLOCK, &set, nullptr);
  }
}

// To a different address of this machine each time: so many connections end here that one address would run
// out of ports.
std::vector<descriptor> workshop::make_tcp(dice& d) {
  const int caller = ::socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  be_small(caller);
  sockaddr_in address = local_address(port_);
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK + static_cast<in_addr_t>(d.below(60000)));
  int called = -1;
  if (connect_to(caller, address) == 0 || errno == EINPROGRESS) {
    called = ::accept4(listener_, nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC);
  }
  if (called < 0) {
    ::close(caller);
    return {};
  }
  be_small(called);
  return two(caller, kind::tcp, called, kind::tcp);
}

std::vector<descriptor> workshop::make_process(dice& d) {
  if (last_child_ == nullptr || d.one_in(4)) {
    last_child_ = std::make_shared<child>();
  }
  const bool self = d.one_in(8);
  const pid_t pid = self ? ::getpid() : last_child_->pid();
  auto made = one(static_cast<int>(::syscall(SYS_pidfd_open, pid, 0)), kind::process);
  if (made.empty()) {
    last_child_ = nullptr;  // it is gone without trace
  } else if (!self) {
    made[0].of->process = last_child_;
  }
  return made;
}

std::vector<descriptor> workshop::make(kind what, dice& d) {
  switch (what) {
    case kind::pipe_reader:
    case kind::pipe_writer:
      return make_pipe();
    case kind::tcp:
      return make_tcp(d);
    case kind::tcp_listener:
      return make_listener();
    case kind::unix_stream:
      return make_unix(SOCK_STREAM, what);
    case kind::unix_seqpacket:
      return make_unix(SOCK_SEQPACKET, what);
    case kind::unix_datagram:
      return make_unix(SOCK_DGRAM, what);
    case kind::unix_sender:
    case kind::unix_receiver:
      return make_one_way();
    case kind::udp:
      return make_udp();
    case kind::event:
      return one(::eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC | (d.one_in(2) ? EFD_SEMAPHORE : 0)), what);
    case kind::timer:
      return one(::timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC), what);
    case kind::signal:
      return make_signal(d);
    case kind::process:
      return make_process(d);
    case kind::terminal_master:
    case kind::terminal_slave:
      return make_terminal();
    case kind::epoll:
      return make_epoll();
    case kind::regular:
      return one(::memfd_create("oracle", MFD_CLOEXEC), what);
    case kind::directory:
      return one(::open("/", O_RDONLY | O_DIRECTORY | O_CLOEXEC), what);
    case kind::null_device:
      return one(::open("/dev/null", O_RDWR | O_CLOEXEC), what);
  }
  return {};
}

}  // namespace oracle
