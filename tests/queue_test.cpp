#include <annulet/runtime/queue.hpp>

#include <annulet/runtime/channel.hpp>
#include <annulet/runtime/errors.hpp>
#include <annulet/runtime/fiber.hpp>
#include <annulet/runtime/this_fiber.hpp>

#include "support/cancelled.hpp"
#include "support/driven_clock.hpp"

#include <doctest/doctest.h>

#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <thread>
#include <utility>
#include <vector>

using annulet::channel;
using annulet::deadline_passed;
using annulet::queue;
using annulet::spawn;
using annulet_test::driven;
using annulet_test::killed_in;
namespace this_fiber = annulet::this_fiber;
using namespace std::chrono_literals;

TEST_CASE("items come out in the order in which they went in, and who pushes into a full queue waits") {
  driven world;
  queue<int> items(3);
  std::string history;
  auto producer = spawn([&] {
    for (int i = 0; i < 8; ++i) {
      CHECK(items.push(i));
      history += '+';
    }
    items.close();
  });
  this_fiber::yield();
  CHECK(history == "+++");
  CHECK(items.size() == 3);
  std::vector<int> got;
  while (auto item = items.pop()) {
    got.push_back(*item);
  }
  CHECK(got == std::vector<int>{0, 1, 2, 3, 4, 5, 6, 7});
  CHECK(items.closed());
  CHECK(items.empty());
  producer.join();
}

TEST_CASE("those that pop are served first come first served, and so are those that push") {
  driven world;
  queue<int> items(1);
  std::string order;
  for (const char name : {'a', 'b', 'c'}) {
    spawn([&, name] { order += static_cast<char>(name + items.pop().value()); }).detach();
  }
  this_fiber::yield();
  for (int i = 0; i < 3; ++i) {
    CHECK(items.push(0));  // each to one that waits, for the queue would be full
  }
  CHECK(items.empty());
  this_fiber::yield();
  CHECK(order == "abc");

  std::vector<annulet::fiber<bool>> pushing;
  for (int i = 0; i < 4; ++i) {
    pushing.push_back(spawn([&, i] { return items.push(i); }));
  }
  this_fiber::yield();
  CHECK(items.size() == 1);
  for (int i = 0; i < 4; ++i) {
    CHECK(items.pop() == i);
  }
  for (auto& one : pushing) {
    CHECK(one.get());
  }
}

TEST_CASE("a queue without a bound never makes who pushes wait") {
  driven world;
  queue<int> items;
  for (int i = 0; i < 10'000; ++i) {
    CHECK(items.try_push(i));
  }
  for (int i = 0; i < 10'000; ++i) {
    REQUIRE(items.try_pop() == i);
  }
  CHECK_FALSE(items.try_pop().has_value());
}

TEST_CASE("what is not taken stays the caller's: a full queue, a closed one, a deadline, a kill") {
  driven world;
  using owned = std::unique_ptr<int>;
  queue<owned> items(1);
  CHECK(items.push(std::make_unique<int>(1)));
  auto mine = std::make_unique<int>(2);
  CHECK_FALSE(items.try_push(std::move(mine)));
  CHECK_THROWS_AS(items.push(std::move(mine), 0ms), deadline_passed);
  CHECK_THROWS_AS(items.push(std::move(mine), 1ms), deadline_passed);
  CHECK(world.clock.since_start() == 1ms);
  auto killed = spawn([&] { return killed_in([&] { items.push(std::move(mine)); }); });
  this_fiber::yield();
  killed.kill();
  CHECK(**items.pop() == 1);  // before the killed one has run
  CHECK(killed.get());
  CHECK(items.empty());
  CHECK(items.push(std::make_unique<int>(3)));
  auto refused = spawn([&] { return items.push(std::move(mine)); });
  this_fiber::yield();
  items.close();
  items.close();
  CHECK_FALSE(refused.get());
  CHECK_FALSE(items.push(std::move(mine)));
  CHECK_FALSE(items.try_push(std::move(mine)));
  REQUIRE(mine != nullptr);
  CHECK(*mine == 2);
  CHECK(**items.pop() == 3);
  CHECK_FALSE(items.pop().has_value());
  CHECK_FALSE(items.try_pop().has_value());
}

TEST_CASE("an item is never given to a fiber that was killed before, and kept by one that was killed after") {
  driven world;
  queue<int> items(4);
  auto killed = spawn([&] { return killed_in([&] { items.pop(); }); });
  auto next = spawn([&] {
    const auto item = items.pop();
    return item == 7 && killed_in([] { this_fiber::yield(); });
  });
  this_fiber::yield();
  killed.kill();
  CHECK(items.push(7));
  next.kill();
  CHECK(killed.get());
  CHECK(next.get());
  CHECK(items.empty());
}

TEST_CASE("a pop with a deadline throws when that comes first, and gets nothing afterwards") {
  driven world;
  queue<int> items(1);
  CHECK_THROWS_WITH_AS(items.pop(5ms), doctest::Contains("queue::pop"), deadline_passed);
  CHECK_THROWS_AS(items.pop(0ms), deadline_passed);
  CHECK(world.clock.since_start() == 5ms);
  CHECK(items.push(1));
  CHECK(items.pop(0ms) == 1);
}

TEST_CASE("closing wakes all that pop, with nothing") {
  driven world;
  queue<std::string> items(1);
  auto a = spawn([&] { return items.pop(); });
  auto b = spawn([&] { return items.pop(1h); });
  this_fiber::yield();
  items.close();
  CHECK_FALSE(a.get().has_value());
  CHECK_FALSE(b.get().has_value());
}

TEST_CASE("a fiber that always finds room, or items, lets others run and can be killed") {
  driven world;
  queue<int> items;
  auto pushes = spawn([&] {
    for (;;) {
      items.push(1);
    }
  });
  this_fiber::yield();
  this_fiber::yield();
  pushes.kill();
  pushes.join();
  const std::size_t pushed = items.size();
  CHECK(pushed > 0);
  CHECK(pushed < 10'000);
}

TEST_CASE("a fiber that pushes into what is closed, or pops from it, lets others run and can be killed") {
  driven world;
  channel<int> closed;
  closed.close();
  auto pushes = spawn([&] {
    for (;;) {
      (void)closed.push(1);
    }
  });
  auto pops = spawn([&] {
    for (;;) {
      (void)closed.pop();
    }
  });
  this_fiber::yield();
  pushes.kill();
  pops.kill();
  pushes.join();
  pops.join();
}

TEST_CASE(
    "a queue of capacity 0 is refused; another thread is, while fibers wait; and they are told of the end") {
  driven world;
  CHECK_THROWS_AS(queue<int>(0), std::invalid_argument);
  CHECK_THROWS_AS(queue<int>(static_cast<std::size_t>(-1)), std::invalid_argument);
  std::optional<queue<int>> items(1);
  auto pops = spawn([&] { (void)items->pop(); });
  this_fiber::yield();
  std::thread([&] {
    CHECK_THROWS_AS((void)items->try_pop(), annulet::no_hub);
    driven another;
    CHECK_THROWS_AS(items->push(1), annulet::wrong_thread);
    CHECK_THROWS_AS((void)items->try_push(1), annulet::wrong_thread);
    CHECK_THROWS_AS(items->close(), annulet::wrong_thread);
  }).join();
  items.reset();
  CHECK_THROWS_WITH_AS(pops.get(), doctest::Contains("destroyed"), std::logic_error);
}

TEST_CASE("a queue destroys what is left in it") {
  driven world;
  const auto watched = std::make_shared<int>(1);
  {
    queue<std::shared_ptr<int>> items;
    for (int i = 0; i < 20; ++i) {
      items.push(watched);
    }
    (void)items.pop();
    items.push(watched);
    CHECK(watched.use_count() == 21);
  }
  CHECK(watched.use_count() == 1);
}

TEST_CASE("a channel hands over only when both are there") {
  driven world;
  channel<int> meeting;
  CHECK_FALSE(meeting.try_push(1));
  CHECK_FALSE(meeting.try_pop().has_value());
  CHECK_THROWS_AS(meeting.push(1, 0ms), deadline_passed);
  CHECK_THROWS_AS(meeting.pop(1ms), deadline_passed);
  bool pushed = false;
  auto pushes = spawn([&] { return pushed = meeting.push(2); });
  this_fiber::yield();
  CHECK_FALSE(pushed);
  CHECK(meeting.pop() == 2);
  CHECK_FALSE(pushed);  // it has not run yet, but need not wait any more
  CHECK(pushes.get());
  auto pops = spawn([&] { return meeting.pop(); });
  this_fiber::yield();
  CHECK(meeting.try_push(3));
  CHECK(pops.get() == 3);
}

TEST_CASE("a channel passes a stream in order, and closing it ends both sides") {
  driven world;
  channel<int> numbers;
  auto producer = spawn([&] {
    int i = 0;
    while (numbers.push(i)) {
      ++i;
    }
    return i;
  });
  for (int i = 0; i < 1000; ++i) {
    REQUIRE(numbers.pop() == i);
  }
  numbers.close();
  CHECK(producer.get() == 1000);
  CHECK_FALSE(numbers.pop().has_value());
  CHECK_FALSE(numbers.push(1));
}

TEST_CASE("killed before the meeting: the other side meets the next") {
  driven world;
  channel<int> meeting;
  auto killed = spawn([&] { return killed_in([&] { meeting.push(1); }); });
  auto next = spawn([&] { return meeting.push(2); });
  this_fiber::yield();
  killed.kill();
  CHECK(meeting.pop() == 2);
  CHECK(killed.get());
  CHECK(next.get());
}
