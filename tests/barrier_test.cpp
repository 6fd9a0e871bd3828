#include <annulet/runtime/barrier.hpp>

#include <annulet/runtime/errors.hpp>
#include <annulet/runtime/fiber.hpp>
#include <annulet/runtime/latch.hpp>
#include <annulet/runtime/this_fiber.hpp>

#include "support/cancelled.hpp"
#include "support/driven_clock.hpp"

#include <doctest/doctest.h>

#include <optional>
#include <stdexcept>
#include <string>
#include <thread>

using annulet::barrier;
using annulet::latch;
using annulet::spawn;
using annulet_test::driven;
using annulet_test::killed_in;
namespace this_fiber = annulet::this_fiber;
using namespace std::chrono_literals;

TEST_CASE(
    "a barrier holds all until the last has come, round after round, and its completion runs in between") {
  driven world;
  std::string history;
  barrier meeting(3, [&] { history += '|'; });
  for (const char name : {'a', 'b', 'c'}) {
    spawn([&, name] {
      for (int round = 0; round < 3; ++round) {
        this_fiber::sleep_for(std::chrono::milliseconds(name - 'a' + 1));
        history += name;
        CHECK(meeting.arrive_and_wait());
      }
    }).detach();
  }
  this_fiber::sleep_for(1s);
  CHECK(history == "abc|abc|abc|");
}

TEST_CASE("who gives up at a barrier has not arrived, even where the last comes before it has run") {
  driven world;
  barrier meeting(2);
  auto killed = spawn([&] { return killed_in([&] { meeting.arrive_and_wait(); }); });
  this_fiber::yield();
  killed.kill();
  auto second = spawn([&] { return meeting.arrive_and_wait(); });
  CHECK_FALSE(meeting.arrive_and_wait(0ms));
  this_fiber::yield();
  CHECK(killed.get());
  CHECK_FALSE(second.done());
  auto late = spawn([&] { return meeting.arrive_and_wait(5ms); });
  CHECK(second.get());
  CHECK(late.get());
  CHECK_FALSE(meeting.arrive_and_wait(5ms));
  CHECK(world.clock.since_start() == 5ms);
}

TEST_CASE("who leaves a barrier is not waited for any more") {
  driven world;
  barrier meeting(3);
  auto a = spawn([&] { return meeting.arrive_and_wait(); });
  auto b = spawn([&] { return meeting.arrive_and_wait(); });
  this_fiber::yield();
  CHECK_FALSE(a.done());
  meeting.leave();
  CHECK(a.get());
  CHECK(b.get());
  meeting.leave();
  CHECK(meeting.arrive_and_wait());
  meeting.leave();
  CHECK_THROWS_AS(meeting.leave(), std::logic_error);
  CHECK_THROWS_AS(meeting.arrive_and_wait(), std::logic_error);
}

TEST_CASE("what a barrier's completion throws goes to the last, and the others go on") {
  driven world;
  barrier meeting(2, [] { throw std::runtime_error("completion"); });
  auto first = spawn([&] { return meeting.arrive_and_wait(); });
  this_fiber::yield();
  CHECK_THROWS_WITH_AS(meeting.arrive_and_wait(), "completion", std::runtime_error);
  CHECK(first.get());
}

TEST_CASE("a barrier's completion that parks lets nobody through before it is over") {
  driven world;
  barrier meeting(2, [] { this_fiber::sleep_for(1ms); });
  auto first = spawn([&] { return meeting.arrive_and_wait(); });
  this_fiber::yield();
  auto third = spawn([&] { CHECK_THROWS_AS(meeting.arrive_and_wait(), std::logic_error); });
  CHECK(meeting.arrive_and_wait());
  CHECK(first.get());
  third.get();
}

TEST_CASE("a negative count is refused") {
  CHECK_THROWS_AS(latch(static_cast<std::size_t>(-1)), std::invalid_argument);
  CHECK_THROWS_AS(annulet::barrier(static_cast<std::size_t>(-1)), std::invalid_argument);
  CHECK_NOTHROW((void)latch(latch::max));
}

TEST_CASE("a latch opens when it has been counted down, once and for all") {
  driven world;
  latch done(3);
  auto waits = spawn([&] { return done.wait(); });
  auto arrives = spawn([&] { return done.arrive_and_wait(1h); });
  CHECK_FALSE(done.wait(0ms));
  CHECK_FALSE(done.wait(1ms));
  CHECK_FALSE(done.is_open());
  CHECK_THROWS_AS(done.count_down(3), std::logic_error);
  CHECK_FALSE(waits.done());
  done.count_down(2);
  CHECK(done.is_open());
  CHECK(waits.get());
  CHECK(arrives.get());
  CHECK(done.wait(0ms));
  CHECK_THROWS_AS(done.count_down(), std::logic_error);
  CHECK(latch(0).wait());
}

TEST_CASE("a wait at a latch can be killed, and what it counted stays counted") {
  driven world;
  latch done(2);
  auto killed = spawn([&] { return killed_in([&] { done.arrive_and_wait(); }); });
  this_fiber::yield();
  killed.kill();
  CHECK(killed.get());
  done.count_down();
  CHECK(done.is_open());
}

TEST_CASE(
    "a barrier of none is refused; another thread is, while fibers wait; and they are told of the end") {
  driven world;
  CHECK_THROWS_AS(barrier(0), std::invalid_argument);
  std::optional<barrier> meeting(2);
  std::optional<latch> done(1);
  auto a = spawn([&] { meeting->arrive_and_wait(); });
  auto b = spawn([&] { done->wait(); });
  this_fiber::yield();
  std::thread([&] {
    driven another;
    CHECK_THROWS_AS(meeting->arrive_and_wait(), annulet::wrong_thread);
    CHECK_THROWS_AS(meeting->leave(), annulet::wrong_thread);
    CHECK_THROWS_AS(done->wait(), annulet::wrong_thread);
    CHECK_THROWS_AS(done->count_down(), annulet::wrong_thread);
  }).join();
  meeting.reset();
  done.reset();
  CHECK_THROWS_WITH_AS(a.get(), doctest::Contains("destroyed"), std::logic_error);
  CHECK_THROWS_WITH_AS(b.get(), doctest::Contains("destroyed"), std::logic_error);
}
