#include <annulet/runtime/semaphore.hpp>

#include <annulet/runtime/errors.hpp>
#include <annulet/runtime/fiber.hpp>
#include <annulet/runtime/this_fiber.hpp>

#include "support/cancelled.hpp"
#include "support/driven_clock.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <optional>
#include <stdexcept>
#include <string>
#include <thread>

using annulet::semaphore;
using annulet::spawn;
using annulet_test::driven;
using annulet_test::killed_in;
namespace this_fiber = annulet::this_fiber;
using namespace std::chrono_literals;

TEST_CASE("as many are inside as there are permits, first come first served") {
  driven world;
  semaphore permits(3);
  int inside = 0;
  int most = 0;
  std::string order;
  for (const char name : {'a', 'b', 'c', 'd', 'e', 'f', 'g'}) {
    spawn([&, name] {
      permits.acquire();
      most = std::max(most, ++inside);
      order += name;
      this_fiber::sleep_for(1ms);
      --inside;
      permits.release();
    }).detach();
  }
  this_fiber::sleep_for(1s);
  CHECK(most == 3);
  CHECK(order == "abcdefg");
  CHECK(permits.available() == 3);
}

TEST_CASE("several permits at once go to those that wait, and the rest is kept") {
  driven world;
  semaphore permits(0);
  int served = 0;
  for (int i = 0; i < 3; ++i) {
    spawn([&] {
      permits.acquire();
      ++served;
    }).detach();
  }
  this_fiber::yield();
  permits.release(5);
  CHECK(permits.available() == 2);
  this_fiber::yield();
  CHECK(served == 3);
  CHECK(permits.try_acquire());
  CHECK(permits.acquire(0ms));
  CHECK_FALSE(permits.try_acquire());
  CHECK_FALSE(permits.acquire(0ms));
  CHECK_FALSE(permits.acquire(2ms));
  CHECK(world.clock.since_start() == 2ms);
  permits.release(0);
  CHECK(permits.available() == 0);
}

TEST_CASE("a permit is not taken by one who did not wait, nor given to one who was killed") {
  driven world;
  semaphore permits(0);
  auto killed = spawn([&] { return killed_in([&] { permits.acquire(); }); });
  auto next = spawn([&] { return permits.acquire(1h); });
  this_fiber::yield();
  killed.kill();
  permits.release();
  CHECK_FALSE(permits.try_acquire());
  CHECK(killed.get());
  CHECK(next.get());
  CHECK(permits.available() == 0);
}

TEST_CASE("a permit that was given before the kill is kept") {
  driven world;
  semaphore permits(0);
  auto given = spawn([&] { return permits.acquire(1h) && killed_in([] { this_fiber::yield(); }); });
  this_fiber::yield();
  permits.release();
  given.kill();
  CHECK(given.get());
  CHECK(permits.available() == 0);
}

TEST_CASE("a bounded one takes no more than the bound, and a bad one is refused") {
  driven world;
  semaphore permits(1, 2);
  permits.release();
  CHECK_THROWS_AS(permits.release(), std::logic_error);
  CHECK(permits.try_acquire());
  CHECK_THROWS_AS(permits.release(2), std::logic_error);
  CHECK(permits.available() == 1);
  CHECK_THROWS_AS(semaphore(2, 1), std::invalid_argument);
  CHECK_THROWS_AS(semaphore(static_cast<std::size_t>(-1)), std::invalid_argument);
  CHECK_THROWS_AS(semaphore(0, static_cast<std::size_t>(-1)), std::invalid_argument);
  semaphore all(semaphore::unbounded - 1);
  all.release();
  CHECK_THROWS_AS(all.release(), std::logic_error);
}

TEST_CASE("a semaphore that fibers wait for belongs to their thread, and tells them when it is destroyed") {
  driven world;
  std::optional<semaphore> permits(0);
  auto waits = spawn([&] { permits->acquire(); });
  this_fiber::yield();
  std::thread([&] {
    CHECK_THROWS_AS(permits->release(), annulet::no_hub);
    driven another;
    CHECK_THROWS_AS(permits->release(), annulet::wrong_thread);
    CHECK_THROWS_AS(permits->acquire(), annulet::wrong_thread);
    CHECK_THROWS_AS((void)permits->try_acquire(), annulet::wrong_thread);
  }).join();
  permits.reset();
  CHECK_THROWS_WITH_AS(waits.get(), doctest::Contains("destroyed"), std::logic_error);
}
