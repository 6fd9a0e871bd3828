// The demo, run as a user runs it. The echo servers are in echo_servers_test.cpp.
#include "support/program.hpp"
#include "support/refused_calls.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <iterator>
#include <sstream>
#include <stdexcept>

#include <linux/capability.h>
#include <sched.h>

namespace {

using namespace annulet::test;
using namespace std::chrono_literals;

std::size_t lines_in(std::string_view text) {
  return static_cast<std::size_t>(std::ranges::count(text, '\n'));
}

program_end demo(
    const std::vector<std::string>& arguments, const std::function<void()>& prepare = [] {}) {
  program run(built("examples", "demo"), arguments, prepare);
  return run.wait();
}

// What it says of the fibers.
std::string second_act(const program_end& end) {
  const auto begin = end.out.find("\nNow ");
  return begin == std::string::npos ? std::string() : end.out.substr(begin + 1);
}

// A row of the first table: the values after its name; empty where there is no such row.
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

TEST_CASE("the demo serves all its connections on both sides, and compares them in a table") {
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

TEST_CASE("the demo's fibers serve all connections, and the demo ends with a table of them") {
  const auto end = demo({"--quick"});
  CHECK_MESSAGE(end.exit == 0, end.err);
  const std::string act = second_act(end);
  CHECK(act.starts_with("Now 1,000 connections with a fiber each"));
  CHECK(row(act, "connections served") == std::vector<std::string>{"1,000"});
  CHECK(row(act, "fibers at once") == std::vector<std::string>{"2,002"});
  for (const char* const name : {"echoes", "echoes a second", "bytes, all right", "ticker, beats of 10 ms"}) {
    CAPTURE(name);
    REQUIRE(row(act, name).size() == 1);
    CHECK(row(act, name).front() != "0");
  }
  CHECK(row(act, "ticker, late at worst").size() == 2);
  CHECK(row(act, "CPU an echo, both sides").size() == 2);
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
  CHECK(row(second_act(end), "connections served") == std::vector<std::string>{"7"});
  CHECK(end.out.find("takes only") == std::string::npos);
}

TEST_CASE("the demo's fibers take 5,000 connections at most, and the demo says so") {
  const auto end = demo({"--connections", "5001", "--quick"});
  CHECK_MESSAGE(end.exit == 0, end.err);
  CHECK(end.out.find("\nThe second act takes only 5,000 of the 5,001 connections, ") != std::string::npos);
  CHECK(row(second_act(end), "connections served") == std::vector<std::string>{"5,000"});
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

TEST_CASE("where io_uring is refused the demo runs all the same, and says on which engine and why") {
  for (const auto& [call, name] : {std::pair{SCMP_SYS(io_uring_setup), "io_uring_setup"},
                                   {SCMP_SYS(io_uring_enter), "io_uring_enter"}}) {
    const auto end = demo({"--quick"}, [call = call] {
      ::unsetenv("ANNULET_ENGINE");
      refuse({call}, EPERM);
    });
    CHECK_MESSAGE(end.exit == 0, end.err);
    CHECK(end.out.starts_with("annulet is on epoll\n  was refused " + std::string(name) +
                              ": EPERM (Operation not permitted): "));
    CHECK(row(end.out, "connections served") == std::vector<std::string>{"3,000", "3,000"});
    CHECK(row(second_act(end), "connections served") == std::vector<std::string>{"1,000"});
  }
}

TEST_CASE("the demo says on which engine it is where the environment names it, or why it cannot be") {
  const auto on_epoll =
      demo({"--connections", "7", "--quick"}, [] { ::setenv("ANNULET_ENGINE", "epoll", 1); });
  CHECK_MESSAGE(on_epoll.exit == 0, on_epoll.err);
  CHECK(on_epoll.out.starts_with("annulet is on epoll\n7 TCP connections"));
  const auto refused = demo({"--connections", "7", "--quick"}, [] {
    ::setenv("ANNULET_ENGINE", "uring", 1);
    refuse({SCMP_SYS(io_uring_setup)}, EPERM);
  });
  CHECK(refused.exit == 1);
  CHECK(refused.out.empty());
  CHECK(lines_in(refused.err) == 1);
  CHECK_MESSAGE(refused.err.starts_with("demo: annulet: hub: io_uring_setup: EPERM: "), refused.err);
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
