#include <annulet/runtime/cancellation.hpp>
#include <annulet/runtime/event.hpp>
#include <annulet/runtime/fiber.hpp>
#include <annulet/runtime/queue.hpp>
#include <annulet/runtime/this_fiber.hpp>

#include "support/cancelled.hpp"
#include "support/child.hpp"
#include "support/driven_clock.hpp"

#include <doctest/doctest.h>

#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

using annulet::shield;
using annulet::spawn;
using annulet::timeout;
using annulet_test::driven;
using annulet_test::killed_in;
namespace this_fiber = annulet::this_fiber;
using namespace std::chrono_literals;

TEST_CASE("a kill waits for the end of the shield, and is thrown at the first park after it") {
  driven world;
  std::string log;
  auto shielded = spawn([&] {
    {
      const shield outer;
      {
        const shield inner;
        this_fiber::sleep_for(2ms);
        log += "slept ";
      }
      this_fiber::yield();
      log += "yielded ";
    }
    log += "out ";
    return killed_in([&] {
      this_fiber::yield();
      log += "not here";
    });
  });
  this_fiber::yield();
  shielded.kill();
  CHECK(shielded.get());
  CHECK(log == "slept yielded out ");
  CHECK(world.clock.since_start() == 2ms);
}

TEST_CASE("guards wait too, those made under the shield as well, and deadlines do not") {
  driven world;
  const timeout outer(1ms);
  std::optional<timeout> inner;
  annulet::event never;
  {
    const shield up;
    inner.emplace(2ms);
    CHECK_FALSE(never.wait(5ms));
    CHECK(world.clock.since_start() == 5ms);
    CHECK(outer.expired());
    CHECK(inner->expired());
  }
  for (const timeout* const guard : {&outer, std::as_const(inner).operator->()}) {
    bool its = false;
    try {
      this_fiber::yield();
    } catch (const annulet::timeout_expired& e) {
      its = e.is(*guard);
    }
    CHECK(its);
  }
  this_fiber::yield();
}

TEST_CASE("a guard that goes under the shield takes its expiry along") {
  driven world;
  {
    const shield up;
    const timeout guard(0ms);
    this_fiber::yield();
  }
  this_fiber::yield();
}

TEST_CASE("a fiber may shield itself after its own kill, and in an unwinding") {
  driven world;
  annulet::queue<int> items(1);
  auto kills_itself = spawn([&] {
    const auto finish = [&] {
      const shield up;
      items.push(1);
      items.push(2);
    };
    try {
      this_fiber::sleep_for(1h);
    } catch (const annulet::fiber_killed&) {
      finish();
      throw;
    }
  });
  this_fiber::yield();
  kills_itself.kill();
  kills_itself.kill();
  CHECK(items.pop(1s) == 1);
  CHECK(items.pop(1s) == 2);
  CHECK_THROWS_AS(kills_itself.get(), annulet::fiber_failed);
}

TEST_CASE("many shields are as good as one") {
  driven world;
  std::vector<std::unique_ptr<shield>> many(70'000);
  auto shielded = spawn([&] {
    for (auto& each : many) {
      each = std::make_unique<shield>();
    }
    this_fiber::sleep_for(1ms);
    many.clear();
    return killed_in([] { this_fiber::yield(); });
  });
  this_fiber::yield();
  shielded.kill();
  CHECK(shielded.get());
}

TEST_CASE("a shield on a thread without a hub is refused") { CHECK_THROWS_AS(shield(), annulet::no_hub); }

TEST_CASE("a deadlock under a shield ends the process, and says why") {
  const auto end = annulet_test::in_child([] {
    driven world;
    const shield up;
    annulet::event never;
    never.wait();
    return true;
  });
  CHECK(end.exit != 0);
  CHECK(end.says("deadlock"));
  CHECK(end.says("shielded"));
}
