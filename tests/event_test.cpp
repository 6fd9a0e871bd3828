#include <annulet/runtime/event.hpp>

#include <annulet/runtime/cancellation.hpp>
#include <annulet/runtime/errors.hpp>
#include <annulet/runtime/fiber.hpp>
#include <annulet/runtime/this_fiber.hpp>

#include "support/driven_clock.hpp"

#include <doctest/doctest.h>

#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

using annulet::deadline;
using annulet::event;
using annulet::spawn;
using annulet_test::driven;
namespace this_fiber = annulet::this_fiber;
using namespace std::chrono_literals;

TEST_CASE("a new event is not set, stays set until it is cleared, and does not park when set") {
  driven world;
  event flag;
  CHECK_FALSE(flag.is_set());
  flag.set();
  flag.set();
  CHECK(flag.is_set());
  CHECK(flag.wait());
  CHECK(flag.wait(0ms));
  CHECK(flag.wait(1h));
  flag.clear();
  flag.clear();
  CHECK_FALSE(flag.is_set());
  CHECK_FALSE(flag.wait(0ms));
  CHECK(world.clock.waits == 0);
}

TEST_CASE("set wakes all that wait, first come first") {
  driven world;
  event flag;
  std::string woken;
  for (const char name : {'a', 'b', 'c', 'd'}) {
    spawn([&, name] {
      CHECK(flag.wait(name % 2 == 0 ? deadline(1h) : deadline::never()));
      woken += name;
    }).detach();
  }
  this_fiber::yield();
  flag.set();
  CHECK(woken.empty());  // set does not park
  this_fiber::yield();
  CHECK(woken == "abcd");
}

TEST_CASE("a wait ends at its deadline with false, and not a nanosecond before") {
  driven world;
  event flag;
  CHECK_FALSE(flag.wait(10ms));
  CHECK(world.clock.since_start() == 10ms);
  CHECK_FALSE(flag.wait(1ns));
  CHECK(world.clock.since_start() == 10ms + 1ns);
}

TEST_CASE("a deadline of zero or less looks once, reads no clock and does not wait") {
  driven world;
  event flag;
  for (const deadline until : {deadline(0ms), deadline(-1s), deadline::past()}) {
    CHECK_FALSE(flag.wait(until));
  }
  flag.set();
  for (const deadline until : {deadline(0ms), deadline(-1s), deadline::past()}) {
    CHECK(flag.wait(until));
  }
  CHECK(world.clock.reads == 0);
  CHECK(world.clock.waits == 0);
}

TEST_CASE("a time gone by as deadline ends the wait without time passing") {
  driven world;
  event flag;
  CHECK_FALSE(flag.wait(std::chrono::steady_clock::time_point(1ns)));
  CHECK(world.clock.since_start() == 0ns);
}

TEST_CASE("set after the deadline's expiry does not turn a timed-out wait around") {
  driven world;
  event flag;
  std::optional<bool> result;
  auto setter = spawn([&] {
    this_fiber::sleep_for(10ms);  // its timer is the first of the two
    CHECK_FALSE(result.has_value());
    flag.set();
  });
  auto waits = spawn([&] { result = flag.wait(10ms); });
  waits.join();
  CHECK(result == false);
  setter.join();
}

TEST_CASE("a wait that was set counts as set though the deadline passes before the fiber runs") {
  driven world;
  event flag;
  auto waits = spawn([&] { return flag.wait(10ms); });
  this_fiber::yield();
  flag.set();
  world.clock.advance(1h);
  CHECK(waits.get());
}

TEST_CASE("a wait that set has ended returns true though the flag was cleared before the fiber ran") {
  driven world;
  event flag;
  auto a = spawn([&] { return flag.wait(); });
  auto b = spawn([&] { return flag.wait(1s); });
  this_fiber::yield();
  flag.set();
  flag.clear();
  auto late = spawn([&] { return flag.wait(1s); });
  CHECK(a.get());
  CHECK(b.get());
  CHECK_FALSE(late.get());
}

TEST_CASE("waiters may set, clear and wait again as they wake") {
  driven world;
  event flag;
  int rounds = 0;
  const auto body = [&] {
    for (int i = 0; i < 10; ++i) {
      flag.wait();
      flag.clear();
      ++rounds;
    }
  };
  auto a = spawn(body), b = spawn(body);
  while (!a.done() || !b.done()) {
    flag.set();
    this_fiber::yield();
  }
  CHECK(rounds == 20);
}

TEST_CASE("fibers that wait for an event which is destroyed get std::logic_error, each of them") {
  driven world;
  std::optional<event> flag(std::in_place);
  int told = 0;
  std::vector<annulet::fiber<void>> all;
  for (int i = 0; i < 3; ++i) {
    all.push_back(spawn([&] {
      try {
        flag->wait(1h);
      } catch (const std::logic_error& e) {
        told += std::string(e.what()).find("destroyed") != std::string::npos;
      }
    }));
  }
  this_fiber::yield();
  flag.reset();
  for (auto& f : all) {
    f.join();
  }
  CHECK(told == 3);
  CHECK(world.clock.since_start() == 0ns);
}

TEST_CASE("a killed waiter is off the list at once, and the others keep their order") {
  driven world;
  event flag;
  std::string woken;
  std::vector<annulet::fiber<void>> all;
  for (const char name : {'a', 'b', 'c'}) {
    all.push_back(spawn([&, name] {
      flag.wait();
      woken += name;
    }));
  }
  this_fiber::yield();
  all[1].kill();
  flag.set();  // before the killed one ran
  for (auto& f : all) {
    f.join();
  }
  CHECK(woken == "ac");
  CHECK_THROWS_AS(all[1].get(), annulet::fiber_failed);
}

TEST_CASE("a waiter that timed out, was killed or was told of a guard leaves the event fit to be destroyed") {
  driven world;
  auto flag = std::make_unique<event>();
  auto timed_out = spawn([&] { return flag->wait(1ms); });
  auto killed = spawn([&] { return flag->wait(); });
  auto guarded = spawn([&] {
    const annulet::timeout guard(1ms);
    try {
      return flag->wait() ? 1 : 2;
    } catch (const annulet::timeout_expired&) {
      return 3;
    }
  });
  this_fiber::yield();
  killed.kill();
  this_fiber::sleep_for(2ms);
  CHECK_FALSE(timed_out.get());
  CHECK_THROWS_AS(killed.get(), annulet::fiber_failed);
  CHECK(guarded.get() == 3);
  flag.reset();
  CHECK(world.clock.since_start() == 2ms);
}

TEST_CASE("another thread that waits for, or sets, an event that fibers of this one wait for is refused") {
  driven here;
  event flag;
  auto waits = spawn([&] { return flag.wait(); });
  this_fiber::yield();
  int refused = 0;
  std::thread other([&] {
    CHECK_THROWS_AS(flag.set(), annulet::no_hub);
    const driven there;
    try {
      flag.set();
    } catch (const annulet::wrong_thread&) {
      ++refused;
    }
    try {
      flag.wait(1s);
    } catch (const annulet::wrong_thread&) {
      ++refused;
    }
  });
  other.join();
  CHECK(refused == 2);
  CHECK_FALSE(flag.is_set());
  flag.set();
  CHECK(waits.get());
}

TEST_CASE("an event serves one thread after another, and outlives a scheduler") {
  event flag;
  for (int i = 0; i < 2; ++i) {
    std::thread other([&] {
      driven world;
      auto waits = spawn([&] { return flag.wait(1s); });
      this_fiber::yield();
      flag.set();
      CHECK(waits.get());
      flag.clear();
    });
    other.join();
  }
  {
    driven world;
    spawn([&] { flag.wait(); }).detach();
    this_fiber::yield();
  }
  const driven world;
  CHECK_FALSE(flag.wait(1ms));
  flag.set();
  CHECK(flag.wait());
}
