// Who runs when: order, fairness, the wait, and the main fiber.
#include <annulet/runtime/scheduler.hpp>

#include <annulet/runtime/cancellation.hpp>
#include <annulet/runtime/errors.hpp>
#include <annulet/runtime/event.hpp>
#include <annulet/runtime/fiber.hpp>
#include <annulet/runtime/this_fiber.hpp>

#include "support/child.hpp"
#include "support/driven_clock.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <cstddef>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

using annulet::deadline;
using annulet::event;
using annulet::spawn;
using annulet::detail::scheduler;
using annulet::detail::scheduler_options;
using annulet_test::driven;
using annulet_test::driven_clock;
namespace this_fiber = annulet::this_fiber;
using namespace std::chrono_literals;

TEST_CASE("fibers run in the order they were spawned, and only when the spawner parks or yields") {
  driven world;
  std::vector<int> order;
  for (int i = 0; i < 5; ++i) {
    spawn([&order, i] { order.push_back(i); }).detach();
  }
  CHECK(order.empty());
  this_fiber::yield();
  CHECK(order == std::vector{0, 1, 2, 3, 4});
}

TEST_CASE("spawns whose arguments wait while they are copied leave none out, and none runs twice") {
  const auto end = annulet_test::in_child([] {
    driven world;
    struct slow_to_copy {
      slow_to_copy() = default;
      slow_to_copy(const slow_to_copy&) { this_fiber::sleep_for(1ms); }
      slow_to_copy& operator=(const slow_to_copy&) = delete;
    };
    constexpr int many = 100;
    std::vector<int> ran(many, 0);
    for (int i = 0; i < many; ++i) {
      spawn([&ran, i] {
        const slow_to_copy slow;
        spawn(
            {}, [&ran, i](const slow_to_copy&) { ++ran[static_cast<std::size_t>(i)]; }, slow)
            .detach();
        this_fiber::yield();
      }).detach();
    }
    this_fiber::sleep_for(1s);
    return ran == std::vector<int>(many, 1) && world.fibers.fibers() == 0;
  });
  CAPTURE(end.said);
  CHECK(end.signal == 0);
  CHECK(end.exit == 0);
}

TEST_CASE("a yield lets every ready fiber run once, in turn") {
  driven world;
  std::string turns;
  for (const char name : {'a', 'b', 'c'}) {
    spawn([&turns, name] {
      for (int i = 0; i < 3; ++i) {
        turns += name;
        this_fiber::yield();
      }
    }).detach();
  }
  for (int i = 0; i < 4; ++i) {
    turns += 'm';
    this_fiber::yield();
  }
  CHECK(turns == "mabcmabcmabcm");
}

TEST_CASE(
    "sleepers wake at their times, never early, and those of one time in the order they went to sleep") {
  driven world;
  std::string woken;
  for (const auto& [name, time] : {std::pair{'a', 30ms}, {'b', 10ms}, {'c', 30ms}, {'d', 20ms}}) {
    spawn([&, name = name, time = time] {
      this_fiber::sleep_for(time);
      CHECK(world.clock.since_start() == time);
      woken += name;
    }).detach();
  }
  this_fiber::sleep_for(40ms);
  CHECK(woken == "bdac");
  CHECK(world.clock.since_start() == 40ms);
}

TEST_CASE("a sleep of zero or less, or until a time gone by, takes no time and lets the others run") {
  driven world;
  const deadline gone = std::chrono::steady_clock::time_point(1ns);
  for (const deadline until : {deadline(0ms), deadline(-1h), deadline::past(), gone}) {
    bool ran = false;
    spawn([&] { ran = true; }).detach();
    this_fiber::sleep_until(until);
    CHECK(ran);
  }
  CHECK(world.clock.since_start() == 0ns);
}

TEST_CASE("the main context is a fiber: it yields, sleeps, is named and numbered") {
  driven world;
  CHECK(this_fiber::name() == "main");
  CHECK(this_fiber::id() == 1);
  CHECK(world.fibers.on_main());
  CHECK(world.fibers.fibers() == 0);
  this_fiber::yield();
  this_fiber::sleep_for(1ms);
  CHECK(world.clock.since_start() == 1ms);
  spawn([&] { CHECK_FALSE(world.fibers.on_main()); }).join();
  CHECK(world.fibers.on_main());
}

TEST_CASE(
    "where none is ready the fiber that parked last waits on its own stack, and wakes without a switch") {
  driven world;
  auto sleeper = spawn([&] {
    auto& self = world.self();
    void* const resumed_at = self.context;  // changes with each switch away
    const unsigned waits = world.clock.waits;
    bool itself = true;
    world.clock.on_wait = [&](deadline) { itself = itself && &world.self() == &self; };
    for (int i = 0; i < 100; ++i) {
      this_fiber::sleep_for(1ms);
    }
    world.clock.on_wait = nullptr;
    CHECK(itself);
    CHECK(world.clock.waits == waits + 100);
    CHECK(self.context == resumed_at);
    this_fiber::yield();  // nobody else is ready
    CHECK(self.context == resumed_at);
    spawn([] {}).detach();
    this_fiber::yield();
    CHECK(self.context != resumed_at);
  });
  sleeper.join();
}

TEST_CASE("the wait is asked for the earliest deadline, and for never where there is none") {
  driven world;
  std::vector<deadline> asked;
  world.clock.on_wait = [&](deadline until) { asked.push_back(until); };
  const deadline soon(10ms), later(20ms);
  auto other = spawn([&] { this_fiber::sleep_until(later); });
  this_fiber::sleep_until(soon);
  other.join();
  event flag;
  world.clock.outside_handles = true;
  world.clock.soon([&] { flag.set(); });
  CHECK(flag.wait());
  CHECK(asked == std::vector{soon, later, deadline::never()});
}

TEST_CASE("a wait that returns early and for nothing is taken up again") {
  driven world;
  int idle = 0;
  for (int i = 0; i < 10; ++i) {
    world.clock.soon([&] { ++idle; });
  }
  world.clock.at(1ms, [&] { ++idle; });
  this_fiber::sleep_for(5ms);
  CHECK(world.clock.since_start() == 5ms);
  CHECK(idle == 11);
  CHECK(world.clock.waits >= 3);
}

TEST_CASE("an outside wake ends a park before its deadline") {
  driven world;
  event flag;
  world.clock.at(3ms, [&] { flag.set(); });
  CHECK(flag.wait(10ms));
  CHECK(world.clock.since_start() == 3ms);
}

TEST_CASE("the world outside is looked at within a bounded run of switches though fibers only yield") {
  for (const unsigned every : {1u, 7u, 64u}) {
    driven world({.look_every = every});
    unsigned switches = 0, longest = 0;
    world.clock.on_look = [&] {
      longest = std::max(longest, switches);
      switches = 0;
    };
    bool stop = false;
    for (int i = 0; i < 3; ++i) {
      spawn([&] {
        while (!stop) {
          ++switches;
          this_fiber::yield();
        }
      }).detach();
    }
    bool heard = false;
    spawn([&] {
      event flag;
      world.clock.at(0ms, [&] { flag.set(); });
      heard = flag.wait();  // nobody idles: only a look brings it
      stop = true;
    }).detach();
    for (int i = 0; i < 10'000 && !stop; ++i) {
      ++switches;
      this_fiber::yield();
    }
    for (int i = 0; i < 1'000; ++i) {
      ++switches;
      this_fiber::yield();
    }
    CHECK(heard);
    CHECK(longest <= every);
    CHECK(world.clock.looks >= 1'000 / every);
    stop = true;
    this_fiber::yield();
  }
}

TEST_CASE("the world outside is looked at though fibers only park and wake each other") {
  driven world;
  event ping, pong;
  bool heard = false;
  world.clock.at(0ms, [&] { heard = true; });
  auto other = spawn([&] {
    while (!heard) {
      ping.wait();
      ping.clear();
      pong.set();
    }
  });
  int rounds = 0;
  while (!heard && rounds < 1'000) {
    ping.set();
    pong.wait();
    pong.clear();
    ++rounds;
  }
  CHECK(heard);
  CHECK(rounds <= 64);
  ping.set();
  other.join();
}

TEST_CASE("a timer that is due fires though fibers only yield") {
  driven world;
  bool woke = false;
  spawn([&] {
    this_fiber::sleep_for(1ms);
    woke = true;
  }).detach();
  this_fiber::yield();
  int yields = 0;
  while (!woke && yields < 1'000) {
    spawn([] {}).detach();
    world.clock.advance(1ms);
    this_fiber::yield();
    ++yields;
  }
  CHECK(woke);
  CHECK(yields <= 64);
}

// Calls that find what they want without parking yield now and then.
TEST_CASE("a fiber that waits for an event which stays set starves nobody") {
  driven world;
  event always;
  always.set();
  bool ran = false;
  spawn([&] { ran = true; }).detach();
  for (int i = 0; i < 1'000 && !ran; ++i) {
    CHECK(always.wait());
  }
  CHECK(ran);
}

TEST_CASE("a fiber that looks at an event, or at another fiber's end, again and again starves nobody") {
  driven world;
  event flag;
  spawn([&] { flag.set(); }).detach();
  bool seen = false;
  for (int i = 0; i < 1'000 && !seen; ++i) {
    seen = flag.wait(0ms);
  }
  CHECK(seen);
  auto child = spawn([] {});
  bool ended = false;
  for (int i = 0; i < 1'000 && !ended; ++i) {
    ended = child.join(0ms);
  }
  CHECK(ended);
}

TEST_CASE("a second scheduler on a thread is refused, and the first goes on") {
  driven world;
  driven_clock clock;
  CHECK_THROWS_AS(scheduler(clock, scheduler_options{}), std::logic_error);
  CHECK(scheduler::current() == &world.fibers);
  CHECK(spawn([] { return 3; }).get() == 3);
}

TEST_CASE("a scheduler with a stack size out of bounds is refused, and the thread has none then") {
  driven_clock clock;
  for (const std::size_t size :
       {std::size_t{0}, annulet::smallest_stack_size() - 1, annulet::largest_stack_size + 1}) {
    CHECK_THROWS_AS(scheduler(clock, scheduler_options{.stack_size = size}), std::invalid_argument);
    CHECK(scheduler::current() == nullptr);
  }
  driven world;
  CHECK(spawn([] { return 3; }).get() == 3);
}

TEST_CASE("each thread has a scheduler of its own, one after the other too") {
  const driven here;
  int there = 0;
  std::thread other([&] {
    for (int i = 0; i < 2; ++i) {
      driven world;
      CHECK(this_fiber::id() == 1);
      there += spawn([] { return 21; }).get();
    }
  });
  other.join();
  CHECK(there == 42);
  CHECK(scheduler::current() == &here.fibers);
}

TEST_CASE("on a thread without a scheduler each call is no_hub, and names itself") {
  const auto named = [](const char* call, auto&& fn) {
    try {
      fn();
    } catch (const annulet::no_hub& e) {
      return std::string(e.what()).find(call) != std::string::npos;
    }
    return false;
  };
  event flag;
  bool ran = false;
  CHECK(named("spawn", [&] { spawn([&] { ran = true; }).detach(); }));
  CHECK(named("yield", [] { this_fiber::yield(); }));
  CHECK(named("sleep", [] { this_fiber::sleep_for(1ms); }));
  CHECK(named("sleep", [] { this_fiber::sleep_for(0ms); }));
  CHECK(named("id", [] { (void)this_fiber::id(); }));
  CHECK(named("name", [] { (void)this_fiber::name(); }));
  CHECK(named("timeout", [] { const annulet::timeout guard(1s); }));
  CHECK(named("event::wait", [&] { flag.wait(0ms); }));
  CHECK(named("event::set", [&] { flag.set(); }));
  CHECK_FALSE(ran);
  CHECK_FALSE(flag.is_set());
}
