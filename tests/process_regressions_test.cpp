// What once went wrong with children: streams under numbers that this process has closed, statuses that
// others have taken, a child of the parent's in a forked process.
#include <annulet/hub/process.hpp>
#include <annulet/hub/run_process.hpp>

#include "support/child.hpp"
#include "support/forking.hpp"
#include "support/io_calls.hpp"
#include "support/processes.hpp"

#include <doctest/doctest.h>

#include <cerrno>
#include <csignal>
#include <cstdio>
#include <optional>
#include <string>

#include <fcntl.h>
#include <sys/resource.h>
#include <unistd.h>

using namespace annulet::test;
using annulet::child_stream;
using annulet::hub;
using annulet::process;
using annulet::process_options;
using annulet::run_process;
using annulet::spawn;
using annulet_test::in_child;

namespace {

bool expect(bool what, const char* words) {
  if (!what) {
    std::fprintf(stderr, "wrong: %s\n", words);
  }
  return what;
}

}  // namespace

// The first of all: the stacks of threads that have ended would serve new ones, whatever the limit.
TEST_CASE("where no thread is to be had the error names the command") {
  const auto end = in_child([] {
    const hub home;
    rlimit before{};
    require_ok(::getrlimit(RLIMIT_AS, &before), "getrlimit");
    const rlimit none{1, before.rlim_max};
    require_ok(::setrlimit(RLIMIT_AS, &none), "setrlimit");
    const auto refused = failure_of([] { return process({.command = {"true"}}); });
    require_ok(::setrlimit(RLIMIT_AS, &before), "setrlimit");
    return expect(refused.error == EAGAIN, "EAGAIN") &&
           expect(refused.words.find("process(true)") != std::string::npos, refused.words.c_str());
  });
  CAPTURE(end.said);
  CHECK(end.exit == 0);
}

TEST_CASE("a child starts in its directory though that was opened under a stream's number") {
  const auto end = in_child([] {
    const hub home;
    ::close(STDIN_FILENO);
    const auto done = run_process({.command = {"pwd", "-P"}, .directory = "/usr"}, {}, limit);
    return expect(done.output == "/usr\n", done.output.c_str());
  });
  CAPTURE(end.said);
  CHECK(end.exit == 0);
}

TEST_CASE("what a hub has opened under a stream's number is not inherited as that stream") {
  const auto end = in_child([] {
    const descriptor listing = make_file();
    for (const int number : {STDIN_FILENO, STDOUT_FILENO}) {
      ::close(number);
    }
    const hub home;
    process child(
        {.command = {"sh", "-c", "ls -l /proc/$$/fd >&3 3>&-"}, .errors = child_stream::as_output()});
    const bool is_right = expect(child.wait(limit).code() == 2, "there is no descriptor 3");
    process lists({.command = {"sh", "-c", "ls -l /proc/$$/fd"},
                   .output = child_stream::of(listing.get()),
                   .errors = child_stream::nothing()});
    if (!expect(lists.wait(limit).success(), "the listing")) {
      return false;
    }
    std::string text(4096, '\0');
    text.resize(static_cast<std::size_t>(::pread(listing.get(), text.data(), text.size(), 0)));
    const bool is_clean = text.find("io_uring") == std::string::npos &&
                          text.find("eventpoll") == std::string::npos &&
                          text.find("eventfd") == std::string::npos;
    return expect(is_clean, text.c_str()) && is_right;
  });
  CAPTURE(end.said);
  CHECK(end.exit == 0);
}

TEST_CASE("a child whose errors go where an output that is not there goes has neither") {
  const auto end = in_child([] {
    const descriptor file = make_file();
    const hub home;
    require_ok(::dup3(file.get(), STDOUT_FILENO, O_CLOEXEC), "dup3");
    process child({.command = {"sh", "-c", "echo out; echo err >&2"}, .errors = child_stream::as_output()});
    (void)child.wait(limit);
    std::string text(64, '\0');
    return expect(::pread(file.get(), text.data(), text.size(), 0) == 0, "it has written");
  });
  CAPTURE(end.said);
  CHECK(end.exit == 0);
}

TEST_CASE("where SIGCHLD is ignored a child runs, and its wait says that its status is gone") {
  const auto end = in_child([] {
    std::signal(SIGCHLD, SIG_IGN);
    const hub home;
    for (int i = 0; i < 300; ++i) {  // some have ended before the constructor can ask for them
      process child({.command = {"true"}});
      const auto refused = failure_of([&] { return child.wait(limit); });
      const std::string name = "process::wait(" + std::to_string(child.pid()) + ")";
      if (!expect(refused.error == ECHILD, "wait says ECHILD") ||
          !expect(refused.words.find(name) != std::string::npos, "and names it") ||
          !expect(!child.kill(), "nobody is sent a signal") ||
          !expect(failure_of([&] { return run_process({.command = {"true"}}); }).error == ECHILD, "run")) {
        return false;
      }
    }
    return true;
  });
  CAPTURE(end.said);
  CHECK(end.exit == 0);
}

TEST_CASE("a process that cannot be released keeps its status") {
  const hub home;
  process child({.command = {"sh", "-c", "exit 3"}});
  CHECK(child.wait(limit).code() == 3);
  const pid_t number = child.pid();
  const auto refused = failure_of([&] { return child.release(); });
  CHECK(refused.error == ECHILD);
  CHECK(refused.words.find("process::release(" + std::to_string(number) + ")") != std::string::npos);
  CHECK(child.pid() == number);
  CHECK(child.wait(limit).code() == 3);
}

TEST_CASE("a process is its parent's: that it is destroyed in a forked child ends nobody") {
  hub home;
  std::optional<process> sleeper(process_options{.command = {"sleep", "1000"}});
  pid_t child = -1;
  spawn([&] {
    child = ::fork();
    if (child == 0) {
      try {
        (void)sleeper->kill();
        ::_exit(6);
      } catch (const annulet::hub_gone&) {
        sleeper.reset();
      }
    }
  }).join();
  CHECK(exited(status_of(child), 0));
  CHECK(passes_deadline([&] { return sleeper->wait(50ms); }));
  CHECK(sleeper->kill());
  CHECK(sleeper->wait(limit).signal() == SIGKILL);
}
