#include <annulet/runtime/future.hpp>

#include <annulet/hub/hub.hpp>
#include <annulet/runtime/cancellation.hpp>
#include <annulet/runtime/errors.hpp>
#include <annulet/runtime/event.hpp>
#include <annulet/runtime/fiber.hpp>
#include <annulet/runtime/this_fiber.hpp>
#include <annulet/runtime/wait_any.hpp>

#include "support/cancelled.hpp"
#include "support/driven_clock.hpp"

#include <doctest/doctest.h>

#include <atomic>
#include <cstdint>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <thread>
#include <utility>
#include <vector>

using annulet::broken_promise;
using annulet::future;
using annulet::promise;
using annulet::spawn;
using annulet_test::driven;
using annulet_test::killed_in;
namespace this_fiber = annulet::this_fiber;
using namespace std::chrono_literals;

TEST_CASE("a value is handed from who keeps the promise to who waits") {
  driven world;
  promise<std::unique_ptr<int>> p;
  auto f = p.get_future();
  CHECK_FALSE(f.ready());
  auto waits = spawn([&] { f.wait(); });
  auto gets = spawn([&] { return *f.get(); });
  this_fiber::yield();
  CHECK_FALSE(f.wait(0ms));
  CHECK_FALSE(f.wait(5ms));
  p.set_value(std::make_unique<int>(7));
  CHECK(f.ready());
  CHECK(gets.get() == 7);
  waits.get();
  CHECK(world.clock.since_start() == 5ms);
}

TEST_CASE("references, nothing, and errors are results too") {
  driven world;
  int place = 3;
  promise<int&> r;
  auto to_place = r.get_future();
  r.set_value(place);
  CHECK(&to_place.get() == &place);
  promise<void> n;
  auto nothing = n.get_future();
  n.set_value();
  nothing.get();
  promise<int> e;
  auto error = e.get_future();
  e.set_exception(std::make_exception_ptr(std::runtime_error("wrong")));
  CHECK_THROWS_WITH_AS(error.get(), "wrong", std::runtime_error);
  CHECK_THROWS_WITH_AS(error.get(), "wrong", std::runtime_error);
}

TEST_CASE("misuse is told in words, and changes nothing") {
  driven world;
  promise<int> p;
  auto f = p.get_future();
  CHECK_THROWS_AS((void)p.get_future(), std::logic_error);
  CHECK_THROWS_AS(p.set_exception(nullptr), std::invalid_argument);
  p.set_value(1);
  CHECK_THROWS_WITH_AS(p.set_value(2), doctest::Contains("promise::set_value"), std::logic_error);
  CHECK_THROWS_AS(p.set_exception(std::make_exception_ptr(1)), std::logic_error);
  CHECK(f.get() == 1);
  CHECK_THROWS_WITH_AS(f.get(), doctest::Contains("taken before"), std::logic_error);
  future<int> none;
  CHECK_FALSE(none);
  CHECK_THROWS_AS(none.get(), std::logic_error);
  CHECK_THROWS_AS((void)none.ready(), std::logic_error);
  auto moved = std::move(p);
  CHECK_THROWS_AS(p.set_value(1), std::logic_error);
}

TEST_CASE("a promise that goes before it is kept is broken, and who waits hears of it") {
  driven world;
  std::optional<promise<int>> p(std::in_place);
  auto f = p->get_future();
  auto waits = spawn([&] { CHECK_THROWS_AS(f.get(), broken_promise); });
  this_fiber::yield();
  p.reset();
  waits.get();
  p.emplace();
  f = p->get_future();
  *p = promise<int>();
  CHECK_THROWS_AS(f.get(), broken_promise);
}

TEST_CASE("a value that cannot be made leaves the promise to be kept") {
  driven world;
  struct picky {
    explicit picky(int v) : value(v) {}
    picky(picky&& other) : value(other.value) {
      if (value == 0) {
        throw std::invalid_argument("zero");
      }
    }
    int value;
  };
  promise<picky> p;
  auto f = p.get_future();
  CHECK_THROWS_AS(p.set_value(picky(0)), std::invalid_argument);
  CHECK_FALSE(f.ready());
  p.set_value(picky(2));
  CHECK(f.get().value == 2);
}

TEST_CASE("who is killed or late gets nothing, and the value stays") {
  driven world;
  promise<int> p;
  auto f = p.get_future();
  auto killed = spawn([&] { return killed_in([&] { (void)f.get(); }); });
  auto late = spawn([&] { CHECK_THROWS_AS((void)f.get(2ms), annulet::deadline_passed); });
  this_fiber::yield();
  killed.kill();
  late.get();
  p.set_value(4);
  CHECK(killed.get());
  CHECK(f.get() == 4);
}

TEST_CASE("a future that goes while it is waited for does not end the wait") {
  driven world;
  promise<int> p;
  std::optional<future<int>> f(p.get_future());
  auto gets = spawn([&] { return f->get(); });
  this_fiber::yield();
  f.reset();
  p.set_value(5);
  CHECK(gets.get() == 5);
}

TEST_CASE("futures are waited for beside other things") {
  driven world;
  promise<int> p;
  auto f = p.get_future();
  annulet::event flag;
  CHECK_FALSE(annulet::wait_any(1ms, f, flag).has_value());
  auto any = spawn([&] { return annulet::wait_any(1h, flag, f); });
  auto all = spawn([&] { return annulet::wait_all(1h, flag, f); });
  this_fiber::yield();
  p.set_value(1);
  CHECK(any.get() == 1u);
  CHECK_FALSE(all.done());
  flag.set();
  CHECK(all.get());
  CHECK(f.get() == 1);
}

TEST_CASE("promises are kept and broken by other threads") {
  annulet::hub home;
  constexpr int rounds = 2000;
  std::vector<promise<int>> promises(rounds);
  std::vector<future<int>> futures;
  for (auto& p : promises) {
    futures.push_back(p.get_future());
  }
  std::thread keeper([&promises] {
    for (int i = 0; i < rounds; ++i) {
      promise<int> mine = std::move(promises[static_cast<std::size_t>(i)]);
      if (i % 3 != 0) {
        mine.set_value(i);
      }
    }
  });
  int broken = 0;
  for (int i = 0; i < rounds; ++i) {
    try {
      const int got = futures[static_cast<std::size_t>(i)].get();
      CHECK(got == i);
    } catch (const broken_promise&) {
      CHECK(i % 3 == 0);
      ++broken;
    }
  }
  keeper.join();
  CHECK(broken == (rounds + 2) / 3);
}

TEST_CASE("a promise that lies in the frame that waits for it may be kept by another thread") {
  annulet::hub home;
  for (int i = 0; i < 2000; ++i) {
    std::optional<promise<int>> p(std::in_place);
    auto f = p->get_future();
    std::thread keeper([&] { p->set_value(i); });
    CHECK(f.get() == i);
    keeper.join();
  }
}

TEST_CASE("a future moves between threads that wait for it one after the other") {
  annulet::hub home;
  promise<int> p;
  auto f = p.get_future();
  CHECK_FALSE(f.wait(1ms));
  std::atomic<bool> waited{false};
  std::thread other([f = std::move(f), &waited]() mutable {
    annulet::hub second;
    CHECK_FALSE(f.wait(1ms));
    waited = true;
    CHECK(f.get() == 9);
  });
  while (!waited) {
    this_fiber::sleep_for(1ms);
  }
  p.set_value(9);
  other.join();
}

TEST_CASE("a promise that is kept when the hub of those who waited has ended wakes nobody") {
  std::optional<promise<int>> p(std::in_place);
  auto f = p->get_future();
  {
    annulet::hub home;
    spawn([&] { (void)f.get(); }).detach();
    this_fiber::yield();
  }
  p->set_value(3);
  annulet::hub again;
  CHECK(f.get() == 3);
}

TEST_CASE("while a hub ends its fibers may still wait for what other threads promise") {
  std::string log;
  promise<int> p;
  auto f = p.get_future();
  std::thread keeper;
  {
    annulet::hub home;
    spawn([&] {
      if (killed_in([] { this_fiber::sleep_for(1h); })) {
        keeper = std::thread([&] { p.set_value(6); });
        log = "got " + std::to_string(f.get(10s));
      }
    }).detach();
    this_fiber::yield();
  }
  keeper.join();
  CHECK(log == "got 6");
}

TEST_CASE(
    "a value that nobody fetched ends with the last who has promise or future, never in the hub's wait") {
  annulet::hub home;
  struct told {
    std::uint64_t* by = nullptr;  // the fiber that destroys it
    explicit told(std::uint64_t* where) : by(where) {}
    told(told&& other) noexcept : by(std::exchange(other.by, nullptr)) {}
    ~told() {
      if (by != nullptr) {
        *by = this_fiber::id();
      }
    }
  };
  for (int round = 0; round < 100; ++round) {
    std::uint64_t destroyed_by = 0;
    promise<told> p;
    auto waits = spawn([f = p.get_future()]() mutable { return killed_in([&] { (void)f.get(); }); });
    this_fiber::yield();
    std::thread([&, p = std::move(p)]() mutable { p.set_value(told(&destroyed_by)); }).join();
    waits.kill();  // before the hub has taken in the ring, which then finds nobody
    const std::uint64_t waiter = waits.id();
    CHECK(waits.get());
    CHECK(destroyed_by == waiter);
    this_fiber::sleep_for(10us);
  }
}
