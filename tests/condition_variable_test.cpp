#include <annulet/runtime/condition_variable.hpp>

#include <annulet/runtime/cancellation.hpp>
#include <annulet/runtime/fiber.hpp>
#include <annulet/runtime/this_fiber.hpp>

#include "support/cancelled.hpp"
#include "support/driven_clock.hpp"

#include <doctest/doctest.h>

#include <mutex>
#include <optional>
#include <stdexcept>
#include <string>

using annulet::condition_variable;
using annulet::mutex;
using annulet::spawn;
using annulet_test::driven;
using annulet_test::killed_in;
namespace this_fiber = annulet::this_fiber;
using namespace std::chrono_literals;

TEST_CASE("notify_one wakes who waited longest, notify_all the rest, and each comes back with the mutex") {
  driven world;
  mutex m;
  condition_variable changed;
  std::string order;
  for (const char name : {'a', 'b', 'c', 'd'}) {
    spawn([&, name] {
      std::unique_lock lock(m);
      CHECK(changed.wait(lock));
      CHECK(m.held());
      this_fiber::yield();
      order += name;
    }).detach();
  }
  this_fiber::yield();
  CHECK(m.try_lock());
  m.unlock();
  changed.notify_one();
  this_fiber::sleep_for(1ms);
  CHECK(order == "a");
  changed.notify_all();
  this_fiber::sleep_for(1ms);
  CHECK(order == "abcd");
  changed.notify_one();
}

TEST_CASE("a notify that nobody waits for is forgotten") {
  driven world;
  mutex m;
  condition_variable changed;
  changed.notify_all();
  std::unique_lock lock(m);
  CHECK_FALSE(changed.wait(lock, 1ms));
  CHECK(world.clock.since_start() == 1ms);
  CHECK(m.held());
}

TEST_CASE("with a predicate it waits until that is true, and the deadline bounds all of it together") {
  driven world;
  mutex m;
  condition_variable changed;
  int count = 0;
  auto waits = spawn([&] {
    std::unique_lock lock(m);
    return changed.wait(
        lock, [&] { return count == 3; }, 1h);
  });
  auto in_vain = spawn([&] {
    std::unique_lock lock(m);
    return changed.wait(
        lock, [&] { return count == 4; }, 5ms);
  });
  for (int i = 0; i < 3; ++i) {
    this_fiber::sleep_for(1ms);
    const std::lock_guard lock(m);
    ++count;
    changed.notify_all();
  }
  CHECK(waits.get());
  CHECK_FALSE(in_vain.get());
  CHECK(world.clock.since_start() == 5ms);
}

TEST_CASE("a deadline of zero waits for no notify and leaves the mutex held") {
  driven world;
  mutex m;
  condition_variable changed;
  std::unique_lock lock(m);
  CHECK_FALSE(changed.wait(lock, 0ms));
  CHECK(m.held());
  int asked = 0;
  CHECK_FALSE(changed.wait(
      lock, [&] { return ++asked == 3; }, 0ms));
  CHECK(asked == 2);
  CHECK(world.clock.waits == 0);
}

TEST_CASE("a killed wait has the mutex again before the kill goes on") {
  driven world;
  mutex m;
  condition_variable changed;
  bool held = false;
  bool unwound = false;
  auto killed = spawn([&] {
    const bool by_kill = killed_in([&] {
      std::unique_lock lock(m);
      struct looks {
        mutex& m;
        bool& held;
        ~looks() { held = m.held(); }
      } const at_end{m, held};
      changed.wait(lock);
    });
    unwound = true;
    return by_kill;
  });
  this_fiber::yield();
  m.lock();
  killed.kill();
  for (int i = 0; i < 5; ++i) {
    this_fiber::yield();
  }
  CHECK_FALSE(unwound);  // it waits for the mutex, which nothing interrupts
  m.unlock();
  CHECK(killed.get());
  CHECK(held);
  CHECK(m.try_lock());
  m.unlock();
}

TEST_CASE("a notify goes to who is not yet killed; who was notified first keeps it") {
  driven world;
  mutex m;
  condition_variable changed;
  const auto waiting = [&] {
    std::unique_lock lock(m);
    return changed.wait(lock);
  };
  SUBCASE("killed first") {
    auto killed = spawn([&] { return killed_in([&] { waiting(); }); });
    auto next = spawn(waiting);
    this_fiber::yield();
    killed.kill();
    changed.notify_one();
    CHECK(killed.get());
    CHECK(next.get());
  }
  SUBCASE("notified first") {
    auto notified = spawn([&] {
      const bool told = waiting();
      return told && killed_in([] { this_fiber::yield(); });
    });
    auto next = spawn(waiting);
    this_fiber::yield();
    changed.notify_one();
    notified.kill();
    CHECK(notified.get());
    CHECK_FALSE(next.done());
    changed.notify_one();
    CHECK(next.get());
  }
}

TEST_CASE("a kill that was pending before is thrown before the mutex is given up") {
  driven world;
  mutex m;
  condition_variable changed;
  std::string order;
  std::optional<annulet::fiber<void>> self;
  std::optional<annulet::fiber<void>> other;
  self = spawn([&] {
    std::unique_lock lock(m);
    other = spawn([&] {
      const std::unique_lock waited(m);
      order += " other";
    });
    this_fiber::yield();  // it waits for the mutex now
    self->kill();
    CHECK(killed_in([&] { changed.wait(lock); }));
    order += "self";
  });
  self->join();
  other->join();
  CHECK(order == "self other");
}

TEST_CASE("a fiber whose predicate is always true lets others run and can be killed") {
  driven world;
  mutex m;
  condition_variable changed;
  auto busy = spawn([&] {
    for (;;) {
      std::unique_lock lock(m);
      changed.wait(lock, [] { return true; });
    }
  });
  this_fiber::yield();
  busy.kill();
  busy.join();
  CHECK(m.try_lock());
  m.unlock();
}

TEST_CASE("where the mutex is destroyed while a wait wants it back, that is told, and nothing is unlocked") {
  driven world;
  std::optional<mutex> m(std::in_place);
  condition_variable changed;
  auto waits = spawn([&] {
    std::unique_lock lock(*m);
    changed.wait(lock);
  });
  this_fiber::yield();
  m->lock();
  changed.notify_one();
  this_fiber::yield();
  m.reset();
  CHECK_THROWS_WITH_AS(waits.get(), doctest::Contains("mutex was destroyed"), std::logic_error);
}

TEST_CASE("a wait without the mutex is refused") {
  driven world;
  mutex m;
  condition_variable changed;
  std::unique_lock lock(m, std::defer_lock);
  CHECK_THROWS_AS(changed.wait(lock), std::logic_error);
  lock.lock();
  spawn([&] { CHECK_THROWS_AS(changed.wait(lock), std::logic_error); }).join();
  CHECK(m.held());
}

TEST_CASE("fibers that wait when it is destroyed are told, and have their mutex") {
  driven world;
  mutex m;
  std::optional<condition_variable> changed(std::in_place);
  auto waits = spawn([&] {
    std::unique_lock lock(m);
    changed->wait(lock);
  });
  this_fiber::yield();
  changed.reset();
  CHECK_THROWS_WITH_AS(waits.get(), doctest::Contains("destroyed"), std::logic_error);
  CHECK(m.try_lock());
  m.unlock();
}
