#include <annulet/runtime/fiber_group.hpp>

#include <annulet/runtime/cancellation.hpp>
#include <annulet/runtime/errors.hpp>
#include <annulet/runtime/event.hpp>
#include <annulet/runtime/fiber.hpp>
#include <annulet/runtime/fiber_local.hpp>
#include <annulet/runtime/this_fiber.hpp>

#include "support/cancelled.hpp"
#include "support/child.hpp"
#include "support/driven_clock.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <thread>

using annulet::event;
using annulet::fiber_group;
using annulet::spawn;
using annulet_test::driven;
using annulet_test::killed_in;
namespace this_fiber = annulet::this_fiber;
using namespace std::chrono_literals;

TEST_CASE("join waits for all members, however they end") {
  driven world;
  fiber_group group;
  CHECK(group.join());
  std::string order;
  for (const char name : {'c', 'a', 'b'}) {
    group.spawn([&, name] {
      this_fiber::sleep_for(std::chrono::milliseconds(name - 'a' + 1));
      order += name;
    });
  }
  CHECK(group.size() == 3);
  CHECK_FALSE(group.join(0ms));
  CHECK_FALSE(group.join(1500us));
  CHECK(order == "a");
  CHECK(group.size() == 2);
  CHECK(group.join());
  CHECK(order == "abc");
  CHECK(group.empty());
  CHECK(world.fibers.fibers() == 0);
}

TEST_CASE("with a limit no more run at a time, and spawns wait first come first served") {
  driven world;
  fiber_group group(2);
  int running = 0;
  int most = 0;
  const auto member = [&] {
    most = std::max(most, ++running);
    this_fiber::sleep_for(1ms);
    --running;
  };
  for (int i = 0; i < 7; ++i) {
    CHECK(group.spawn(member));
  }
  CHECK(world.clock.since_start() == 3ms);
  CHECK(group.spawn(member, 0ms));
  CHECK_FALSE(group.spawn(member, 0ms));
  CHECK(group.join());
  CHECK(most == 2);
  CHECK_THROWS_AS(fiber_group(0), std::invalid_argument);
}

TEST_CASE("a spawn that waits for room has a deadline and can be killed, and then nothing was spawned") {
  driven world;
  fiber_group group(1);
  bool ran = false;
  group.spawn([] { this_fiber::sleep_for(1s); });
  auto killed = spawn([&] { return killed_in([&] { group.spawn([&] { ran = true; }); }); });
  CHECK_FALSE(group.spawn([&] { ran = true; }, 5ms));
  killed.kill();
  CHECK(killed.get());
  CHECK(group.size() == 1);
  CHECK(group.join());
  CHECK_FALSE(ran);
  CHECK(group.spawn([&] { ran = true; }, 0ms));
  CHECK(group.join());
  CHECK(ran);
}

TEST_CASE("kill ends all members, those too that never ran, and the group can be used again") {
  driven world;
  fiber_group group(4);
  int unwound = 0;
  struct counted {
    int* count;
    ~counted() { ++*count; }
  };
  for (int i = 0; i < 2; ++i) {
    group.spawn([&] {
      const counted at_end{&unwound};
      this_fiber::sleep_for(1h);
    });
  }
  this_fiber::yield();
  bool ran = false;
  group.spawn([&] { ran = true; });
  group.kill();
  CHECK(group.size() == 3);
  CHECK(group.join());
  CHECK(unwound == 2);
  CHECK_FALSE(ran);
  CHECK(world.clock.since_start() == 0ms);
  group.spawn([&] { ran = true; });
  CHECK(group.join());
  CHECK(ran);
}

TEST_CASE("get throws what the first of its members threw, once, and does not wait for the others") {
  driven world;
  fiber_group group;
  group.spawn([] { this_fiber::sleep_for(1h); });
  group.spawn([] {
    this_fiber::sleep_for(1ms);
    throw std::runtime_error("the first");
  });
  CHECK_THROWS_AS(group.get(0ms), annulet::deadline_passed);
  CHECK_FALSE(group.failed());
  CHECK_THROWS_WITH_AS(group.get(), "the first", std::runtime_error);
  CHECK(world.clock.since_start() == 1ms);
  CHECK(group.size() == 1);
  group.kill();
  group.get();
  CHECK(group.empty());
  group.spawn([] { throw 7; });
  CHECK(group.join());
  CHECK(group.failed());
  CHECK_THROWS_AS(group.get(), int);
}

TEST_CASE("a member that a timeout guard of its own has ended has failed, one that was killed has not") {
  driven world;
  fiber_group group;
  group.spawn([] {
    const annulet::timeout guard(1ms);
    this_fiber::sleep_for(1h);
  });
  CHECK_THROWS_WITH_AS(group.get(), doctest::Contains("timeout guard"), annulet::fiber_failed);
  group.spawn([] { this_fiber::sleep_for(1h); });
  this_fiber::yield();
  group.kill();
  group.get();
}

TEST_CASE(
    "errors that nobody collects are told of on stderr: a second one, and the first of a group that ends") {
  const auto end = annulet_test::in_child([] {
    driven world;
    fiber_group group;
    for (const char* const text : {"one", "two"}) {
      group.spawn({.name = text}, [text] { throw std::runtime_error(text); });
    }
    group.join();
    return true;
  });
  CAPTURE(end.said);
  CHECK(end.exit == 0);
  CHECK(end.says("\"two\""));
  CHECK(end.says("that nobody collected: two"));
  CHECK(end.says("that nobody collected: one"));
}

TEST_CASE("a group that is destroyed kills its members and does not wait for them") {
  driven world;
  bool ended = false;
  {
    fiber_group group;
    group.spawn([&] {
      const bool killed = killed_in([] { this_fiber::sleep_for(1h); });
      this_fiber::sleep_for(1ms);
      ended = killed;
    });
    this_fiber::yield();
  }
  CHECK_FALSE(ended);
  this_fiber::sleep_for(2ms);
  CHECK(ended);
}

TEST_CASE(
    "kill_and_join waits for all, kills those too that are spawned meanwhile, and nothing interrupts it") {
  driven world;
  fiber_group group;
  bool spawned_ran = false;
  group.spawn([&] {
    const bool killed = killed_in([] { this_fiber::sleep_for(1h); });
    this_fiber::sleep_for(5ms);
    group.spawn([&] { spawned_ran = true; });
    CHECK(killed);
  });
  auto ender = spawn([&] {
    this_fiber::yield();
    group.kill_and_join();
    CHECK(group.empty());
    return killed_in([] { this_fiber::yield(); });
  });
  this_fiber::sleep_for(1ms);
  ender.kill();
  this_fiber::sleep_for(1ms);
  CHECK_FALSE(ender.done());
  CHECK(ender.get());
  CHECK(world.clock.since_start() == 5ms);
  CHECK_FALSE(spawned_ran);
}

TEST_CASE("a member cannot wait for its own group, and another thread not use it while it has members") {
  driven world;
  fiber_group group;
  group.spawn([&] {
    CHECK_THROWS_AS(group.join(), std::logic_error);
    CHECK_THROWS_AS(group.get(), std::logic_error);
    CHECK_THROWS_AS(group.kill_and_join(), std::logic_error);
    this_fiber::yield();
  });
  this_fiber::yield();
  std::thread([&] {
    CHECK_THROWS_AS(group.join(), annulet::no_hub);
    driven another;
    CHECK_THROWS_AS(group.join(), annulet::wrong_thread);
    CHECK_THROWS_AS(group.kill(), annulet::wrong_thread);
  }).join();
  CHECK(group.join());
}

TEST_CASE("where a member's stack is not to be had nothing was spawned, and its place is free") {
  driven world;
  fiber_group group(1);
  CHECK_THROWS_AS(group.spawn({.stack_size = 1}, [] {}), std::invalid_argument);
  CHECK(group.empty());
  CHECK(group.spawn([] {}, 0ms));
  CHECK(group.join());
}

TEST_CASE(
    "what a member holds is destroyed when it ends, and the group stays empty when its hub ends first") {
  const auto watched = std::make_shared<int>(1);
  std::optional<fiber_group> group(std::in_place);
  {
    driven world;
    group->spawn([watched] {});
    group->join();
    CHECK(watched.use_count() == 1);
    group->spawn([watched] { this_fiber::sleep_for(1h); });
    this_fiber::yield();
  }
  CHECK(watched.use_count() == 1);
  CHECK(group->empty());
}

TEST_CASE("a join ends with the last member, also where another was spawned before it runs") {
  driven world;
  fiber_group group;
  event open;
  group.spawn([&] { open.wait(); });
  auto joins = spawn([&] { return group.join(); });
  auto gets = spawn([&] { group.get(); });
  auto ends = spawn([&] { group.kill_and_join(); });
  this_fiber::yield();
  auto spawns = spawn([&] { group.spawn([] { this_fiber::sleep_for(1h); }); });
  CHECK(joins.get());
  gets.get();
  ends.get();
  spawns.join();
  CHECK(group.size() == 1);
  CHECK(world.clock.since_start() == 0ms);
  group.kill_and_join();
}

TEST_CASE("a group may be destroyed as soon as its last member has ended, before those who waited run") {
  driven world;
  std::optional<fiber_group> group(std::in_place, 1);
  group->spawn([] { this_fiber::sleep_for(1ms); });
  auto joins = spawn([&] { return group->join(); });
  auto gets = spawn([&] { group->get(); });
  auto ends = spawn([&] { group->kill_and_join(); });
  this_fiber::yield();
  group.reset();
  CHECK_THROWS_WITH_AS(joins.get(), doctest::Contains("destroyed"), std::logic_error);
  CHECK_THROWS_WITH_AS(gets.get(), doctest::Contains("destroyed"), std::logic_error);
  CHECK_THROWS_WITH_AS(ends.get(), doctest::Contains("destroyed"), std::logic_error);

  group.emplace(1);
  group->spawn([] { this_fiber::sleep_for(1ms); });
  auto joins_in_time = spawn([&] { return group->join(); });
  this_fiber::yield();
  while (!group->empty()) {
    this_fiber::sleep_for(1ms);
  }
  group.reset();
  CHECK(joins_in_time.get());
}

TEST_CASE("a spawn whose deadline came first says so, though the group is destroyed before it runs") {
  driven world;
  auto group = std::make_unique<fiber_group>(1);
  group->spawn([] { this_fiber::sleep_for(1h); });
  auto late = spawn([&] { return group->spawn([] {}, 1ms); });
  this_fiber::sleep_for(1ms);  // both waits end at once, and this fiber runs first
  group.reset();
  CHECK_FALSE(late.get());
}

TEST_CASE("a spawn that has its place when the group is destroyed spawns nothing, and says so") {
  driven world;
  std::optional<fiber_group> group(std::in_place, 1);
  bool ran = false;
  group->spawn([] { this_fiber::yield(); });
  auto waits = spawn([&] { return group->spawn([&] { ran = true; }); });
  auto waits_still = spawn([&] { return group->spawn([&] { ran = true; }); });
  while (!group->empty()) {
    this_fiber::yield();
  }
  group.reset();
  CHECK_THROWS_WITH_AS(waits.get(), doctest::Contains("destroyed"), std::logic_error);
  CHECK_THROWS_WITH_AS(waits_still.get(), doctest::Contains("destroyed"), std::logic_error);
  CHECK_FALSE(ran);
}

TEST_CASE("of several that wait in get each is told one failure") {
  driven world;
  fiber_group group;
  const auto failure = [&] {
    try {
      group.get();
      return std::string("none");
    } catch (const std::runtime_error& e) {
      return std::string(e.what());
    }
  };
  group.spawn([] {
    this_fiber::sleep_for(1ms);
    throw std::runtime_error("one");
  });
  group.spawn([] {
    this_fiber::sleep_for(2ms);
    throw std::runtime_error("two");
  });
  auto first = spawn(failure);
  auto second = spawn(failure);
  auto third = spawn(failure);
  CHECK(first.get() == "one");
  CHECK(second.get() == "two");
  CHECK(third.get() == "none");
  CHECK_FALSE(group.failed());
}

TEST_CASE("a member has ended when its fiber-locals are destroyed") {
  driven world;
  bool destroyed = false;
  struct slow {
    bool* done = nullptr;
    ~slow() {
      if (done != nullptr) {
        this_fiber::sleep_for(3ms);
        *done = true;
      }
    }
  };
  annulet::fiber_local<slow> variable;
  fiber_group group;
  group.spawn([&] { variable->done = &destroyed; });
  CHECK(group.join());
  CHECK(destroyed);
  CHECK(world.clock.since_start() == 3ms);
}

TEST_CASE("calls on an empty group starve nobody") {
  driven world;
  fiber_group group;
  for (const auto& call : {+[](fiber_group& g) { g.join(); }, +[](fiber_group& g) { g.get(); },
                           +[](fiber_group& g) { g.kill_and_join(); }}) {
    bool ran = false;
    auto other = spawn([&] { ran = true; });
    for (int i = 0; i < 1000 && !ran; ++i) {
      call(group);
    }
    CHECK(ran);
  }
}

TEST_CASE("while kill_and_join ends a group nobody outside it spawns into it, so it comes to an end") {
  driven world;
  fiber_group group;
  group.spawn([] {
    CHECK(killed_in([] { this_fiber::sleep_for(1h); }));
    this_fiber::sleep_for(5ms);
  });
  unsigned refused = 0;
  auto spawner = spawn([&] {
    this_fiber::sleep_for(1ms);
    for (int i = 0; i < 3; ++i) {
      try {
        group.spawn([] {});
      } catch (const std::logic_error& e) {
        CHECK(std::string(e.what()) == "annulet: fiber_group::spawn: kill_and_join is just ending the group");
        ++refused;
      }
    }
  });
  this_fiber::yield();
  group.kill_and_join();
  CHECK(refused == 3);
  CHECK(group.spawn([] {}));
  CHECK(group.join());
}

TEST_CASE("kill_and_join ends those too that waited for room, and leaves none") {
  driven world;
  fiber_group group(1);
  bool ran = false;
  group.spawn([] { this_fiber::sleep_for(1h); });
  auto waits = spawn([&] { return group.spawn([&] { ran = true; }); });
  auto waits_too = spawn([&] { return group.spawn([&] { ran = true; }); });
  this_fiber::yield();
  group.kill_and_join();
  CHECK(group.empty());
  CHECK(waits.get());
  CHECK(waits_too.get());
  CHECK_FALSE(ran);
}
