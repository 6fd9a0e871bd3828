// The end of a scheduler with fibers alive.
#include <annulet/runtime/scheduler.hpp>

#include <annulet/runtime/cancellation.hpp>
#include <annulet/runtime/event.hpp>
#include <annulet/runtime/fiber.hpp>
#include <annulet/runtime/this_fiber.hpp>

#include "support/child.hpp"
#include "support/driven_clock.hpp"

#include <doctest/doctest.h>

#include <csignal>
#include <string>
#include <vector>

using annulet::event;
using annulet::spawn;
using annulet::detail::scheduler;
using annulet_test::child_end;
using annulet_test::driven;
using annulet_test::driven_clock;
using annulet_test::in_child;
namespace this_fiber = annulet::this_fiber;
using namespace std::chrono_literals;

TEST_CASE("the end kills every fiber, and waits until those have ended that take their time") {
  std::vector<std::string> ended;
  {
    driven world;
    for (const char* const name : {"sleeper", "waiter", "slow"}) {
      spawn({.name = name}, [&ended, name] {
        struct at_end {
          std::vector<std::string>& ended;
          const char* name;
          ~at_end() {
            if (std::string(name) == "slow") {
              this_fiber::sleep_for(1h);  // while it unwinds, so nothing ends this
            }
            ended.emplace_back(name);
          }
        };
        const at_end tells{ended, name};
        event never;
        if (std::string(name) == "sleeper") {
          this_fiber::sleep_for(24h);
        }
        never.wait();
      }).detach();
    }
    this_fiber::yield();
    spawn([&ended] { ended.emplace_back("ran though it had not begun"); }).detach();
  }
  CHECK(ended == std::vector<std::string>{"sleeper", "waiter", "slow"});
}

TEST_CASE("what is spawned while the scheduler ends never runs") {
  bool ran = false, spawned = false;
  {
    driven world;
    spawn([&] {
      try {
        this_fiber::sleep_for(1h);
      } catch (const annulet::fiber_killed&) {
        spawn([&] { ran = true; }).detach();
        spawned = true;
        throw;
      }
    }).detach();
    this_fiber::yield();
  }
  CHECK(spawned);
  CHECK_FALSE(ran);
}

TEST_CASE("fibers that will not end within the limit are named, and the process aborts") {
  const child_end end = in_child([] {
    driven_clock clock;
    scheduler fibers(clock, {});
    spawn({.name = "stubborn"}, [] {
      for (;;) {
        try {
          this_fiber::sleep_for(1s);
        } catch (...) {
        }
      }
    }).detach();
    spawn({.name = "meek"}, [] { this_fiber::sleep_for(1s); }).detach();
    this_fiber::yield();
    fibers.shut_down(10s);
    return true;
  });
  CHECK(end.signal == SIGABRT);
  CHECK(end.says("\"stubborn\""));
  CHECK_FALSE(end.says("\"meek\""));
}
