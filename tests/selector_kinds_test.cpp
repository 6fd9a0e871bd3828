// Every kind of descriptor is reported as poll(2) reports it: before it is ready, when it becomes so, when it
// was consumed and when its other side has gone; to a select that looks and to one that is parked.
#include "support/selecting.hpp"
#include "support/texts.hpp"

#include <annulet/hub/hub.hpp>
#include <annulet/runtime/fiber.hpp>
#include <annulet/selector/selector.hpp>

#include <doctest/doctest.h>

#include <chrono>
#include <csignal>
#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include <sys/epoll.h>
#include <sys/inotify.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/timerfd.h>
#include <sys/wait.h>
#include <termios.h>

using namespace std::chrono_literals;
using namespace annulet::test;
using annulet::hub;
using annulet::io_event;
using annulet::selector;

namespace {

// One descriptor, and what can happen to it. What is empty cannot.
struct subject {
  descriptor fd;
  std::function<void()> provide;  // makes it ready
  std::function<void()> consume;  // takes that back
  std::function<void()> hang_up;  // its other side goes
};

void await(int fd, int events) {
  pollfd asked{fd, static_cast<short>(events), 0};
  REQUIRE(::poll(&asked, 1, 10'000) == 1);
}

event_map by_poll(int fd, io_event interest) {
  const io_event events = events_by_poll(fd, interest);
  return events == io_event::none ? event_map{} : event_map{{fd, events}};
}

// Twice, for what select has reported must stay reported, and what it has not must stay silent.
void matches_poll(selector& sel, int fd, io_event interest) {
  for (int i = 0; i < 2; ++i) {
    const event_map expected = by_poll(fd, interest);
    CHECK(look(sel) == expected);
    if (!expected.empty()) {
      CHECK(as_map(sel.select(limit)) == expected);
    }
    REQUIRE(by_poll(fd, interest) == expected);
  }
}

// Does the deed under a select that is parked, if this one can be.
void do_under_select(selector& sel, int fd, io_event interest, const std::function<void()>& deed) {
  if (!by_poll(fd, interest).empty()) {
    deed();
    return;
  }
  auto fiber = park_in_select(sel);
  deed();
  const event_map expected = by_poll(fd, interest);
  if (expected.empty()) {
    CHECK(!fiber.join(2ms));
    fiber.kill();
    CHECK(fiber.join(limit));
  } else {
    REQUIRE(fiber.join(limit));
    CHECK(fiber.get() == expected);
  }
}

void is_reported_as_poll_says(const std::function<subject()>& make) {
  hub home;
  for (const io_event interest : {io_event::read, io_event::write, both}) {
    CAPTURE(interest);
    const subject s = make();
    const int fd = s.fd.get();
    selector sel;
    sel.register_(fd, interest);
    matches_poll(sel, fd, interest);
    const int rounds = s.provide && s.consume ? 4 : s.provide ? 1 : 0;
    for (int round = 0; round < rounds; ++round) {
      CAPTURE(round);
      if (round % 2 == 0) {
        do_under_select(sel, fd, interest, s.provide);
      } else {
        s.provide();
      }
      matches_poll(sel, fd, interest);
      if (s.consume) {
        s.consume();
        matches_poll(sel, fd, interest);
      }
    }
    if (s.hang_up) {
      do_under_select(sel, fd, interest, s.hang_up);
      matches_poll(sel, fd, interest);
    }
    sel.unregister(fd);
    CHECK(look(sel).empty());
  }
}

// What is read and written byte by byte. The peer is closed to hang up.
subject stream(descriptor fd, descriptor peer) {
  const int mine = fd.get();
  auto other = std::make_shared<descriptor>(std::move(peer));
  return {std::move(fd), [other, mine] { send_byte(other->get()), await(mine, POLLIN); },
          [mine] { drain(mine); }, [other] { other->close(); }};
}

subject open_file(const std::string& path, int flags) {
  return {descriptor(require_ok(::open(path.c_str(), flags | O_CLOEXEC), "open")), {}, {}, {}};
}

struct temporary_directory {
  temporary_directory() {
    std::string name = (std::filesystem::temp_directory_path() / "annulet-kinds.XXXXXX").string();
    if (::mkdtemp(name.data()) == nullptr) {
      require_ok(-1, "mkdtemp");
    }
    path = name;
  }
  temporary_directory(const temporary_directory&) = delete;
  ~temporary_directory() { std::filesystem::remove_all(path); }
  std::filesystem::path path;
};

}  // namespace

TEST_CASE("a pipe's end to read from") {
  is_reported_as_poll_says([] {
    auto [reader, writer] = make_pipe();
    return stream(std::move(reader), std::move(writer));
  });
}

TEST_CASE("a pipe's end to write to") {
  is_reported_as_poll_says([]() -> subject {
    auto [reader, writer] = make_pipe();
    const int mine = writer.get();
    fill(mine);
    auto other = std::make_shared<descriptor>(std::move(reader));
    return {std::move(writer), [other] { drain(other->get()); }, [mine] { fill(mine); },
            [other] { other->close(); }};
  });
}

TEST_CASE("a FIFO in the file system") {
  const temporary_directory directory;
  const std::string path = (directory.path / "fifo").string();
  require_ok(::mkfifo(path.c_str(), 0600), "mkfifo");
  is_reported_as_poll_says([&] {
    subject reader = open_file(path, O_RDONLY | O_NONBLOCK);
    return stream(std::move(reader.fd), open_file(path, O_WRONLY | O_NONBLOCK).fd);
  });
}

TEST_CASE("a TCP connection that the peer closes") {
  is_reported_as_poll_says([] {
    auto [first, second] = make_tcp_pair();
    return stream(std::move(first), std::move(second));
  });
}

TEST_CASE("a TCP connection that the peer half closes") {
  is_reported_as_poll_says([] {
    auto [first, second] = make_tcp_pair();
    auto peer = std::make_shared<descriptor>(std::move(second));
    subject s = stream(std::move(first), descriptor(::dup(peer->get())));
    s.hang_up = [peer, fd = s.fd.get()] { ::shutdown(peer->get(), SHUT_WR), await(fd, POLLIN); };
    return s;
  });
}

TEST_CASE("a TCP connection that is shut down on this side") {
  is_reported_as_poll_says([] {
    auto [first, second] = make_tcp_pair();
    subject s = stream(std::move(first), std::move(second));
    s.hang_up = [fd = s.fd.get()] { ::shutdown(fd, SHUT_RDWR); };
    return s;
  });
}

TEST_CASE("a TCP socket that listens") {
  is_reported_as_poll_says([]() -> subject {
    auto [socket, port] = make_tcp_listener();
    const int fd = socket.get();
    auto client = std::make_shared<descriptor>();
    return {std::move(socket),
            [client, fd, to = port] {
              *client = descriptor(require_ok(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), "socket"));
              connect_socket(client->get(), to);
              await(fd, POLLIN);
            },
            [fd] { descriptor(require_ok(::accept(fd, nullptr, nullptr), "accept")); },
            [fd] { ::shutdown(fd, SHUT_RDWR); }};
  });
}

TEST_CASE("a TCP socket that is not connected") {
  is_reported_as_poll_says([]() -> subject {
    return {descriptor(require_ok(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), "socket")), {}, {}, {}};
  });
}

TEST_CASE("UNIX sockets: stream, datagram and packets in sequence") {
  for (const int type : {SOCK_STREAM, SOCK_DGRAM, SOCK_SEQPACKET}) {
    CAPTURE(type);
    is_reported_as_poll_says([type] {
      auto [first, second] = make_socket_pair(type);
      return stream(std::move(first), std::move(second));
    });
  }
}

TEST_CASE("a full UNIX datagram socket") {
  is_reported_as_poll_says([]() -> subject {
    auto [first, second] = make_socket_pair(SOCK_DGRAM);
    const int fd = first.get();
    const auto fill_up = [fd] {
      while (::send(fd, "x", 1, 0) == 1) {
      }
    };
    fill_up();
    auto peer = std::make_shared<descriptor>(std::move(second));
    return {std::move(first), [peer] { drain(peer->get()); }, fill_up, [peer] { peer->close(); }};
  });
}

TEST_CASE("a UDP socket, and the refusal that its peer's port sends back") {
  is_reported_as_poll_says([] {
    auto [first, second] = make_udp_pair();
    subject s = stream(std::move(first), std::move(second));
    s.hang_up = [fd = s.fd.get(), close = s.hang_up] { close(), send_byte(fd), await(fd, POLLIN); };
    return s;
  });
}

TEST_CASE("an eventfd with a count, and one that is full") {
  is_reported_as_poll_says([]() -> subject {
    descriptor made = make_eventfd();
    const int fd = made.get();
    return {std::move(made), [fd] { add_to_eventfd(fd); }, [fd] { (void)try_read(fd); }, {}};
  });
  is_reported_as_poll_says([]() -> subject {
    descriptor made = make_eventfd();
    const int fd = made.get();
    const auto fill_up = [fd] {
      const std::uint64_t most = 0xffff'ffff'ffff'fffe;
      require_ok(static_cast<int>(::write(fd, &most, sizeof(most))), "write");
    };
    fill_up();
    return {std::move(made), [fd] { drain(fd); }, fill_up, {}};
  });
}

TEST_CASE("a timerfd") {
  is_reported_as_poll_says([]() -> subject {
    descriptor made(require_ok(::timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC), "timerfd"));
    const int fd = made.get();
    const auto expire = [fd] {
      const itimerspec soon{{0, 0}, {0, 1}};
      require_ok(::timerfd_settime(fd, 0, &soon, nullptr), "timerfd_settime");
      await(fd, POLLIN);
    };
    return {std::move(made), expire, [fd] { (void)try_read(fd); }, {}};
  });
}

TEST_CASE("a signalfd") {
  sigset_t set, before;
  sigemptyset(&set);
  sigaddset(&set, SIGUSR1);
  REQUIRE(::pthread_sigmask(SIG_BLOCK, &set, &before) == 0);
  is_reported_as_poll_says([&]() -> subject {
    descriptor made(require_ok(::signalfd(-1, &set, SFD_NONBLOCK | SFD_CLOEXEC), "signalfd"));
    const int fd = made.get();
    return {std::move(made), [] { std::raise(SIGUSR1); }, [fd] { (void)try_read(fd); }, {}};
  });
  REQUIRE(::pthread_sigmask(SIG_SETMASK, &before, nullptr) == 0);
}

TEST_CASE("a pidfd, of a process that ends and is then reaped") {
  is_reported_as_poll_says([]() -> subject {
    const pid_t child = require_ok(::fork(), "fork");
    if (child == 0) {
      ::pause();
      ::_exit(0);
    }
    descriptor made(static_cast<int>(::syscall(SYS_pidfd_open, child, 0)));
    const int fd = require_ok(made.get(), "pidfd_open");
    return {std::move(made),
            [child, fd] { ::kill(child, SIGKILL), await(fd, POLLIN); },
            {},
            [child] { require_ok(::waitpid(child, nullptr, 0), "waitpid"); }};
  });
}

namespace {

// The master's and the slave's end, which pass every byte on as it is.
socket_pair make_pty() {
  descriptor master(require_ok(::posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC | O_NONBLOCK), "openpt"));
  require_ok(::grantpt(master.get()), "grantpt");
  require_ok(::unlockpt(master.get()), "unlockpt");
  descriptor slave(
      require_ok(::open(::ptsname(master.get()), O_RDWR | O_NOCTTY | O_CLOEXEC | O_NONBLOCK), "open"));
  termios raw{};
  require_ok(::tcgetattr(slave.get(), &raw), "tcgetattr");
  ::cfmakeraw(&raw);
  require_ok(::tcsetattr(slave.get(), TCSANOW, &raw), "tcsetattr");
  return {std::move(master), std::move(slave)};
}

}  // namespace

TEST_CASE("both ends of a pty") {
  is_reported_as_poll_says([] {
    auto [master, slave] = make_pty();
    return stream(std::move(master), std::move(slave));
  });
  is_reported_as_poll_says([] {
    auto [master, slave] = make_pty();
    return stream(std::move(slave), std::move(master));
  });
}

TEST_CASE("an epoll descriptor") {
  is_reported_as_poll_says([]() -> subject {
    descriptor made(require_ok(::epoll_create1(EPOLL_CLOEXEC), "epoll_create1"));
    auto inner = std::make_shared<descriptor>(make_eventfd());
    epoll_event event{EPOLLIN, {}};
    require_ok(::epoll_ctl(made.get(), EPOLL_CTL_ADD, inner->get(), &event), "epoll_ctl");
    return {std::move(made), [inner] { add_to_eventfd(inner->get()); }, [inner] { drain(inner->get()); }, {}};
  });
}

TEST_CASE("an inotify descriptor") {
  const temporary_directory directory;
  is_reported_as_poll_says([&]() -> subject {
    descriptor made(require_ok(::inotify_init1(IN_NONBLOCK | IN_CLOEXEC), "inotify_init1"));
    const int fd = made.get();
    require_ok(::inotify_add_watch(fd, directory.path.c_str(), IN_CREATE | IN_DELETE), "inotify_add_watch");
    const auto change = [file = directory.path / "file"] {
      std::ofstream(file) << "x";
      std::filesystem::remove(file);
    };
    return {std::move(made), change, [fd] { (void)try_read(fd); }, {}};
  });
}

TEST_CASE("files that are always ready: regular ones, directories and devices") {
  const temporary_directory directory;
  const std::string file = (directory.path / "file").string();
  std::ofstream(file) << "text";
  for (const auto& [path, flags] : {std::pair(file, O_RDWR),
                                    {file, O_RDONLY},
                                    {file, O_WRONLY | O_APPEND},
                                    {directory.path.string(), O_RDONLY | O_DIRECTORY},
                                    {"/dev/null", O_RDWR},
                                    {"/dev/zero", O_RDONLY},
                                    {"/proc/self/status", O_RDONLY}}) {
    CAPTURE(path);
    is_reported_as_poll_says([&, p = path, f = flags] { return open_file(p, f); });
    hub home;
    selector sel;
    const subject s = open_file(path, flags);
    sel.register_(s.fd.get(), both);
    CHECK(as_map(sel.select()) == event_map{{s.fd.get(), both}});
  }
}
