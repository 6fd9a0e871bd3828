// Waiting for children: how they have ended, what ends the wait, and that no status and no child is lost.
#include <annulet/hub/child.hpp>
#include <annulet/hub/hub_core.hpp>

#include "support/io_calls.hpp"
#include "support/processes.hpp"

#include <doctest/doctest.h>

#include <cerrno>
#include <csignal>
#include <string>
#include <thread>
#include <vector>

#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

using namespace annulet::test;
using annulet::exit_status;
using annulet::hub;
using annulet::spawn;
using annulet::wait_child;
namespace this_fiber = annulet::this_fiber;

TEST_CASE("a child that exits, and one that a signal ends, are told apart, with code and signal") {
  const hub home;
  const exit_status exited = wait_child(forked([] { ::_exit(7); }), limit);
  CHECK(exited.code() == 7);
  CHECK(exited.signal() == std::nullopt);
  CHECK_FALSE(exited.success());
  CHECK(exited.text() == "exited with 7");
  CHECK(wait_child(forked([] { ::_exit(0); }), limit).success());

  const pid_t sleeper = forked([] { ::pause(); });
  auto waiting = spawn_parked([&] { return wait_child(sleeper); });
  CHECK_FALSE(waiting.done());
  ::kill(sleeper, SIGKILL);
  REQUIRE(waiting.join(limit));
  const exit_status killed = waiting.get();
  CHECK(killed.signal() == SIGKILL);
  CHECK(killed.code() == std::nullopt);
  CHECK_FALSE(killed.success());
  CHECK_FALSE(killed.dumped_core());
  CHECK(killed.text() == "killed by signal 9");
  CHECK_FALSE(has_children());
}

TEST_CASE("that a core was dumped is said") {
  CHECK(exit_status(exit_status::cause::dumped, SIGSEGV).dumped_core());
  CHECK(exit_status(exit_status::cause::dumped, SIGSEGV).signal() == SIGSEGV);
  CHECK(exit_status(exit_status::cause::dumped, SIGSEGV).text() == "killed by signal 11, core dumped");
}

TEST_CASE("a stopped child has not ended") {
  const hub home;
  const pid_t child = forked([] { ::pause(); });
  ::kill(child, SIGSTOP);
  CHECK(passes_deadline([&] { return wait_child(child, 20ms); }));
  ::kill(child, SIGKILL);
  CHECK(wait_child(child, limit).signal() == SIGKILL);
}

TEST_CASE("after a deadline nothing was taken, and the child can be waited for again") {
  const hub home;
  const std::size_t before = open_descriptors();
  const pid_t child = forked([] { ::pause(); });
  CHECK(passes_deadline([&] { return wait_child(child, 0s); }));
  CHECK(passes_deadline([&] { return wait_child(child, 20ms); }));
  CHECK(has_children());
  ::kill(child, SIGTERM);
  REQUIRE(await_zombie(child));
  CHECK(wait_child(child, 0s).signal() == SIGTERM);  // the look finds it
  CHECK_FALSE(has_children());
  CHECK(open_descriptors() == before);
}

TEST_CASE("a fiber that is killed while it waits takes nothing") {
  const hub home;
  const std::size_t before = open_descriptors();
  const pid_t child = forked([] { ::pause(); });
  auto waiting = spawn_parked([&] { (void)wait_child(child); });
  waiting.kill();
  REQUIRE(waiting.join(limit));
  CHECK(has_children());
  CHECK(open_descriptors() == before);
  ::kill(child, SIGKILL);
  CHECK(wait_child(child, limit).signal() == SIGKILL);
}

TEST_CASE("a kill that comes after the child's end stays pending, and the status is returned") {
  const hub home;
  const pid_t child = forked([] { ::pause(); });
  std::optional<exit_status> status;
  bool killed_later = false;
  auto waiting = spawn_parked([&] {
    status = wait_child(child);
    killed_later = is_killed_in([] {
      this_fiber::sleep_for(1h);
      return 0;
    });
  });
  ::kill(child, SIGKILL);
  REQUIRE(await_zombie(child));
  annulet::detail::hub_core::current()->look();  // the waiter is woken, and its fiber has yet to run
  waiting.kill();
  REQUIRE(waiting.join(limit));
  REQUIRE(status);
  CHECK(status->signal() == SIGKILL);
  CHECK(killed_later);
  CHECK_FALSE(has_children());
}

TEST_CASE("who is no child is ECHILD by its number, and numbers that name none or many are EINVAL") {
  const hub home;
  for (const pid_t other : {::getppid(), ::getpid(), pid_t{1}}) {
    const auto refused = failure_of([&] { return wait_child(other); });
    CHECK(refused.error == ECHILD);
    CHECK(refused.names("wait_child", other));
  }
  const pid_t child = forked([] { ::_exit(3); });
  for (const pid_t wrong : {-1, 0, -child}) {
    CHECK(failure_of([&] { return wait_child(wrong); }).error == EINVAL);
  }
  CHECK(wait_child(child, limit).code() == 3);
  const auto gone = failure_of([&] { return wait_child(child); });
  CHECK(gone.error == ECHILD);
  CHECK(gone.names("wait_child", child));
}

TEST_CASE("of several fibers that wait for one child one has its status, and the others are told") {
  const hub home;
  const pid_t child = forked([] { ::pause(); });
  int told = 0;
  int refused = 0;
  std::vector<annulet::fiber<void>> waiting;
  for (int i = 0; i < 3; ++i) {
    waiting.push_back(spawn_parked([&] {
      const auto failed = failure_of([&] { return wait_child(child); });
      ++(failed.error == 0 ? told : refused);
      CHECK((failed.error == 0 || failed.error == ECHILD));
    }));
  }
  ::kill(child, SIGKILL);
  for (auto& each : waiting) {
    REQUIRE(each.join(limit));
    each.get();
  }
  CHECK(told == 1);
  CHECK(refused == 2);
}

TEST_CASE("children of others stay theirs, and SIGCHLD is not touched") {
  const hub home;
  struct sigaction before {};
  ::sigaction(SIGCHLD, nullptr, &before);
  const pid_t others = forked([] { ::_exit(5); });
  CHECK(wait_child(forked([] { ::_exit(0); }), limit).success());
  struct sigaction after {};
  ::sigaction(SIGCHLD, nullptr, &after);
  const bool same = before.sa_handler == after.sa_handler;
  CHECK(same);
  int status = 0;
  CHECK(::waitpid(others, &status, 0) == others);
  CHECK(WEXITSTATUS(status) == 5);
}

TEST_CASE("a thousand children that end in any order each give their own status") {
  const hub home;
  const std::size_t before = open_descriptors();
  std::vector<annulet::fiber<void>> waiting;
  int right = 0;
  for (int i = 0; i < 1000; ++i) {
    const pid_t child = forked([i] { ::_exit(i % 251); });
    waiting.push_back(spawn([&right, child, i] { right += wait_child(child).code() == i % 251 ? 1 : 0; }));
    if (i % 50 == 0) {
      this_fiber::yield();
    }
  }
  for (auto& each : waiting) {
    REQUIRE(each.join(limit));
  }
  CHECK(right == 1000);
  CHECK_FALSE(has_children());
  CHECK(open_descriptors() == before);
}

TEST_CASE("where no descriptor is left the child stays, to be waited for later") {
  const hub home;
  const pid_t child = forked([] { ::_exit(4); });
  rlimit usual{};
  require_ok(::getrlimit(RLIMIT_NOFILE, &usual), "getrlimit");
  const rlimit none{0, usual.rlim_max};
  require_ok(::setrlimit(RLIMIT_NOFILE, &none), "setrlimit");
  const auto refused = failure_of([&] { return wait_child(child); });
  require_ok(::setrlimit(RLIMIT_NOFILE, &usual), "setrlimit");
  CHECK(refused.error == EMFILE);
  CHECK(wait_child(child, limit).code() == 4);
}
