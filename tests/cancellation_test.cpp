// Kills and timeout guards: where they are thrown, where they stay pending, and which comes first.
#include <annulet/runtime/cancellation.hpp>

#include <annulet/runtime/errors.hpp>
#include <annulet/runtime/event.hpp>
#include <annulet/runtime/fiber.hpp>
#include <annulet/runtime/this_fiber.hpp>

#include "support/driven_clock.hpp"

#include <doctest/doctest.h>

#include <exception>
#include <string>
#include <type_traits>
#include <vector>

using annulet::event;
using annulet::fiber;
using annulet::fiber_killed;
using annulet::spawn;
using annulet_test::driven;
namespace this_fiber = annulet::this_fiber;
using namespace std::chrono_literals;

namespace {

template <class Fn>
struct at_end {
  Fn fn;
  ~at_end() { fn(); }
};
template <class Fn>
at_end(Fn) -> at_end<Fn>;

template <class Fn>
bool killed_in(Fn&& fn) {
  try {
    fn();
  } catch (const fiber_killed&) {
    return true;
  }
  return false;
}

}  // namespace

TEST_CASE("neither cancellation is a std::exception, so no handler of errors swallows it") {
  CHECK_FALSE(std::is_base_of_v<std::exception, fiber_killed>);
  CHECK_FALSE(std::is_base_of_v<std::exception, annulet::timeout_expired>);
}

TEST_CASE("a kill ends a fiber where it is parked: in a sleep, a wait, a join") {
  driven world;
  event never;
  auto sleeper = spawn([] { this_fiber::sleep_for(24h); });
  std::vector<fiber<bool>> all;
  all.push_back(spawn([] { return killed_in([] { this_fiber::sleep_for(1h); }); }));
  all.push_back(spawn([&] { return killed_in([&] { never.wait(); }); }));
  all.push_back(spawn([&] { return killed_in([&] { never.wait(1h); }); }));
  all.push_back(spawn([&] { return killed_in([&] { sleeper.join(); }); }));
  this_fiber::yield();
  for (auto& f : all) {
    f.kill();
    CHECK_FALSE(f.done());  // kill does not wait
  }
  for (auto& f : all) {
    CHECK(f.get());
  }
  CHECK(world.clock.since_start() == 0ns);
  CHECK_FALSE(sleeper.done());
}

TEST_CASE("a kill of a fiber that is ready is thrown at the yield it comes back from, or its next") {
  driven world;
  auto yields = spawn([] { return killed_in([] { this_fiber::yield(); }); });
  this_fiber::yield();
  yields.kill();
  CHECK(yields.get());
  fiber<bool> itself;
  itself = spawn([&] {
    itself.kill();
    return killed_in([] { this_fiber::yield(); });  // where nobody else is ready, too
  });
  CHECK(itself.get());
}

TEST_CASE("a kill is thrown once; who catches it goes on, and may be killed again") {
  driven world;
  int thrown = 0;
  auto f = spawn([&] {
    for (int i = 0; i < 4; ++i) {
      thrown += killed_in([] { this_fiber::sleep_for(1s); });
    }
  });
  this_fiber::yield();
  f.kill();
  f.kill();
  this_fiber::sleep_for(1500ms);  // one sleep of its went by whole
  CHECK(thrown == 1);
  f.kill();
  f.join();
  CHECK(thrown == 2);
  CHECK(f.done());
}

TEST_CASE("ready first, then killed: the wait returns its value, and the kill comes at the next park") {
  driven world;
  event flag;
  bool value = false, killed_next = false;
  auto f = spawn([&] {
    value = flag.wait(1h);
    killed_next = killed_in([] { this_fiber::sleep_for(1h); });
  });
  this_fiber::yield();
  flag.set();
  f.kill();
  f.join();
  CHECK(value);
  CHECK(killed_next);
  CHECK(world.clock.since_start() == 0ns);
}

TEST_CASE("killed first, then ready: the wait throws") {
  driven world;
  event flag;
  auto f = spawn([&] { return killed_in([&] { flag.wait(); }); });
  this_fiber::yield();
  f.kill();
  flag.set();
  CHECK(f.get());
}

TEST_CASE("timed out first, then killed: the wait says timed out, and the kill comes at the next park") {
  driven world;
  event never;
  std::string story;
  fiber<void> victim;
  auto killer = spawn([&] {
    this_fiber::sleep_for(10ms);
    victim.kill();
  });
  victim = spawn([&] {
    story += never.wait(10ms) ? "set " : "timed out ";
    story += killed_in([] { this_fiber::yield(); }) ? "killed" : "not killed";
  });
  victim.join();
  CHECK(story == "timed out killed");
}

TEST_CASE(
    "a kill while an exception is in flight stays pending, and no wait in a destructor is ended by it") {
  driven world;
  std::vector<std::string> story;
  auto f = spawn([&] {
    try {
      const at_end waits{[&] {
        this_fiber::sleep_for(10ms);
        story.push_back("slept " + std::to_string(world.clock.since_start() / 1ms));
        this_fiber::yield();
        event never;
        never.wait(10ms);
        story.push_back("waited " + std::to_string(world.clock.since_start() / 1ms));
      }};
      throw 1;
    } catch (int) {
      story.emplace_back("caught");
      if (killed_in([] { this_fiber::sleep_for(1h); })) {
        story.emplace_back("killed");
      }
    }
  });
  this_fiber::yield();
  f.kill();
  f.join();
  CHECK(story == std::vector<std::string>{"slept 10", "waited 20", "caught", "killed"});
}

TEST_CASE("a kill whose unwinding waits in a destructor is not disturbed by a second kill or a guard") {
  driven world;
  bool slept = false;
  auto f = spawn([&] {
    const annulet::timeout guard(5ms);
    const at_end waits{[&] {
      this_fiber::sleep_for(10ms);
      slept = true;
    }};
    this_fiber::sleep_for(1h);
  });
  this_fiber::yield();
  f.kill();
  this_fiber::sleep_for(1ms);
  f.kill();
  f.join();
  CHECK(slept);
  CHECK(world.clock.since_start() == 10ms);
  CHECK_THROWS_AS(f.get(), annulet::fiber_failed);
}

TEST_CASE("what must be waited for is not interrupted, and the kill comes at the next park") {
  driven world;
  annulet::detail::wake_reason why{};
  auto f = spawn([&] {
    annulet::detail::waiter w(world.self(), "a test");
    why = world.fibers.park_uninterrupted(w, 10ms, annulet::detail::wakers::outside);
    return killed_in([] { this_fiber::yield(); });
  });
  this_fiber::yield();
  f.kill();
  CHECK(f.get());
  CHECK(why == annulet::detail::wake_reason::timed_out);
  CHECK(world.clock.since_start() == 10ms);
}

TEST_CASE("a killed fiber runs its destructors, and those who join it wake") {
  driven world;
  std::string story;
  auto f = spawn([&] {
    const at_end outer{[&] { story += "outer "; }};
    const at_end inner{[&] { story += "inner "; }};
    this_fiber::sleep_for(1h);
  });
  auto joiner = spawn([&] {
    f.join();
    story += "joined";
  });
  this_fiber::yield();
  f.kill();
  joiner.join();
  CHECK(story == "inner outer joined");
}

TEST_CASE("a fiber that swallows its kill and returns a value has that value") {
  driven world;
  auto f = spawn([] {
    killed_in([] { this_fiber::sleep_for(1h); });
    return 5;
  });
  this_fiber::yield();
  f.kill();
  CHECK(f.get() == 5);
}

TEST_CASE("a fiber that is killed after its last park has its value, and a kill nobody met is forgotten") {
  driven world;
  fiber<int> f;
  f = spawn([&] {
    f.kill();
    return 6;
  });
  CHECK(f.get() == 6);
}

TEST_CASE("kill and guard at once, in either order: the kill first, then the guard where it still stands") {
  for (const bool guard_first : {true, false}) {
    driven world({.look_every = 1});
    std::string story;
    const annulet::timeout* made = nullptr;
    auto f = spawn([&] {
      const annulet::timeout guard(10ms);
      made = &guard;
      for (int i = 0; i < 2; ++i) {
        try {
          this_fiber::sleep_for(1h);
        } catch (const fiber_killed&) {
          story += "killed ";
        } catch (const annulet::timeout_expired& e) {
          story += e.is(guard) ? "expired " : "another's ";
        }
      }
      made = nullptr;
    });
    bool killed = false;
    if (guard_first) {  // in the look between the guard's expiry and the fiber's turn
      world.clock.on_look = [&] {
        if (made != nullptr && made->expired() && !killed) {
          killed = true;
          f.kill();
        }
      };
    } else {  // in the wait that ends at the guard's time
      world.clock.at(10ms, [&] { f.kill(); });
    }
    f.join();
    CHECK(killed == guard_first);
    CHECK(story == "killed expired ");
    CHECK(world.clock.since_start() == 10ms);
  }
}
