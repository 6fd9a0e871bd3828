#include <annulet/runtime/cancellation.hpp>
#include <annulet/runtime/errors.hpp>
#include <annulet/runtime/event.hpp>
#include <annulet/runtime/fiber.hpp>
#include <annulet/runtime/this_fiber.hpp>

#include "support/child.hpp"
#include "support/driven_clock.hpp"

#include <doctest/doctest.h>

#include <csignal>
#include <string>

using annulet::deadline;
using annulet::deadlock;
using annulet::event;
using annulet::spawn;
using annulet_test::child_end;
using annulet_test::driven;
using annulet_test::in_child;
namespace this_fiber = annulet::this_fiber;
using namespace std::chrono_literals;

namespace {

// What main's join says where it deadlocks, else "".
std::string deadlock_of(annulet::fiber<void>& f) {
  try {
    f.join();
  } catch (const deadlock& e) {
    return e.what();
  }
  return "";
}

bool has(const std::string& text, const std::string& words) { return text.find(words) != std::string::npos; }

}  // namespace

TEST_CASE("where all fibers wait for each other, main's park throws deadlock, which lists them") {
  driven world;
  event never;
  auto a = spawn({.name = "first"}, [&] { never.wait(); });
  auto b = spawn({.name = "second"}, [&] { a.join(); });
  auto gone = spawn({.name = "gone"}, [] {});
  const std::string what = deadlock_of(b);
  CHECK(has(what, "deadlock"));
  CHECK(has(what, "fiber 1 \"main\""));
  CHECK(has(what, "fiber 2 \"first\" (spawned at "));
  CHECK(has(what, "fiber 3 \"second\""));
  CHECK(has(what, "deadlock_test.cpp:"));
  CHECK(has(what, "parked"));
  CHECK_FALSE(has(what, "\"gone\""));
  CHECK_FALSE(has(what, ": running"));
  CHECK(world.clock.waits == 0);
  never.set();
  b.join();
}

TEST_CASE("main alone, waiting for an event nobody can set, is a deadlock, again each time") {
  driven world;
  event never;
  for (int i = 0; i < 3; ++i) {
    CHECK_THROWS_AS(never.wait(), deadlock);
  }
  this_fiber::yield();
  this_fiber::sleep_for(1ms);
  CHECK(spawn([] { return 1; }).get() == 1);
}

TEST_CASE("a deadlock leaves the waiter off the list: a later set wakes nobody by mistake") {
  driven world;
  event flag;
  CHECK_THROWS_AS(flag.wait(), deadlock);
  flag.set();
  CHECK(flag.wait());
  flag.clear();
  CHECK_THROWS_AS(flag.wait(), deadlock);
}

TEST_CASE("main can mend a deadlock and go on") {
  driven world;
  event flag;
  bool woke = false;
  auto waits = spawn([&] { woke = flag.wait(); });
  CHECK(deadlock_of(waits) != "");
  CHECK_FALSE(waits.done());
  flag.set();
  waits.join();
  CHECK(woke);
}

TEST_CASE("only main gets the deadlock, also where another fiber parked last") {
  event never, other;
  std::string who;  // those that are killed at the end write to it, too
  driven world;
  auto a = spawn([&] {
    try {
      never.wait();
    } catch (...) {
      who += "a";
      throw;
    }
  });
  auto b = spawn([&] {
    try {
      other.wait();
    } catch (...) {
      who += "b";
      throw;
    }
  });
  try {
    a.join();
  } catch (const deadlock&) {
    who += "main";
  }
  CHECK(who == "main");
}

TEST_CASE("nothing is a deadlock while a fiber sleeps, even for ever") {
  driven world;
  event flag;
  auto sleeper = spawn([&] {
    this_fiber::sleep_for(1h);
    flag.set();
  });
  CHECK(flag.wait());
  CHECK(world.clock.since_start() == 1h);
  flag.clear();
  auto for_ever = spawn([] { this_fiber::sleep_until(deadline::never()); });
  world.clock.at(2h, [&] { flag.set(); });
  CHECK(flag.wait());
  for_ever.kill();
  for_ever.join();
  CHECK_THROWS_AS((flag.clear(), flag.wait()), deadlock);
}

TEST_CASE("nothing is a deadlock while any wait, or a guard, has a deadline") {
  driven world;
  event never;
  auto waits = spawn([&] { return never.wait(1s); });
  waits.join();
  CHECK_FALSE(waits.get());
  auto guarded = spawn([&] {
    const annulet::timeout guard(1s);
    try {
      never.wait();
    } catch (const annulet::timeout_expired& e) {
      CHECK(e.is(guard));
    }
  });
  guarded.join();
  CHECK(world.clock.since_start() == 2s);
  CHECK_FALSE(never.wait(1s));
  CHECK(world.clock.since_start() == 3s);
}

TEST_CASE("nothing is a deadlock while something outside may be waited for") {
  driven world;
  event flag;
  world.clock.at(5ms, [&] { flag.set(); });
  auto outside = spawn([&] {
    annulet::detail::waiter w(world.self(), "a test");
    world.fibers.park(w, deadline::never(), annulet::detail::wakers::outside);
  });
  CHECK(flag.wait());
  outside.kill();
  outside.join();
}

TEST_CASE("nothing is a deadlock while an outside handle exists, and it is one when the last has gone") {
  driven world;
  event flag;
  world.clock.outside_handles = true;
  world.clock.at(5ms, [&] { flag.set(); });
  CHECK(flag.wait());
  flag.clear();
  world.clock.at(10ms, [&] { world.clock.outside_handles = false; });
  CHECK_THROWS_AS(flag.wait(), deadlock);
  CHECK(world.clock.since_start() == 10ms);
}

TEST_CASE("a fiber that is killed out of its sleep does not count as asleep any more") {
  event never;
  driven world;
  auto sleeper = spawn([&] {
    try {
      this_fiber::sleep_until(deadline::never());
    } catch (const annulet::fiber_killed&) {
    }
    never.wait();
  });
  this_fiber::yield();
  sleeper.kill();
  CHECK(has(deadlock_of(sleeper), "deadlock"));
}

TEST_CASE("two fibers that join each other are a deadlock that main is told of") {
  driven world;
  annulet::fiber<void> a, b;
  a = spawn([&] { b.join(); });
  b = spawn([&] { a.join(); });
  CHECK(has(deadlock_of(a), "fiber 3"));
  a.kill();
  a.join();
  b.join();
  CHECK(b.done());
}

TEST_CASE("a deadlock of which main cannot be told, for it is unwinding, ends the process with the list") {
  const child_end end = in_child([] {
    driven world;
    struct waits_for {
      event& flag;
      ~waits_for() { flag.wait(); }
    };
    event never;
    spawn({.name = "partner"}, [&] { never.wait(); }).detach();
    try {
      const waits_for unwinding{never};
      throw 1;
    } catch (int) {
    }
    return true;
  });
  CHECK(end.signal == SIGABRT);
  CHECK(end.says("deadlock"));
  CHECK(end.says("\"partner\""));
}
