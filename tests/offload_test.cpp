#include <annulet/hub/offload.hpp>

#include <annulet/hub/descriptor.hpp>
#include <annulet/hub/hub.hpp>
#include <annulet/runtime/cancellation.hpp>
#include <annulet/runtime/errors.hpp>
#include <annulet/runtime/event.hpp>
#include <annulet/runtime/fiber.hpp>
#include <annulet/runtime/fiber_group.hpp>
#include <annulet/runtime/scope.hpp>
#include <annulet/runtime/this_fiber.hpp>

#include "support/cancelled.hpp"
#include "support/child.hpp"
#include "support/files.hpp"

#include <doctest/doctest.h>

#include <array>
#include <atomic>
#include <chrono>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include <unistd.h>

using annulet::hub;
using annulet::offload;
using annulet::spawn;
using annulet_test::killed_in;
namespace this_fiber = annulet::this_fiber;
using namespace std::chrono_literals;

namespace {

// A function that has begun, and returns when it may.
struct held {
  std::atomic<bool> begun{false};
  std::atomic<bool> may_end{false};

  void operator()() {
    begun = true;
    while (!may_end) {
      ::usleep(100);
    }
  }
  void await_begun() const {
    while (!begun) {
      this_fiber::sleep_for(100us);
    }
  }
};

// Tells on which thread it was destroyed.
struct mark {
  std::atomic<pid_t>* destroyed_by;
  explicit mark(std::atomic<pid_t>* where) : destroyed_by(where) {}
  mark(mark&& other) noexcept : destroyed_by(std::exchange(other.destroyed_by, nullptr)) {}
  ~mark() {
    if (destroyed_by != nullptr) {
      *destroyed_by = ::gettid();
    }
  }
};

}  // namespace

TEST_CASE("what is offloaded runs on another thread, and others go on meanwhile") {
  hub home;
  held work;
  auto offloads = spawn([&] { return offload([&] { return work(), ::gettid(); }); });
  work.await_begun();
  CHECK_FALSE(offloads.done());
  work.may_end = true;
  CHECK(offloads.get() != ::gettid());
}

TEST_CASE("values that only move, references, nothing and errors come back") {
  hub home;
  CHECK(*offload([] { return std::make_unique<int>(4); }) == 4);
  int place = 0;
  CHECK(&offload([&]() -> int& { return place; }) == &place);
  offload([&] { place = 2; });
  CHECK(place == 2);
  CHECK_THROWS_WITH_AS(offload([]() -> int { throw std::runtime_error("wrong"); }), "wrong",
                       std::runtime_error);
  CHECK(offload([p = std::make_unique<int>(7)] { return *p; }) == 7);
}

TEST_CASE("a fiber that is killed or late does not wait, and what it offloaded ends by itself") {
  hub home;
  for (const bool by_kill : {true, false}) {
    CAPTURE(by_kill);
    auto work = std::make_shared<held>();
    std::atomic<pid_t> destroyed_by{0};
    auto offloads = spawn([&] {
      const auto call = [&] {
        offload([work, m = mark(&destroyed_by)] { (*work)(); },
                by_kill ? annulet::deadline::never() : annulet::deadline(5ms));
      };
      if (by_kill) {
        return killed_in(call);
      }
      CHECK_THROWS_AS(call(), annulet::deadline_passed);
      return true;
    });
    work->await_begun();
    if (by_kill) {
      offloads.kill();
    }
    CHECK(offloads.get());
    CHECK(destroyed_by == 0);
    CHECK(work.use_count() == 2);
    work->may_end = true;
    while (destroyed_by == 0) {
      this_fiber::sleep_for(100us);
    }
    CHECK(destroyed_by == ::gettid());
  }
}

TEST_CASE("what it holds is destroyed on the hub's thread, so it may hold what belongs there") {
  hub home;
  std::atomic<pid_t> destroyed_by{0};
  offload([m = mark(&destroyed_by)] {});
  CHECK(destroyed_by == ::gettid());
  auto [mine, its] = annulet::test::make_pipe();
  offload([held = annulet::descriptor::adopt(mine.release()), other = spawn([] {})] {});
}

TEST_CASE("one that has not begun when its fiber is killed is not called") {
  hub home;
  std::array<held, 4> busy;
  std::vector<annulet::fiber<void>> blockers;
  for (held& each : busy) {
    blockers.push_back(spawn([&] { offload([&] { each(); }); }));
  }
  for (const held& each : busy) {
    each.await_begun();
  }
  bool called = false;
  const auto watched = std::make_shared<int>(0);
  auto waits = spawn([&] { return killed_in([&] { offload([&, watched] { called = true; }); }); });
  this_fiber::yield();
  this_fiber::yield();
  waits.kill();
  CHECK(waits.get());
  CHECK(watched.use_count() == 1);
  for (held& each : busy) {
    each.may_end = true;
  }
  for (auto& each : blockers) {
    each.get();
  }
  CHECK_FALSE(called);
}

TEST_CASE("many at once all come back, each with its own") {
  hub home;
  const std::vector<int> numbers = [] {
    std::vector<int> all(2000);
    for (std::size_t i = 0; i < all.size(); ++i) {
      all[i] = static_cast<int>(i);
    }
    return all;
  }();
  const auto doubled =
      annulet::map_in_fibers(200, numbers, [](int i) { return offload([i] { return 2 * i; }); });
  for (const int i : numbers) {
    REQUIRE(doubled[static_cast<std::size_t>(i)] == 2 * i);
  }
}

TEST_CASE("killed, late or done, at nearly the same time: one outcome, and nothing is left") {
  hub home;
  const auto watched = std::make_shared<int>(0);
  unsigned done = 0;
  unsigned killed = 0;
  for (unsigned round = 0; round < 2000; ++round) {
    auto offloads = spawn([&] { return killed_in([&] { offload([watched] {}); }); });
    this_fiber::yield();
    if (round % 2 != 0) {
      this_fiber::sleep_for(std::chrono::microseconds(round % 40));
    }
    offloads.kill();
    ++(offloads.get() ? killed : done);
  }
  CHECK(done + killed == 2000);
  CHECK(killed > 0);
  while (watched.use_count() != 1) {
    this_fiber::sleep_for(100us);
  }
}

TEST_CASE("the hub's end waits for what runs, and destroys what it holds") {
  const auto watched = std::make_shared<int>(0);
  held work;
  std::thread lets_go;
  {
    hub home;
    spawn([&, watched] { offload([&, watched] { work(); }); }).detach();
    work.await_begun();
    lets_go = std::thread([&] {
      ::usleep(20'000);
      work.may_end = true;
    });
  }
  CHECK(work.may_end);
  CHECK(watched.use_count() == 1);
  lets_go.join();
}

TEST_CASE("while a hub ends nothing is offloaded any more, and that is said") {
  bool refused = false;
  {
    hub home;
    spawn([&] {
      if (killed_in([] { this_fiber::sleep_for(1h); })) {
        try {
          offload([] {});
        } catch (const annulet::hub_gone& e) {
          refused = std::string(e.what()).find("offload") != std::string::npos;
        }
      }
    }).detach();
    this_fiber::yield();
  }
  CHECK(refused);
}

TEST_CASE("an offloaded function that outlives the hub's patience ends the process, and is named") {
  const auto end = annulet_test::in_child([] {
    hub home({.shutdown_limit = 20ms});
    auto work = std::make_shared<held>();
    spawn([work] { offload([work] { (*work)(); }); }).detach();
    work->await_begun();
    return true;
  });
  CHECK(end.exit != 0);
  CHECK(end.says("offloaded function"));
}

TEST_CASE("a thread without a hub, and one of the pool's, cannot offload") {
  CHECK_THROWS_AS(offload([] {}), annulet::no_hub);
  hub home;
  CHECK_THROWS_AS(offload([] { offload([] {}); }), annulet::no_hub);
}

TEST_CASE("one that has ended when its fiber is killed leaves nothing behind") {
  hub home;
  const auto watched = std::make_shared<int>(0);
  for (int round = 0; round < 50; ++round) {
    std::atomic<bool> called{false};
    auto offloads = spawn([&] {
      return killed_in([&] {
        (void)offload([&called, watched] {
          called = true;
          return watched;
        });
      });
    });
    this_fiber::yield();
    while (!called) {
    }
    ::usleep(500);  // it has ended most likely, and the hub has not looked
    offloads.kill();
    CHECK(offloads.get());
  }
  while (watched.use_count() != 1) {
    this_fiber::sleep_for(100us);
  }
}

TEST_CASE("with a deadline in the past nothing is called") {
  hub home;
  std::atomic<int> calls{0};
  for (int i = 0; i < 100; ++i) {
    CHECK_THROWS_AS(offload([&] { ++calls; }, -1ms), annulet::deadline_passed);
  }
  this_fiber::sleep_for(1ms);
  CHECK(calls == 0);
}
