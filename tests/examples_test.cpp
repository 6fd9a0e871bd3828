// The examples, run as a user runs them.
#include "support/program.hpp"
#include "support/tcp_client.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <cstdio>
#include <iterator>
#include <sstream>
#include <stdexcept>

#include <linux/capability.h>
#include <sched.h>
#include <sys/resource.h>

namespace {

using namespace annulet::test;
using namespace std::chrono_literals;
using steady = std::chrono::steady_clock;

// --- clients of selector_echo

// selector_echo, listening.
struct echo_program : program {
  explicit echo_program(
      const std::string& port = "0", const std::function<void()>& prepare = [] {})
      : program(built("examples", "selector_echo"), {port}, prepare) {
    constexpr std::string_view before = "listening on 127.0.0.1:";
    const auto first = line();
    if (!first || !first->starts_with(before)) {
      throw std::runtime_error("selector_echo does not listen: " + wait().err);
    }
    port_number = static_cast<std::uint16_t>(std::stoul(first->substr(before.size())));
  }

  std::uint16_t port_number = 0;
};

std::size_t descriptors_of(const program& p) {
  const auto folder = "/proc/" + std::to_string(p.pid()) + "/fd";
  return static_cast<std::size_t>(std::distance(std::filesystem::directory_iterator(folder), {}));
}

// Whether it comes true in time.
template <class Condition>
bool becomes_true(Condition condition) {
  for (const auto until = steady::now() + patience; steady::now() < until;) {
    if (condition()) {
      return true;
    }
    ::usleep(1000);
  }
  return false;
}

void limit_descriptors(rlim_t soft, rlim_t hard) {
  const rlimit limit{soft, hard};
  ::setrlimit(RLIMIT_NOFILE, &limit);
}

std::size_t lines_in(std::string_view text) {
  return static_cast<std::size_t>(std::ranges::count(text, '\n'));
}

}  // namespace

TEST_CASE("selector_echo sends back what it is sent, then an end of file for an end of file") {
  echo_program server;
  const descriptor socket = connect_to(server.port_number);
  CHECK(echo(socket, "hello") == "hello");
  CHECK(echo(socket, random_bytes(5000)) == random_bytes(5000));

  const std::string last = random_bytes(30'000);
  send_all(socket, last);
  require_ok(::shutdown(socket.get(), SHUT_WR), "shutdown");
  CHECK((receive(socket, last.size() + 1) == last));
}

TEST_CASE("selector_echo serves 100 connections at once, each with its own bytes") {
  echo_program server;
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

TEST_CASE("selector_echo keeps what a socket does not take, waits without CPU, and reads no more meanwhile") {
  echo_program server;
  const descriptor slow = connect_to(server.port_number, 4096);
  // More than all buffers between the two can hold, so it gets stuck before all is sent.
  const std::string payload = random_bytes(32 << 20);
  std::size_t sent = 0;
  const auto send_some = [&](int milliseconds) {
    pollfd asked{slow.get(), POLLOUT, 0};
    if (require_ok(::poll(&asked, 1, milliseconds), "poll") == 0) {
      return false;
    }
    const auto took =
        ::send(slow.get(), payload.data() + sent, std::min<std::size_t>(payload.size() - sent, 65536),
               MSG_DONTWAIT | MSG_NOSIGNAL);
    require_ok(static_cast<int>(took), "send");
    sent += static_cast<std::size_t>(took);
    return true;
  };
  while (sent < payload.size() && send_some(300)) {
  }
  REQUIRE(sent < payload.size());

  // Whoever reads gets his bytes all the same, and waiting for the one who does not costs nothing.
  const descriptor other = connect_to(server.port_number);
  CHECK(echo(other, "meanwhile") == "meanwhile");
  const auto before = server.cpu();
  ::usleep(300'000);
  CHECK(server.cpu() - before < 6ms);
  const auto memory = proc_value("/proc/" + std::to_string(server.pid()) + "/status", "VmRSS");
  CHECK(memory > 0);
  CHECK(memory < 16 * 1024);  // KiB

  std::string back;
  while (back.size() < payload.size()) {
    if (sent < payload.size()) {
      send_some(0);
    }
    std::array<char, 65536> piece;
    const auto got = ::recv(slow.get(), piece.data(), piece.size(), sent < payload.size() ? MSG_DONTWAIT : 0);
    REQUIRE((got > 0 || (got < 0 && errno == EAGAIN && sent < payload.size())));
    back.append(piece.data(), static_cast<std::size_t>(std::max<ssize_t>(got, 0)));
  }
  CHECK((back == payload));
}

TEST_CASE("selector_echo goes on when peers reset their connections") {
  echo_program server;
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

TEST_CASE("selector_echo ends on SIGINT and SIGTERM with status 0, says what it served, and frees its port") {
  std::string port = "0";
  for (const int number : {SIGINT, SIGTERM, SIGINT}) {
    echo_program server(port);
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

TEST_CASE("selector_echo says now and then what it has served so far") {
  echo_program server;
  const descriptor socket = connect_to(server.port_number);
  CHECK(echo(socket, "12345") == "12345");
  std::optional<std::string> said;
  do {
    said = server.line();
  } while (said && *said != "so far 1 connections, 5 bytes");
  CHECK(said.has_value());
}

TEST_CASE("selector_echo refuses bad arguments in words, with status 2") {
  const auto refuses = [](const std::vector<std::string>& arguments, const std::string& why) {
    program refused(built("examples", "selector_echo"), arguments);
    const auto end = refused.wait();
    CHECK(end.exit == 2);
    CHECK(end.out.empty());
    CHECK_MESSAGE(end.err.find(why) != std::string::npos, end.err);
    CHECK(end.err.find("usage: selector_echo PORT") != std::string::npos);
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

TEST_CASE("selector_echo says in one sentence that its port is in use, with status 1") {
  const echo_program first;
  const std::string port = std::to_string(first.port_number);
  program second(built("examples", "selector_echo"), {port});
  const auto end = second.wait();
  CHECK(end.exit == 1);
  CHECK(end.out.empty());
  CHECK(end.err == "selector_echo: cannot listen on 127.0.0.1:" + port + ": Address already in use\n");
}

TEST_CASE("selector_echo without descriptors waits without CPU, and accepts again once there are some") {
  constexpr std::size_t most = 32;
  echo_program server("0", [] { limit_descriptors(most, 200); });
  std::vector<descriptor> sockets;
  for (std::size_t i = 0; i < most + 20; ++i) {
    sockets.push_back(connect_to(server.port_number));
    send_all(sockets.back(), "hello");
  }
  REQUIRE(becomes_true([&] { return descriptors_of(server) == most; }));
  CHECK(receive(sockets.front(), 5) == "hello");
  const auto before = server.cpu();
  ::usleep(500'000);
  const auto used = server.cpu() - before;
  std::printf("note: selector_echo out of descriptors for 500 ms: %.2f ms of CPU\n",
              std::chrono::duration<double, std::milli>(used).count());
  CHECK(used < 10ms);

  // One goes, and the next one in the queue is served.
  const auto answered_in = [](const descriptor& socket) {
    const auto begin = steady::now();
    CHECK(receive(socket, 5) == "hello");
    return steady::now() - begin;
  };
  const auto waiting = std::ranges::find_if(sockets.begin() + 1, sockets.end(), [](const descriptor& socket) {
    pollfd asked{socket.get(), POLLIN, 0};
    return ::poll(&asked, 1, 0) == 0;
  });
  REQUIRE(waiting != sockets.end());
  sockets.front().close();
  CHECK(answered_in(*waiting) < 1s);

  // The same when they come from elsewhere, and no connection ends.
  REQUIRE(becomes_true([&] { return descriptors_of(server) == most; }));
  const rlimit plenty{200, 200};
  require_ok(::prlimit(server.pid(), RLIMIT_NOFILE, &plenty, nullptr), "prlimit");
  CHECK(answered_in(sockets.back()) < 1s);
}

// --- the demo

namespace {

program_end demo(
    const std::vector<std::string>& arguments, const std::function<void()>& prepare = [] {}) {
  program run(built("examples", "demo"), arguments, prepare);
  return run.wait();
}

// A row of the table: the values after its name; empty where there is no such row.
std::vector<std::string> row(const std::string& text, const std::string& name) {
  std::istringstream lines(text);
  for (std::string line; std::getline(lines, line);) {
    if (line.starts_with(name + "  ")) {
      std::istringstream rest(line.substr(name.size()));
      return {std::istream_iterator<std::string>(rest), {}};
    }
  }
  return {};
}

}  // namespace

TEST_CASE("the demo serves all its connections on both sides, and ends with a table") {
  const auto end = demo({"--quick"});
  CHECK_MESSAGE(end.exit == 0, end.err);
  CHECK(end.err.empty());
  CHECK(end.out.find("\nturn 6 of 6") != std::string::npos);
  CHECK(end.out.find('\r') == std::string::npos);
  CHECK(end.out.find('\033') == std::string::npos);
  CHECK(row(end.out, "connections served") == std::vector<std::string>{"3,000", "3,000"});
  for (const char* const name : {"echoes", "bytes, all right", "CPU an event", "system calls an event"}) {
    CAPTURE(name);
    REQUIRE(row(end.out, name).size() >= 2);
    CHECK(row(end.out, name).front() != "0");
  }
  CHECK(row(end.out, "ticker, late at worst").size() == 3);
  const auto note_from = end.out.find("connections served");
  std::istringstream table(end.out.substr(std::min(note_from, end.out.size())));
  for (std::string line; std::getline(table, line);) {
    std::printf("note: %s\n", line.c_str());
  }
}

TEST_CASE("the demo runs with any number of connections, and where there is but one CPU") {
  const auto end = demo({"--connections", "7", "--quick"}, [] {
    cpu_set_t one;
    CPU_ZERO(&one);
    CPU_SET(::sched_getcpu(), &one);
    ::sched_setaffinity(0, sizeof one, &one);
  });
  CHECK_MESSAGE(end.exit == 0, end.err);
  CHECK(end.out.find("share the one CPU") != std::string::npos);
  CHECK(row(end.out, "connections served") == std::vector<std::string>{"21", "21"});
}

TEST_CASE("the demo says why where it may not count system calls, and does the rest") {
  const auto end = demo({"--connections", "7", "--quick"}, [] {
    ::prctl(PR_CAPBSET_DROP, CAP_SYS_ADMIN);
    ::prctl(PR_CAPBSET_DROP, CAP_PERFMON);
  });
  CHECK_MESSAGE(end.exit == 0, end.err);
  const auto calls = row(end.out, "system calls an event");
  REQUIRE(calls.size() == 2);
  const bool says_why = end.out.find("(system calls could not be counted: ") != std::string::npos;
  CHECK((calls[0] == "-") == says_why);
  CHECK((calls[1] == "-") == says_why);
}

TEST_CASE("the demo refuses bad arguments in words, with status 2") {
  const std::vector<std::vector<std::string>> all = {{"--fast"},
                                                     {"7"},
                                                     {"--connections"},
                                                     {"--connections", "0"},
                                                     {"--connections", "10001"},
                                                     {"--connections", ""},
                                                     {"--connections", "many"}};
  for (const auto& arguments : all) {
    const auto end = demo(arguments);
    CHECK(end.exit == 2);
    CHECK(end.out.empty());
    CHECK_MESSAGE(end.err.find("usage: demo") != std::string::npos, end.err);
  }
}

TEST_CASE("the demo with too few descriptors says so in one sentence, with status 1") {
  const auto end = demo({"--quick"}, [] { limit_descriptors(400, 500); });
  CHECK(end.exit == 1);
  CHECK(end.out.empty());
  CHECK(lines_in(end.err) == 1);
  CHECK_MESSAGE(end.err.find("descriptors, and the process may have no more than 500") != std::string::npos,
                end.err);
}

TEST_CASE("the demo's client ends when the demo is killed") {
  // Orphans come to this process.
  require_ok(::prctl(PR_SET_CHILD_SUBREAPER, 1), "prctl");
  {
    program run(built("examples", "demo"), {"--connections", "100", "--quick"});
    std::optional<std::string> said;
    do {
      said = run.line();
    } while (said && !said->starts_with("turn 1 of 6"));
    REQUIRE(said.has_value());
    run.signal(SIGKILL);
    CHECK(run.wait().exit == -1);
  }
  pid_t orphan = 0;
  CHECK(becomes_true([&] { return (orphan = ::waitpid(-1, nullptr, WNOHANG)) != 0; }));
  CHECK(orphan > 0);
  require_ok(::prctl(PR_SET_CHILD_SUBREAPER, 0), "prctl");
}
