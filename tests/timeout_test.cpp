// The timeout guard: nesting, identity, and what is taken back.
#include <annulet/runtime/cancellation.hpp>

#include <annulet/runtime/event.hpp>
#include <annulet/runtime/fiber.hpp>
#include <annulet/runtime/this_fiber.hpp>

#include "support/child.hpp"
#include "support/driven_clock.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <array>
#include <optional>
#include <string>
#include <vector>

using annulet::deadline;
using annulet::event;
using annulet::spawn;
using annulet::timeout;
using annulet::timeout_expired;
using annulet_test::child_end;
using annulet_test::driven;
using annulet_test::in_child;
namespace this_fiber = annulet::this_fiber;
using namespace std::chrono_literals;

namespace {

// Whether fn was ended by this guard.
template <class Fn>
bool ended_by(const timeout& guard, Fn&& fn) {
  try {
    fn();
  } catch (const timeout_expired& e) {
    return e.is(guard);
  }
  return false;
}

}  // namespace

TEST_CASE("a guard ends the wait at its time, never early, once, and in the main fiber too") {
  driven world;
  timeout guard(10ms);
  CHECK_FALSE(guard.expired());
  CHECK(ended_by(guard, [] { this_fiber::sleep_for(1h); }));
  CHECK(world.clock.since_start() == 10ms);
  CHECK(guard.expired());
  this_fiber::sleep_for(1h);
  CHECK(world.clock.since_start() == 1h + 10ms);
}

TEST_CASE("a guard bounds many waits together") {
  driven world;
  const timeout guard(10ms);
  int slept = 0;
  CHECK(ended_by(guard, [&] {
    for (; slept < 100; ++slept) {
      this_fiber::sleep_for(3ms);
    }
  }));
  CHECK(slept == 3);
  CHECK(world.clock.since_start() == 10ms);
}

TEST_CASE("a guard that is destroyed or cancelled before its time has no effect") {
  driven world;
  { const timeout guard(1ms); }
  timeout cancelled(1ms);
  cancelled.cancel();
  cancelled.cancel();
  this_fiber::sleep_for(10ms);
  CHECK_FALSE(cancelled.expired());
  CHECK(world.clock.since_start() == 10ms);
}

TEST_CASE("a guard of never has no effect") {
  driven world;
  const timeout guard(deadline::never());
  event flag;
  CHECK_THROWS_AS(flag.wait(), annulet::deadlock);
  CHECK_FALSE(guard.expired());
}

TEST_CASE("a guard whose deadline is past is thrown at the next park or yield") {
  for (const deadline past : {deadline(0ms), deadline(-1s), deadline::past()}) {
    driven world;
    const timeout first(past);
    CHECK(first.expired());
    CHECK(ended_by(first, [] { this_fiber::sleep_for(1h); }));
    const timeout second(past);
    CHECK(ended_by(second, [] { this_fiber::yield(); }));
    event flag;
    const timeout third(past);
    CHECK(ended_by(third, [&] { flag.wait(); }));
    CHECK(world.clock.since_start() == 0ns);
  }
}

TEST_CASE("a guard until a time gone by ends the next wait, and no time passes") {
  driven world;
  const timeout guard(std::chrono::steady_clock::time_point(1ns));
  CHECK(ended_by(guard, [] { this_fiber::sleep_for(1h); }));
  CHECK(world.clock.since_start() == 0ns);
}

TEST_CASE(
    "nested guards of any times: the earliest is thrown first, each knows its own, inner ones go with it") {
  std::array<int, 3> order{10, 20, 30};
  do {
    driven world;
    std::vector<int> thrown;
    // The block of each guard, from the outermost; `level` guards are around.
    const auto block = [&](auto& self, std::size_t level, std::vector<const timeout*> around) -> void {
      if (level == order.size()) {
        this_fiber::sleep_for(1h);
        return;
      }
      const timeout guard(std::chrono::milliseconds{order[level]});
      around.push_back(&guard);
      try {
        self(self, level + 1, around);
      } catch (const timeout_expired& e) {
        const auto match = std::find_if(around.begin(), around.end(), [&](auto* g) { return e.is(*g); });
        REQUIRE(match != around.end());
        if (*match != &guard) {
          throw;
        }
        thrown.push_back(order[level]);
        CHECK(world.clock.since_start() == std::chrono::milliseconds(order[level]));
        this_fiber::sleep_for(100ms);  // outer ones may end this
      }
    };
    try {
      block(block, 0, {});
    } catch (const timeout_expired&) {
      FAIL("a guard's expiry got out of its own block");
    }
    // From the earliest outwards: those outside it, in order of time, as long as each is further outside.
    std::vector<int> expected;
    std::size_t inner = order.size();
    while (inner > 0) {
      const auto next = std::min_element(order.begin(), order.begin() + static_cast<long>(inner));
      expected.push_back(*next);
      inner = static_cast<std::size_t>(next - order.begin());
    }
    CHECK(thrown == expected);
  } while (std::next_permutation(order.begin(), order.end()));
}

TEST_CASE("guards of the same time are thrown in the order they were made, each once") {
  driven world;
  const timeout outer(10ms), inner(10ms);
  CHECK(ended_by(outer, [] { this_fiber::sleep_for(1h); }));
  CHECK(inner.expired());
  CHECK(ended_by(inner, [] { this_fiber::sleep_for(1h); }));
  CHECK(world.clock.since_start() == 10ms);
  this_fiber::yield();
}

TEST_CASE("a guard that expired and was not thrown yet is taken back by cancel, or by its end") {
  driven world({.look_every = 1});
  for (const bool by_cancel : {true, false}) {
    const timeout still_there(100ms);
    {
      timeout guard(10ms);
      auto other = spawn([&] { world.clock.advance(20ms); });
      event flag;
      flag.set();
      try {  // an exception in flight keeps it from being thrown at once
        struct waits {
          ~waits() { this_fiber::sleep_for(1ms); }
        };
        const waits unwinding;
        throw 1;
      } catch (int) {
      }
      CHECK(guard.expired());
      if (by_cancel) {
        guard.cancel();
        CHECK(guard.expired());
        this_fiber::yield();
      }
    }
    const auto before = world.clock.since_start();
    this_fiber::yield();
    this_fiber::sleep_for(1ms);
    CHECK(world.clock.since_start() == before + 1ms);
    CHECK(ended_by(still_there, [] { this_fiber::sleep_for(1h); }));
  }
}

TEST_CASE("of two guards that are pending, the one that is taken back is not thrown and the other is") {
  driven world;
  timeout first(0ms), second(0ms), third(0ms);
  second.cancel();
  CHECK(ended_by(first, [] { this_fiber::yield(); }));
  CHECK(ended_by(third, [] { this_fiber::yield(); }));
  this_fiber::yield();
}

TEST_CASE(
    "a value that is there before the guard expires is returned, and the guard comes at the next park") {
  driven world;
  event flag;
  bool value = false, ended = false;
  auto f = spawn([&] {
    const timeout guard(10ms);
    value = flag.wait();
    ended = ended_by(guard, [] { this_fiber::sleep_for(1h); });
  });
  this_fiber::yield();
  flag.set();
  world.clock.advance(1s);
  f.join();
  CHECK(value);
  CHECK(ended);
  CHECK(world.clock.since_start() == 1s);
}

TEST_CASE("a wait whose own deadline is the guard's ends by what was armed first: the guard") {
  driven world;
  event never;
  const timeout guard(10ms);
  CHECK(ended_by(guard, [&] { never.wait(10ms); }));
  CHECK_FALSE(never.wait(1ms));
}

TEST_CASE("a guard that expires while an exception is in flight stays pending until it is over") {
  driven world;
  bool waited = false;
  const timeout guard(5ms);
  try {
    struct waits {
      bool& done;
      ~waits() {
        this_fiber::sleep_for(10ms);
        done = true;
      }
    };
    const waits unwinding{waited};
    throw 1;
  } catch (int) {
  }
  CHECK(waited);
  CHECK(world.clock.since_start() == 10ms);
  CHECK(ended_by(guard, [] { this_fiber::yield(); }));
}

TEST_CASE("a guard of one fiber ends that fiber's wait only") {
  driven world;
  std::optional<bool> other_ended;
  auto guarded = spawn([] {
    const timeout guard(10ms);
    return ended_by(guard, [] { this_fiber::sleep_for(1h); });
  });
  auto other = spawn([&] {
    this_fiber::sleep_for(20ms);
    return true;
  });
  CHECK(guarded.get());
  CHECK(other.get());
}

// Whether the guard counts as thrown already or the wait goes on is the library's choice; there is no third.
TEST_CASE(
    "a guard that has ended a wait, cancelled by another fiber before that one runs, is thrown or not") {
  const child_end end = in_child([] {
    driven world;
    timeout* shared = nullptr;
    bool ended = false;
    auto canceller = spawn([&] {
      this_fiber::sleep_for(10ms);
      shared->cancel();
    });
    auto guarded = spawn([&] {
      timeout guard(20ms);
      shared = &guard;
      ended = ended_by(guard, [] { this_fiber::sleep_for(1h); });
    });
    this_fiber::yield();
    world.clock.advance(30ms);  // both are due at once, the canceller's turn is first
    guarded.join();
    return ended || world.clock.since_start() >= 1h;
  });
  CAPTURE(end.said);
  CHECK(end.signal == 0);
  CHECK(end.exit == 0);
}

TEST_CASE("guards at the same place one after the other each expire at their own time") {
  driven world;
  for (int i = 0; i < 3; ++i) {
    const timeout guard(1ms);
    CHECK(ended_by(guard, [] { this_fiber::sleep_for(1h); }));
  }
  CHECK(world.clock.since_start() == 3ms);
}
