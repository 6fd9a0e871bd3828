#include <annulet/runtime/mutex.hpp>

#include <annulet/runtime/cancellation.hpp>
#include <annulet/runtime/errors.hpp>
#include <annulet/runtime/fiber.hpp>
#include <annulet/runtime/recursive_mutex.hpp>
#include <annulet/runtime/this_fiber.hpp>

#include "support/cancelled.hpp"
#include "support/destroyed.hpp"
#include "support/driven_clock.hpp"

#include <doctest/doctest.h>

#include <memory>
#include <mutex>
#include <optional>
#include <stdexcept>
#include <string>
#include <thread>

using annulet::deadline;
using annulet::mutex;
using annulet::recursive_mutex;
using annulet::spawn;
using annulet_test::destroyed_and_made;
using annulet_test::driven;
using annulet_test::killed_in;
namespace this_fiber = annulet::this_fiber;
using namespace std::chrono_literals;

TEST_CASE(
    "one fiber at a time is inside, though each parks there, and they come in the order in which they "
    "asked") {
  driven world;
  mutex m;
  std::string order;
  int inside = 0;
  for (const char name : {'a', 'b', 'c', 'd', 'e'}) {
    spawn([&, name] {
      const std::lock_guard lock(m);
      CHECK(++inside == 1);
      this_fiber::sleep_for(name == 'a' ? 5ms : 1ms);
      order += name;
      --inside;
    }).detach();
  }
  this_fiber::sleep_for(1s);
  CHECK(order == "abcde");
  CHECK(m.try_lock());
  m.unlock();
}

TEST_CASE("unlock hands the mutex to who waits: the fiber that gave it up does not get it back before") {
  driven world;
  mutex m;
  std::string order;
  m.lock();
  auto other = spawn([&] {
    m.lock();
    order += 'o';
    m.unlock();
  });
  this_fiber::yield();
  m.unlock();
  CHECK_FALSE(m.held());
  CHECK_FALSE(m.try_lock());
  m.lock();
  order += 'm';
  m.unlock();
  CHECK(order == "om");
  other.join();
}

TEST_CASE("a lock with a deadline says false when that comes first, and is in nobody's way afterwards") {
  driven world;
  mutex m;
  m.lock();
  auto waits = spawn([&] { return m.lock(10ms); });
  auto after = spawn([&] {
    const std::unique_lock lock(m, 1h);
    return lock.owns_lock();
  });
  CHECK_FALSE(waits.get());
  CHECK(world.clock.since_start() == 10ms);
  m.unlock();
  CHECK(after.get());
  CHECK(m.try_lock_until(deadline::clock::now()));
  m.unlock();
}

TEST_CASE("a deadline of zero looks once") {
  driven world;
  mutex m;
  CHECK(m.lock(0ms));
  spawn([&] {
    CHECK_FALSE(m.lock(0ms));
    CHECK_FALSE(m.try_lock_for(-1s));
  }).join();
  m.unlock();
  CHECK(world.clock.reads == 0);
}

TEST_CASE("a fiber that is killed while it waits is never handed the mutex") {
  driven world;
  mutex m;
  m.lock();
  auto killed = spawn([&] { return killed_in([&] { m.lock(); }); });
  auto next = spawn([&] {
    m.lock();
    m.unlock();
    return true;
  });
  this_fiber::yield();
  killed.kill();
  m.unlock();  // before the killed one has run
  CHECK(next.get());
  CHECK(killed.get());
  CHECK(m.try_lock());
  m.unlock();
}

TEST_CASE("a fiber that was handed the mutex and then killed has it, and meets the kill at its next park") {
  driven world;
  mutex m;
  m.lock();
  bool had_it = false;
  auto handed = spawn([&] {
    const std::lock_guard lock(m);
    had_it = m.held();
    return killed_in([] { this_fiber::sleep_for(1h); });
  });
  this_fiber::yield();
  m.unlock();
  handed.kill();
  CHECK(handed.get());
  CHECK(had_it);
  CHECK(world.clock.since_start() == 0ms);
  CHECK(m.try_lock());
  m.unlock();
}

TEST_CASE("a timeout guard ends a wait for the mutex, and leaves it to the next") {
  driven world;
  mutex m;
  m.lock();
  auto guarded = spawn([&] {
    const annulet::timeout guard(5ms);
    try {
      m.lock();
    } catch (const annulet::timeout_expired& e) {
      return e.is(guard);
    }
    return false;
  });
  CHECK(guarded.get());
  m.unlock();
  CHECK(m.try_lock());
  m.unlock();
}

TEST_CASE("a fiber that locks and unlocks without end lets others run and can be killed") {
  driven world;
  mutex m;
  auto busy = spawn([&] {
    for (;;) {
      const std::lock_guard lock(m);
    }
  });
  for (int i = 0; i < 10; ++i) {
    this_fiber::yield();
  }
  busy.kill();
  busy.join();
  CHECK(m.try_lock());
  m.unlock();
}

TEST_CASE("a fiber that locks again and again what it has lets others run and can be killed") {
  driven world;
  recursive_mutex m;
  auto busy = spawn([&] {
    m.lock();
    for (;;) {
      const std::lock_guard lock(m);
    }
  });
  this_fiber::yield();
  busy.kill();
  CHECK(busy.join(0ms) == false);
  busy.join();
}

TEST_CASE("what cannot work is refused in words and changes nothing") {
  driven world;
  mutex m;
  CHECK_THROWS_WITH_AS(m.unlock(), doctest::Contains("mutex::unlock"), std::logic_error);
  m.lock();
  CHECK_THROWS_WITH_AS(m.lock(), doctest::Contains("has it already"), std::logic_error);
  CHECK_FALSE(m.try_lock());
  spawn([&] { CHECK_THROWS_AS(m.unlock(), std::logic_error); }).join();
  CHECK(m.held());
  std::thread([&] {
    CHECK_THROWS_AS(m.lock(), annulet::no_hub);
    driven another;
    CHECK_THROWS_AS(m.lock(), annulet::wrong_thread);
    CHECK_THROWS_AS((void)m.try_lock(), annulet::wrong_thread);
    CHECK_THROWS_AS(m.unlock(), annulet::wrong_thread);
  }).join();
  m.unlock();
  std::thread([&] {
    driven another;
    m.lock();
    m.unlock();
  }).join();
}

TEST_CASE("the holder's number is not another fiber's later, though its stack is") {
  driven world;
  mutex m;
  spawn([&] { m.lock(); }).join();  // and never unlocks
  spawn([&] {
    CHECK_FALSE(m.held());
    CHECK_FALSE(m.try_lock());
  }).join();
}

TEST_CASE("fibers that wait when the mutex is destroyed are told") {
  driven world;
  std::optional<mutex> m(std::in_place);
  m->lock();
  auto waits = spawn([&] { m->lock(); });
  this_fiber::yield();
  m.reset();
  CHECK_THROWS_WITH_AS(waits.get(), doctest::Contains("destroyed"), std::logic_error);
}

TEST_CASE("a recursive mutex is another's only when it was unlocked as often as locked") {
  driven world;
  recursive_mutex m;
  m.lock();
  CHECK(m.try_lock());
  CHECK(m.lock(0ms));
  bool other_has_it = false;
  auto other = spawn([&] {
    CHECK_FALSE(m.try_lock());
    const std::unique_lock lock(m);
    other_has_it = true;
    m.lock();
    this_fiber::yield();
    m.unlock();
  });
  for (int left = 3; left != 0; --left) {
    this_fiber::yield();
    CHECK_FALSE(other_has_it);
    m.unlock();
  }
  CHECK_FALSE(m.try_lock());
  this_fiber::yield();
  CHECK(other_has_it);
  CHECK_FALSE(m.try_lock());
  other.join();
  CHECK(m.try_lock());
  m.unlock();
  CHECK_THROWS_AS(m.unlock(), std::logic_error);
  CHECK(m.try_lock());
  m.unlock();
}

TEST_CASE("a recursive mutex may be destroyed when it was handed over, before who has it now runs") {
  driven world;
  destroyed_and_made<recursive_mutex> m;
  m->lock();
  auto next = spawn([&] { return m->lock(1s); });
  this_fiber::yield();
  m->unlock();
  m.destroy();
  CHECK(next.get());
  CHECK(m.untouched());
}

TEST_CASE("a recursive mutex may be destroyed while a lock that found it free lets others run") {
  driven world;
  destroyed_and_made<recursive_mutex> m;
  bool began = false;
  bool ended = false;
  auto busy = spawn([&] {
    while (m.alive()) {
      began = true;
      m->lock();
      if (m.alive()) {
        m->unlock();
      }
    }
    ended = true;
  });
  this_fiber::yield();
  CHECK(began);
  CHECK_FALSE(ended);
  m.destroy();
  busy.join();
  CHECK(m.untouched());
}
