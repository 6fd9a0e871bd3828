#include <annulet/runtime/scope.hpp>

#include <annulet/runtime/cancellation.hpp>
#include <annulet/runtime/errors.hpp>
#include <annulet/runtime/fiber.hpp>
#include <annulet/runtime/this_fiber.hpp>

#include "support/cancelled.hpp"
#include "support/driven_clock.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <memory>
#include <ranges>
#include <sstream>
#include <stdexcept>
#include <string>
#include <vector>

using annulet::fiber_group;
using annulet::map_in_fibers;
using annulet::scope;
using annulet::spawn;
using annulet_test::driven;
using annulet_test::killed_in;
namespace this_fiber = annulet::this_fiber;
using namespace std::chrono_literals;

TEST_CASE("a scope returns what its body does, when the last child has ended") {
  driven world;
  int sum = 0;
  const std::string answer = scope([&](fiber_group& children) {
    for (int i = 1; i <= 4; ++i) {
      children.spawn([&, i] {
        this_fiber::sleep_for(std::chrono::milliseconds(i));
        sum += i;
      });
    }
    return std::string("body");
  });
  CHECK(answer == "body");
  CHECK(sum == 10);
  CHECK(world.clock.since_start() == 4ms);
  int place = 0;
  int& same = scope([&](fiber_group&) -> int& { return place; });
  CHECK(&same == &place);
  scope([](fiber_group&) {});
}

TEST_CASE("what the body throws is thrown when the children, killed, have ended") {
  driven world;
  bool ended = false;
  CHECK_THROWS_WITH_AS(scope([&](fiber_group& children) {
                         children.spawn([&] {
                           const bool killed = killed_in([] { this_fiber::sleep_for(1h); });
                           this_fiber::sleep_for(5ms);
                           ended = killed;
                         });
                         this_fiber::yield();
                         throw std::runtime_error("body");
                       }),
                       "body", std::runtime_error);
  CHECK(ended);
  CHECK(world.clock.since_start() == 5ms);
}

TEST_CASE("what a child throws ends the others and is thrown out of the scope") {
  driven world;
  bool other_ended = false;
  CHECK_THROWS_WITH_AS(scope([&](fiber_group& children) {
                         children.spawn([&] { other_ended = killed_in([] { this_fiber::sleep_for(1h); }); });
                         children.spawn([] {
                           this_fiber::sleep_for(1ms);
                           throw std::runtime_error("child");
                         });
                       }),
                       "child", std::runtime_error);
  CHECK(other_ended);
  CHECK(world.clock.since_start() == 1ms);
}

TEST_CASE("a kill or a guard that ends the scope's own wait ends the children first") {
  driven world;
  int ended = 0;
  const auto in_scope = [&] {
    scope([&](fiber_group& children) {
      children.spawn([&] {
        if (killed_in([] { this_fiber::sleep_for(1h); })) {
          this_fiber::sleep_for(2ms);
          ++ended;
        }
      });
    });
  };
  auto killed = spawn([&] { return killed_in(in_scope) && ended == 1; });
  this_fiber::sleep_for(1ms);
  killed.kill();
  CHECK(killed.get());
  bool expired = false;
  {
    const annulet::timeout guard(5ms);
    try {
      in_scope();
    } catch (const annulet::timeout_expired& e) {
      expired = e.is(guard);
    }
  }
  CHECK(expired);
  CHECK(ended == 2);
}

TEST_CASE("a scope can be limited, and scopes nest") {
  driven world;
  int running = 0;
  int most = 0;
  scope(
      [&](fiber_group& children) {
        for (int i = 0; i < 6; ++i) {
          children.spawn([&] {
            scope([&](fiber_group& grandchildren) {
              grandchildren.spawn([&] {
                most = std::max(most, ++running);
                this_fiber::sleep_for(1ms);
                --running;
              });
            });
          });
        }
      },
      3);
  CHECK(most == 3);
  CHECK(world.clock.since_start() == 2ms);
}

TEST_CASE("map gives the results in the range's order, so many at a time") {
  driven world;
  const std::vector<int> delays{5, 1, 4, 2, 3};
  int running = 0;
  int most = 0;
  const auto doubled = map_in_fibers(2, delays, [&](const int& ms) {
    most = std::max(most, ++running);
    this_fiber::sleep_for(std::chrono::milliseconds(ms));
    --running;
    return std::to_string(2 * ms);
  });
  CHECK(doubled == std::vector<std::string>{"10", "2", "8", "4", "6"});
  CHECK(most == 2);
  CHECK(map_in_fibers(1, std::vector<int>{}, [](int i) { return i; }).empty());
  CHECK_THROWS_AS(map_in_fibers(0, delays, [](int i) { return i; }), std::invalid_argument);
}

TEST_CASE("map takes views, ranges that are read once, elements to be changed, and results that only move") {
  driven world;
  const auto squares =
      map_in_fibers(3, std::views::iota(1, 5), [](int i) { return std::make_unique<int>(i * i); });
  REQUIRE(squares.size() == 4);
  CHECK(*squares[3] == 16);
  std::istringstream words("one two three");
  const auto sizes =
      map_in_fibers(2, std::ranges::istream_view<std::string>(words), [](const std::string& w) {
        this_fiber::yield();
        return w.size();
      });
  CHECK(sizes == std::vector<std::size_t>{3, 3, 5});
  std::vector<int> changed{1, 2, 3};
  map_in_fibers(8, changed, [](int& i) {
    this_fiber::yield();
    i *= 10;
  });
  CHECK(changed == std::vector<int>{10, 20, 30});
}

TEST_CASE("the first error in time ends a map, and no more items are begun") {
  driven world;
  int begun = 0;
  CHECK_THROWS_WITH_AS(map_in_fibers(2, std::views::iota(0, 100),
                                     [&](int i) {
                                       ++begun;
                                       this_fiber::sleep_for(std::chrono::milliseconds(i == 3 ? 1 : 10));
                                       if (i == 3) {
                                         throw std::runtime_error("the fourth");
                                       }
                                       return i;
                                     }),
                       "the fourth", std::runtime_error);
  CHECK(begun == 4);
  CHECK(world.clock.since_start() == 11ms);
}
