// The handler for SIGSEGV that names overflows, and the signal stack, in forked children: with a hub of their
// own, and without one.
#include <annulet/hub/hub.hpp>
#include <annulet/runtime/fiber.hpp>

#include "support/child.hpp"
#include "support/fault_handlers.hpp"
#include "support/overflowing.hpp"

#include <doctest/doctest.h>

#include <csignal>
#include <future>
#include <thread>

#include <sys/wait.h>
#include <unistd.h>

using annulet::spawn;
using namespace annulet_test;

namespace {

// Whether fn() is true in a child of the process that is a child already.
template <class Fn>
bool in_grandchild(Fn&& fn) {
  const pid_t child = ::fork();
  if (child == 0) {
    ::_exit(fn() ? 0 : 1);
  }
  int status = -1;
  return ::waitpid(child, &status, 0) == child && status == 0;
}

bool has_the_programs() { return of_segv().sa_sigaction == exit_with_42; }

}  // namespace

TEST_CASE("a forked child has the program's handler, for it has no hub, and the signal stack stays") {
  const child_end end = alone([] {
    handle_with(exit_with_42);
    const annulet::hub home;
    std::promise<void> made, over;
    std::thread other([&] {
      const annulet::hub its;
      made.set_value();
      over.get_future().wait();
    });
    made.get_future().wait();
    const void* const room = signal_stack().ss_sp;
    const auto as_it_was = [room] { return signal_stack().ss_sp == room && signal_stack().ss_flags == 0; };
    const bool child = in_grandchild([&] { return has_the_programs() && as_it_was(); });
    bool from_fiber = false;
    spawn([&] { from_fiber = in_grandchild([&] { return has_the_programs() && as_it_was(); }); }).join();
    const bool with_own = in_grandchild([&] {
      bool right = true;
      for (int round = 0; round < 3; ++round) {
        {
          const annulet::hub own;
          right = right && !has_the_programs() && as_it_was();
        }
        right = right && has_the_programs() && as_it_was();
      }
      return right;
    });
    over.set_value();
    other.join();
    return child && from_fiber && with_own && !has_the_programs() && as_it_was();
  });
  CAPTURE(end.said);
  CHECK(end.exit == 0);
}

TEST_CASE("a forked child's own hub names overflows, and its parent's goes on to") {
  for (const bool in_parent : {false, true}) {
    const child_end end = alone([in_parent] {
      const annulet::hub home;
      const auto overflow = [] { spawn({.name = "deep"}, [] { run_over(way_down::recursion, 1); }).join(); };
      const bool child = in_grandchild([&] {
        const annulet::hub own;
        if (!in_parent) {
          overflow();
        }
        return true;
      });
      if (in_parent) {
        overflow();
      }
      return !child;
    });
    CAPTURE(in_parent);
    CAPTURE(end.said);
    CHECK((in_parent ? end.signal == SIGSEGV : end.exit == 0));
    CHECK(count_of(end.said, "\"deep\" (spawned at ") == 1);
  }
}
