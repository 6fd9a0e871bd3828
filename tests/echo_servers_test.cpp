// The echo servers among the examples, run as a user runs them: what one promises, the other does too.
#include "support/echo_program.hpp"
#include "support/tcp_client.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <cstdio>
#include <memory>
#include <utility>
#include <vector>

#include <netinet/tcp.h>
#include <sys/mman.h>
#include <sys/syscall.h>

namespace {

using namespace annulet::test;
using namespace std::chrono_literals;
using steady = std::chrono::steady_clock;

struct selector_echo {
  static constexpr const char* name = "selector_echo";
  static constexpr bool tells_of_shortage = false;
};
struct fiber_echo {
  static constexpr const char* name = "fiber_echo";
  static constexpr bool tells_of_shortage = true;
};

// As much as the socket takes at once, when it takes some; 0 where it takes none for so long.
std::size_t send_some(const descriptor& socket, std::string_view bytes, std::chrono::milliseconds limit) {
  pollfd asked{socket.get(), POLLOUT, 0};
  if (require_ok(::poll(&asked, 1, static_cast<int>(limit.count())), "poll") == 0) {
    return 0;
  }
  const auto took = ::send(socket.get(), bytes.data(), std::min<std::size_t>(bytes.size(), 65536),
                           MSG_DONTWAIT | MSG_NOSIGNAL);
  return static_cast<std::size_t>(require_ok(static_cast<int>(took), "send"));
}

// Until all is sent, or all buffers between the two are full. Returns how much that was.
std::size_t send_until_stuck(const descriptor& socket, std::string_view bytes) {
  std::size_t sent = 0;
  while (sent < bytes.size()) {
    const std::size_t took = send_some(socket, bytes.substr(sent), 300ms);
    if (took == 0) {
      break;
    }
    sent += took;
  }
  return sent;
}

}  // namespace

TEST_CASE_TEMPLATE("an echo server sends back what it is sent, then an end of file for an end of file",
                   Server, selector_echo, fiber_echo) {
  echo_program server(Server::name);
  const descriptor socket = connect_to(server.port_number);
  CHECK(echo(socket, "hello") == "hello");
  CHECK(echo(socket, random_bytes(5000)) == random_bytes(5000));

  const std::string last = random_bytes(30'000);
  send_all(socket, last);
  require_ok(::shutdown(socket.get(), SHUT_WR), "shutdown");
  CHECK((receive(socket, last.size() + 1) == last));
}

TEST_CASE_TEMPLATE("an echo server serves 100 connections at once, each with its own bytes", Server,
                   selector_echo, fiber_echo) {
  echo_program server(Server::name);
  std::vector<descriptor> sockets;
  for (int i = 0; i < 100; ++i) {
    sockets.push_back(connect_to(server.port_number));
  }
  for (int round = 0; round < 20; ++round) {
    const auto text = [&](std::size_t i) {
      return random_bytes(1 + i * 37 + static_cast<std::size_t>(round));
    };
    for (std::size_t i = 0; i < sockets.size(); ++i) {
      send_all(sockets[i], text(i));
    }
    for (std::size_t i = 0; i < sockets.size(); ++i) {
      REQUIRE(receive(sockets[i], text(i).size()) == text(i));
    }
  }
  server.signal(SIGTERM);
  CHECK(server.wait().out.find("served 100 connections") != std::string::npos);
}

TEST_CASE_TEMPLATE(
    "an echo server keeps what a socket does not take, waits without CPU, and reads no more meanwhile",
    Server, selector_echo, fiber_echo) {
  echo_program server(Server::name);
  const descriptor slow = connect_to(server.port_number, 4096);
  // More than all buffers between the two can hold, so it gets stuck before all is sent.
  const std::string payload = random_bytes(32 << 20);
  std::size_t sent = send_until_stuck(slow, payload);
  REQUIRE(sent < payload.size());

  // Whoever reads gets his bytes all the same, and waiting for the one who does not costs nothing.
  const descriptor other = connect_to(server.port_number);
  CHECK(echo(other, "meanwhile") == "meanwhile");
  const auto cpu = server.cpu();
  const auto sleeps = sleeps_while_idle(server);
  std::printf("note: %s, one who does not read: %llu sleeps in 100 ms\n", Server::name,
              static_cast<unsigned long long>(sleeps));
  CHECK(sleeps <= 3);
  CHECK(server.cpu() - cpu < 20ms);
  const auto memory = proc_value("/proc/" + std::to_string(server.pid()) + "/status", "VmRSS");
  CHECK(memory > 0);
  CHECK(memory < 16 * 1024);  // KiB

  std::string back;
  while (back.size() < payload.size()) {
    if (sent < payload.size()) {
      sent += send_some(slow, std::string_view(payload).substr(sent), 0ms);
    }
    std::array<char, 65536> piece;
    const auto got = ::recv(slow.get(), piece.data(), piece.size(), sent < payload.size() ? MSG_DONTWAIT : 0);
    REQUIRE((got > 0 || (got < 0 && errno == EAGAIN && sent < payload.size())));
    back.append(piece.data(), static_cast<std::size_t>(std::max<ssize_t>(got, 0)));
  }
  CHECK((back == payload));
}

TEST_CASE_TEMPLATE("an echo server goes on when peers reset their connections", Server, selector_echo,
                   fiber_echo) {
  echo_program server(Server::name);
  const descriptor faithful = connect_to(server.port_number);
  for (int i = 0; i < 50; ++i) {
    descriptor unheard = connect_to(server.port_number);  // perhaps not even accepted yet
    reset(unheard);
    descriptor silent = connect_to(server.port_number);
    CHECK(echo(silent, "x") == "x");
    reset(silent);
    descriptor unread = connect_to(server.port_number);
    send_all(unread, random_bytes(100'000));
    reset(unread);
    REQUIRE(echo(faithful, "still there?") == "still there?");
  }
  // Three descriptors of every round are closed again.
  const auto idle = [&] { return descriptors_of(server) < 20; };
  CHECK(becomes_true(idle));
  server.signal(SIGTERM);
  const auto end = server.wait();
  CHECK(end.exit == 0);
  CHECK(end.err.empty());
}

TEST_CASE_TEMPLATE(
    "an echo server ends on SIGINT and SIGTERM with status 0, says what it served, and frees its port",
    Server, selector_echo, fiber_echo) {
  std::string port = "0";
  for (const int number : {SIGINT, SIGTERM, SIGINT}) {
    echo_program server(Server::name, port);
    port = std::to_string(server.port_number);
    const descriptor open = connect_to(server.port_number), closed = connect_to(server.port_number);
    CHECK(echo(open, "some bytes") == "some bytes");
    CHECK(echo(closed, "more") == "more");
    server.signal(number);
    const auto end = server.wait();
    CHECK(end.exit == 0);
    CHECK(end.err.empty());
    CHECK(end.out.ends_with("served 2 connections, 14 bytes\n"));
    CHECK(receive(open, 1).empty());
  }
}

TEST_CASE_TEMPLATE("an echo server says now and then what it has served so far", Server, selector_echo,
                   fiber_echo) {
  echo_program server(Server::name);
  const descriptor socket = connect_to(server.port_number);
  CHECK(echo(socket, "12345") == "12345");
  std::optional<std::string> said;
  do {
    said = server.line();
  } while (said && *said != "so far 1 connections, 5 bytes");
  CHECK(said.has_value());
}

TEST_CASE_TEMPLATE("an echo server refuses bad arguments in words, with status 2", Server, selector_echo,
                   fiber_echo) {
  const auto refuses = [](const std::vector<std::string>& arguments, const std::string& why) {
    program refused(built("examples", Server::name), arguments);
    const auto end = refused.wait();
    CHECK(end.exit == 2);
    CHECK(end.out.empty());
    CHECK_MESSAGE(end.err.find(why) != std::string::npos, end.err);
    CHECK(end.err.find(std::string("usage: ") + Server::name + " PORT") != std::string::npos);
  };
  refuses({}, "which port?");
  refuses({"8080", "8081"}, "too many arguments");
  for (const char* const text : {"", "http", "80x", " 80", "+80", "8 0", "0x50", "--help"}) {
    refuses({text}, "not a number: '" + std::string(text) + "'");
  }
  for (const char* const text : {"-1", "65536", "99999999999999999999999"}) {
    refuses({text}, "out of range: " + std::string(text));
  }
}

TEST_CASE_TEMPLATE("an echo server says in one sentence that its port is in use, with status 1", Server,
                   selector_echo, fiber_echo) {
  const echo_program first(Server::name);
  const std::string port = std::to_string(first.port_number);
  program second(built("examples", Server::name), {port});
  const auto end = second.wait();
  CHECK(end.exit == 1);
  CHECK(end.out.empty());
  CHECK(end.err ==
        std::string(Server::name) + ": cannot listen on 127.0.0.1:" + port + ": Address already in use\n");
}

// --- out of descriptors

namespace {

// More clients than the server has descriptors for, each with something to say.
std::vector<descriptor> too_many_clients(const echo_program& server, std::size_t most) {
  std::vector<descriptor> sockets;
  for (std::size_t i = 0; i < most + 20; ++i) {
    sockets.push_back(connect_to(server.port_number));
    send_all(sockets.back(), "hello");
  }
  REQUIRE(becomes_true([&] { return descriptors_of(server) == most; }));
  CHECK(receive(sockets.front(), 5) == "hello");
  return sockets;
}

steady::duration answered_in(const descriptor& socket) {
  const auto begin = steady::now();
  CHECK(receive(socket, 5) == "hello");
  return steady::now() - begin;
}

}  // namespace

TEST_CASE_TEMPLATE("an echo server without descriptors waits without CPU, and goes on when a connection ends",
                   Server, selector_echo, fiber_echo) {
  constexpr std::size_t most = 32;
  echo_program server(Server::name, "0", [] { limit_descriptors(most, most); });
  auto sockets = too_many_clients(server, most);
  const auto cpu = server.cpu();
  const auto sleeps = sleeps_while_idle(server);
  std::printf("note: %s out of descriptors: %llu sleeps in 100 ms\n", Server::name,
              static_cast<unsigned long long>(sleeps));
  CHECK(sleeps <= 3);
  CHECK(server.cpu() - cpu < 20ms);

  // One goes, and the next one in the queue is served: at once, not when the server has had another look.
  const auto waiting = std::ranges::find_if(sockets.begin() + 1, sockets.end(), [](const descriptor& socket) {
    pollfd asked{socket.get(), POLLIN, 0};
    return ::poll(&asked, 1, 0) == 0;
  });
  REQUIRE(sockets.end() - waiting >= 20);
  auto fastest = steady::duration::max();
  auto leaving = sockets.begin();
  for (auto next = waiting; next != sockets.end(); ++next) {
    (leaving++)->close();
    const auto time = answered_in(*next);
    CHECK(time < 1s);
    fastest = std::min(fastest, time);
  }
  CHECK(fastest < 50ms);

  server.signal(SIGTERM);
  const auto end = server.wait();
  CHECK(end.exit == 0);
  CHECK(end.out.ends_with("served 52 connections, 260 bytes\n"));
  // Once, however often it ran short meanwhile.
  CHECK_MESSAGE(std::ranges::count(end.err, '\n') == (Server::tells_of_shortage ? 1 : 0), end.err);
  CHECK((end.err.find("Too many open files") != std::string::npos) == Server::tells_of_shortage);
}

TEST_CASE_TEMPLATE(
    "an echo server without descriptors goes on when there are some, and no connection has ended", Server,
    selector_echo, fiber_echo) {
  constexpr std::size_t most = 32;
  echo_program server(Server::name, "0", [] { limit_descriptors(200, 200); });
  const auto limit = [&](rlim_t soft) {
    const rlimit wanted{soft, 200};
    require_ok(::prlimit(server.pid(), RLIMIT_NOFILE, &wanted, nullptr), "prlimit");
  };
  limit(most);  // from outside, where the server does not see it
  const auto sockets = too_many_clients(server, most);
  limit(200);
  CHECK(answered_in(sockets.back()) < 1s);
}

TEST_CASE("fiber_echo says anew that descriptors are short when for 5 seconds they were not") {
  constexpr std::size_t most = 32;
  const descriptor said(require_ok(::memfd_create("stderr", MFD_CLOEXEC), "memfd_create"));
  const auto lines = [&] {
    std::string text(4096, ' ');
    require_ok(static_cast<int>(::pread(said.get(), text.data(), text.size(), 0)), "pread");
    return std::ranges::count(text, '\n');
  };
  echo_program server("fiber_echo", "0", [&] {
    limit_descriptors(most, most);
    ::dup2(said.get(), STDERR_FILENO);
  });
  const auto run_short = [&](std::ptrdiff_t lines_then) {
    const auto sockets = too_many_clients(server, most);
    REQUIRE(becomes_true([&] { return lines() >= lines_then; }));
    CHECK(lines() == lines_then);
  };
  // The last in the queue is answered, so the server has seen the end of the shortage.
  const auto recover = [&] { REQUIRE(echo(connect_to(server.port_number), "x") == "x"); };
  run_short(1);
  recover();
  run_short(1);
  recover();
  ::usleep(5'100'000);
  run_short(2);

  server.signal(SIGTERM);
  CHECK(server.wait().exit == 0);
  CHECK(lines() == 2);
}

TEST_CASE("fiber_echo takes all the descriptors that it may have") {
  echo_program server("fiber_echo", "0", [] { limit_descriptors(20, 100); });
  std::vector<descriptor> sockets;
  for (int i = 0; i < 80; ++i) {
    sockets.push_back(connect_to(server.port_number));
    REQUIRE(echo(sockets.back(), "x") == "x");
  }
  server.signal(SIGTERM);
  CHECK(server.wait().err.empty());
}

// --- more of its peers

TEST_CASE_TEMPLATE("an echo server ends when told, though its peers neither read nor hang up", Server,
                   selector_echo, fiber_echo) {
  echo_program server(Server::name);
  std::vector<descriptor> sockets;
  for (int i = 0; i < 50; ++i) {
    sockets.push_back(connect_to(server.port_number, 4096));
    REQUIRE(echo(sockets.back(), "x") == "x");
  }
  const std::string payload = random_bytes(32 << 20);
  for (std::size_t i = 0; i < 3; ++i) {
    REQUIRE(send_until_stuck(sockets[i], payload) < payload.size());
  }
  const auto told = steady::now();
  server.signal(SIGTERM);
  const auto end = server.wait();
  CHECK(steady::now() - told < 3s);
  CHECK(end.exit == 0);
  CHECK(end.err.empty());
  CHECK(end.out.find("served 50 connections") != std::string::npos);
}

TEST_CASE("fiber_echo sends small answers at once: its connections have TCP_NODELAY") {
  const echo_program server("fiber_echo");
  const descriptor socket = connect_to(server.port_number);
  CHECK(echo(socket, "x") == "x");
  const descriptor process(static_cast<int>(::syscall(SYS_pidfd_open, server.pid(), 0)));
  require_ok(process.get(), "pidfd_open");
  int connections = 0;
  for (const auto& entry :
       std::filesystem::directory_iterator("/proc/" + std::to_string(server.pid()) + "/fd")) {
    const int number = std::stoi(entry.path().filename());
    const descriptor its(static_cast<int>(::syscall(SYS_pidfd_getfd, process.get(), number, 0)));
    require_ok(its.get(), "pidfd_getfd");
    sockaddr_in peer{};
    socklen_t size = sizeof peer;
    if (::getpeername(its.get(), reinterpret_cast<sockaddr*>(&peer), &size) == 0) {
      ++connections;
      int on = 0;
      size = sizeof on;
      require_ok(::getsockopt(its.get(), IPPROTO_TCP, TCP_NODELAY, &on, &size), "TCP_NODELAY");
      CHECK(on != 0);
    }
  }
  CHECK(connections == 1);
}

TEST_CASE_TEMPLATE("an echo server serves socat, which is not ours, many at once and up to the end of file",
                   Server, selector_echo, fiber_echo) {
  constexpr const char* path = "/usr/bin/socat";
  REQUIRE_MESSAGE(std::filesystem::exists(path), "there is no socat here; ./dev test installs it");
  echo_program server(Server::name);
  // -t: how long it waits for the rest of the answer when it has said all.
  const std::vector<std::string> arguments{"-t", std::to_string(patience.count()), "-",
                                           "TCP:127.0.0.1:" + std::to_string(server.port_number)};
  std::vector<std::unique_ptr<program>> clients;
  const auto text = [](std::size_t i) { return random_bytes(1 + i * 40'001); };
  for (std::size_t i = 0; i < 12; ++i) {
    const descriptor file(require_ok(::memfd_create("input", MFD_CLOEXEC), "memfd_create"));
    REQUIRE(::write(file.get(), text(i).data(), text(i).size()) == static_cast<ssize_t>(text(i).size()));
    require_ok(static_cast<int>(::lseek(file.get(), 0, SEEK_SET)), "lseek");
    clients.push_back(std::make_unique<program>(path, arguments, [&] { ::dup2(file.get(), STDIN_FILENO); }));
  }
  for (std::size_t i = 0; i < clients.size(); ++i) {
    CAPTURE(i);
    const auto end = clients[i]->wait();
    CHECK(end.exit == 0);
    CHECK(end.err.empty());
    CHECK((end.out == text(i)));
  }
  server.signal(SIGTERM);
  CHECK(server.wait().out.ends_with("served 12 connections, 2640078 bytes\n"));
}
