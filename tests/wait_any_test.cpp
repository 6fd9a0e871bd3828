#include <annulet/runtime/wait_any.hpp>

#include <annulet/runtime/cancellation.hpp>
#include <annulet/runtime/errors.hpp>
#include <annulet/runtime/this_fiber.hpp>

#include "support/cancelled.hpp"
#include "support/driven_clock.hpp"

#include <doctest/doctest.h>

#include <memory>
#include <optional>
#include <stdexcept>
#include <thread>
#include <utility>
#include <vector>

using annulet::channel;
using annulet::deadline;
using annulet::event;
using annulet::latch;
using annulet::popping;
using annulet::pushing;
using annulet::queue;
using annulet::semaphore;
using annulet::spawn;
using annulet::wait_all;
using annulet::wait_any;
using annulet_test::driven;
using annulet_test::killed_in;
namespace this_fiber = annulet::this_fiber;
using namespace std::chrono_literals;

TEST_CASE("what comes first is told, whichever of the kinds it is") {
  driven world;
  event flag;
  latch gate(1);
  semaphore permits(0);
  queue<int> items(1);
  channel<int> meeting;
  auto ends = spawn([] { this_fiber::sleep_for(6ms); });
  popping item(items);
  popping met(meeting);
  const auto next = [&] { return wait_any(1h, flag, gate, permits, item, met, ends); };
  auto others = spawn([&] {
    this_fiber::sleep_for(1ms);
    flag.set();
    flag.clear();
    this_fiber::sleep_for(1ms);
    permits.release();
    this_fiber::sleep_for(1ms);
    items.push(7);
    this_fiber::sleep_for(1ms);
    meeting.push(8);
    this_fiber::sleep_for(1ms);
    gate.count_down();
  });
  CHECK(next() == 0u);
  CHECK(next() == 2u);
  CHECK(next() == 3u);
  CHECK(item.item() == 7);
  CHECK(next() == 4u);
  CHECK(met.item() == 8);
  CHECK(next() == 1u);
  CHECK(wait_any(deadline::never(), flag, ends) == 1u);
  CHECK(world.clock.since_start() == 6ms);
  CHECK(permits.available() == 0);
  CHECK(items.empty());
  others.join();
}

TEST_CASE("of several that are there it is the first in the order given, and the others are not consumed") {
  driven world;
  semaphore permits(1);
  queue<int> items(2);
  items.push(1);
  popping item(items);
  CHECK(wait_any(0ms, item, permits) == 0u);
  CHECK(item.item() == 1);
  CHECK(permits.available() == 1);
  items.push(2);
  CHECK(wait_any(0ms, permits, item) == 0u);
  CHECK(items.size() == 1);
  CHECK(permits.available() == 0);
  CHECK(world.clock.waits == 0);
}

TEST_CASE("what comes after the choice goes to others, or stays") {
  driven world;
  event flag;
  semaphore permits(0);
  queue<int> items(4);
  channel<int> meeting;
  popping item(items);
  popping met(meeting);
  auto chooses = spawn([&] { return wait_any(1h, item, permits, flag, met); });
  auto waits = spawn([&] { permits.acquire(); });
  this_fiber::yield();
  flag.set();  // chosen
  items.push(1);
  permits.release();
  CHECK_FALSE(meeting.try_push(2));
  CHECK(chooses.get() == 2u);
  waits.get();
  CHECK(items.size() == 1);
}

TEST_CASE("two that happen before the fiber runs: the first is the choice") {
  driven world;
  queue<int> a(1);
  queue<int> b(1);
  popping from_a(a);
  popping from_b(b);
  auto chooses = spawn([&] { return wait_any(1h, from_a, from_b); });
  this_fiber::yield();
  b.push(2);
  a.push(1);
  CHECK(chooses.get() == 1u);
  CHECK(from_b.item() == 2);
  CHECK(a.size() == 1);
  CHECK(b.empty());
}

TEST_CASE("the deadline ends it with none, a kill and a guard as any wait, and nobody is left in a line") {
  driven world;
  event flag;
  semaphore permits(0);
  queue<int> items(1);
  popping item(items);
  CHECK_FALSE(wait_any(0ms, flag, permits, item).has_value());
  CHECK_FALSE(wait_any(5ms, flag, permits, item).has_value());
  CHECK(world.clock.since_start() == 5ms);
  auto killed =
      spawn([&] { return killed_in([&] { (void)wait_any(deadline::never(), flag, permits, item); }); });
  this_fiber::yield();
  killed.kill();
  flag.set();
  flag.clear();
  permits.release();
  items.push(1);
  CHECK(killed.get());
  CHECK(permits.available() == 1);
  CHECK(items.size() == 1);
}

TEST_CASE("who was handed something before the kill has it") {
  driven world;
  queue<int> items(1);
  event flag;
  popping item(items);
  auto handed = spawn([&] {
    const bool has = wait_any(1h, flag, item) == 1u && item.item() == 3;
    return has && killed_in([] { this_fiber::yield(); });
  });
  this_fiber::yield();
  items.push(3);
  handed.kill();
  CHECK(handed.get());
}

TEST_CASE("an item is pushed only where that is chosen") {
  driven world;
  using owned = std::unique_ptr<int>;
  queue<owned> items(1);
  items.push(std::make_unique<int>(1));
  event flag;
  auto mine = std::make_unique<int>(2);
  pushing push(items, mine);
  flag.set();
  CHECK(wait_any(1h, push, flag) == 1u);
  flag.clear();
  CHECK_FALSE(wait_any(1ms, flag, push).has_value());
  REQUIRE(mine != nullptr);
  auto pops = spawn([&] {
    this_fiber::sleep_for(1ms);
    return **items.pop();
  });
  CHECK(wait_any(1h, flag, push) == 1u);
  CHECK(push.pushed());
  CHECK(pops.get() == 1);
  CHECK(mine == nullptr);
  mine = std::make_unique<int>(3);
  auto closes = spawn([&] { items.close(); });
  CHECK(wait_any(1h, flag, push) == 1u);
  CHECK_FALSE(push.pushed());
  CHECK(*mine == 3);
  popping item(items);
  CHECK(wait_any(1h, flag, item) == 1u);
  CHECK(**item.item() == 2);
  CHECK(wait_any(1h, flag, item) == 1u);
  CHECK_FALSE(item.item().has_value());
}

TEST_CASE("wait_all waits for all of them, with one deadline") {
  driven world;
  event flag;
  latch gate(1);
  auto ends = spawn([&] {
    this_fiber::sleep_for(3ms);
    gate.count_down();
  });
  auto sets = spawn([&] {
    this_fiber::sleep_for(5ms);
    flag.set();
  });
  CHECK_FALSE(wait_all(4ms, ends, gate, flag));
  CHECK(world.clock.since_start() == 4ms);
  CHECK(wait_all(1h, flag, gate, ends, sets));
  CHECK(world.clock.since_start() == 5ms);
}

TEST_CASE("wait_all counts an event that is cleared again before the others are there") {
  driven world;
  event pulse;
  event other;
  auto all = spawn([&] { return wait_all(1h, pulse, other, pulse); });
  this_fiber::yield();
  pulse.set();
  pulse.clear();
  this_fiber::yield();
  CHECK_FALSE(all.done());
  other.set();
  other.clear();
  pulse.set();
  CHECK(all.get());
  CHECK(world.clock.waits == 0);
}

TEST_CASE("a wait_all that has heard from some of them ends by deadline, kill and destruction like any") {
  driven world;
  event some;
  std::optional<event> never(std::in_place);
  some.set();
  const auto both = [&](deadline until) { return wait_all(until, some, *never); };
  CHECK_FALSE(both(0ms));
  CHECK_FALSE(both(5ms));
  auto killed = spawn([&] { return killed_in([&] { (void)both(1h); }); });
  auto refused = spawn([&] { CHECK_THROWS_AS((void)both(1h), std::logic_error); });
  this_fiber::yield();
  killed.kill();
  CHECK(killed.get());
  never.reset();
  refused.get();
}

TEST_CASE("a popping that is waited for already is refused, and can be used again after that") {
  driven world;
  queue<int> items(1);
  popping item(items);
  CHECK_THROWS_AS((void)wait_any(1h, item, item), std::logic_error);
  auto first = spawn([&] { return wait_any(1h, item); });
  this_fiber::yield();
  CHECK_THROWS_AS((void)wait_any(1h, item), std::logic_error);
  items.push(4);
  CHECK(first.get() == 0u);
  CHECK(item.item() == 4);
  items.push(5);
  CHECK(wait_any(1h, item) == 0u);
  CHECK(item.item() == 5);
}

TEST_CASE(
    "what a popping or pushing came to is void as soon as it is waited for again, also where another is "
    "chosen") {
  driven world;
  queue<int> items(2), others(2);
  items.push(1);
  others.push(2);
  annulet::popping first(items), second(others);
  int given = 3;
  annulet::pushing third(others, given);
  CHECK(wait_any(0ms, second, first) == 0u);
  CHECK(wait_any(0ms, third) == 0u);
  CHECK(second.item() == 2);
  CHECK(third.pushed());
  CHECK(wait_any(0ms, first, second, third) == 0u);
  CHECK(first.item() == 1);
  CHECK_FALSE(second.item().has_value());
  CHECK_FALSE(third.pushed());
  CHECK(others.size() == 1);
}

TEST_CASE("a popped item needs no assignment") {
  driven world;
  struct fixed {
    const int value;
  };
  queue<fixed> items(2);
  popping item(items);
  auto waits = spawn([&] { return wait_any(1h, item); });
  this_fiber::yield();
  items.push(fixed{1});
  items.push(fixed{2});
  CHECK(waits.get() == 0u);
  CHECK(item.item()->value == 1);
  CHECK(wait_any(1h, item) == 0u);
  CHECK(item.item()->value == 2);
}

TEST_CASE("a fiber that always finds what it waits for does not starve others") {
  driven world;
  event flag;
  flag.set();
  bool ran = false;
  auto other = spawn([&] { ran = true; });
  for (int i = 0; i < 1000 && !ran; ++i) {
    (void)wait_any(1h, flag);
  }
  CHECK(ran);
  auto again = spawn([&] { ran = false; });
  for (int i = 0; i < 1000 && ran; ++i) {
    (void)wait_all(0ms, flag);
  }
  CHECK_FALSE(ran);
}

TEST_CASE("a range is waited for like a list") {
  driven world;
  std::vector<annulet::fiber<void>> fibers;
  for (const int ms : {3, 1, 2}) {
    fibers.push_back(spawn([ms] { this_fiber::sleep_for(std::chrono::milliseconds(ms)); }));
  }
  CHECK(wait_any(1h, fibers) == 1u);
  CHECK(world.clock.since_start() == 1ms);
  CHECK_FALSE(wait_all(1ms, fibers));
  CHECK(wait_all(1h, fibers));
  CHECK(world.clock.since_start() == 3ms);
  CHECK(wait_all(1h, std::vector<annulet::fiber<void>>()));
  CHECK_THROWS_AS((void)wait_any(1h, std::vector<annulet::fiber<void>>()), std::invalid_argument);
}

TEST_CASE("a popping that another fiber waits with is refused, also where there is an item") {
  driven world;
  queue<int> items(2);
  queue<int> others(1);
  popping item(items);
  popping other(others);
  auto waits = spawn([&] { return wait_any(1h, other, item); });
  this_fiber::yield();
  CHECK_THROWS_AS((void)wait_any(0ms, item), std::logic_error);
  items.push(1);
  CHECK(waits.get() == 1u);
}

TEST_CASE("what cannot work is refused in words") {
  driven world;
  std::optional<event> flag(std::in_place);
  annulet::fiber<void> nobody;
  CHECK_THROWS_AS((void)wait_any(0ms, *flag, nobody), std::logic_error);
  auto waits = spawn([&] { (void)wait_any(1h, *flag); });
  this_fiber::yield();
  std::thread([&] {
    CHECK_THROWS_AS((void)wait_any(0ms, *flag), annulet::no_hub);
    driven another;
    CHECK_THROWS_AS((void)wait_any(0ms, *flag), annulet::wrong_thread);
    CHECK_THROWS_AS((void)wait_any(0ms, waits), annulet::wrong_thread);
  }).join();
  flag.reset();
  CHECK_THROWS_WITH_AS(waits.get(), doctest::Contains("destroyed"), std::logic_error);
  std::optional<annulet::fiber<void>> self;
  self = spawn([&] { CHECK_THROWS_AS((void)wait_any(0ms, *self), std::logic_error); });
  self->join();
}

TEST_CASE("fibers that all wait for any of what only they could give are dead") {
  driven world;
  event a;
  event b;
  auto other = spawn([&] { (void)wait_any(deadline::never(), a, b); });
  CHECK_THROWS_AS((void)wait_any(deadline::never(), a, b), annulet::deadlock);
  a.set();
  other.join();
}
