#include <annulet/runtime/fiber_local.hpp>

#include <annulet/runtime/errors.hpp>
#include <annulet/runtime/fiber.hpp>
#include <annulet/runtime/this_fiber.hpp>

#include "support/cancelled.hpp"
#include "support/child.hpp"
#include "support/driven_clock.hpp"

#include <doctest/doctest.h>

#include <functional>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <thread>
#include <utility>
#include <vector>

using annulet::fiber_local;
using annulet::spawn;
using annulet_test::driven;
using annulet_test::killed_in;
namespace this_fiber = annulet::this_fiber;
using namespace std::chrono_literals;

namespace {

struct noted {
  std::string* log;
  char name;
  noted(std::string& l, char n) : log(&l), name(n) {}
  noted(const noted&) = delete;
  ~noted() { *log += name; }
};

}  // namespace

TEST_CASE("each fiber has a value of its own, made when it first asks") {
  driven world;
  int made = 0;
  fiber_local<int> number([&] { return ++made; });
  CHECK(number.get_if() == nullptr);
  CHECK(*number == 1);
  *number = 10;
  std::vector<annulet::fiber<int>> others;
  for (int i = 0; i < 3; ++i) {
    others.push_back(spawn([&] {
      *number += 100;
      this_fiber::yield();
      return *number;
    }));
  }
  CHECK(others[0].get() == 102);
  CHECK(others[1].get() == 103);
  CHECK(others[2].get() == 104);
  CHECK(*number == 10);
  CHECK(*number.get_if() == 10);
  CHECK(made == 4);
}

TEST_CASE("two variables of one fiber are two, and a stack that is used again starts anew") {
  driven world;
  fiber_local<int> a;
  fiber_local<std::string> b;
  for (int round = 0; round < 3; ++round) {
    spawn([&] {
      CHECK(*a == 0);
      CHECK(b->empty());
      *a = 1;
      *b = "one";
      CHECK(*a == 1);
      CHECK(*b == "one");
    }).join();
  }
}

TEST_CASE("values are destroyed when their fiber ends, the newest first, also where it is killed") {
  driven world;
  std::string log;
  fiber_local<std::unique_ptr<noted>> a([&] { return std::make_unique<noted>(log, 'a'); });
  fiber_local<std::unique_ptr<noted>> b([&] { return std::make_unique<noted>(log, 'b'); });
  auto ends = spawn([&] {
    (void)*a;
    (void)*b;
  });
  ends.join();
  CHECK(log == "ba");
  auto killed = spawn([&] {
    (void)*b;
    this_fiber::sleep_for(1h);
  });
  this_fiber::yield();
  killed.kill();
  killed.join();
  CHECK(log == "bab");
}

TEST_CASE("a value may outlive its variable") {
  driven world;
  std::string log;
  auto variable = std::make_unique<fiber_local<std::unique_ptr<noted>>>(
      [&] { return std::make_unique<noted>(log, 'x'); });
  auto holds = spawn([&] {
    (void)**variable;
    this_fiber::sleep_for(1ms);
  });
  this_fiber::yield();
  variable.reset();
  CHECK(log.empty());
  holds.join();
  CHECK(log == "x");
}

TEST_CASE("a value's destructor may park, is not ended by a kill, and may make another value") {
  driven world;
  std::string log;
  fiber_local<std::unique_ptr<noted>> later([&] { return std::make_unique<noted>(log, 'l'); });
  struct parks {
    std::string* log = nullptr;
    fiber_local<std::unique_ptr<noted>>* later = nullptr;
    ~parks() {
      if (log != nullptr) {
        this_fiber::sleep_for(5ms);
        *log += 'p';
        (void)**later;
      }
    }
  };
  fiber_local<std::optional<parks>> slow;
  auto ends = spawn([&] {
    slow->emplace();
    (*slow)->log = &log;
    (*slow)->later = &later;
  });
  this_fiber::yield();
  ends.kill();
  ends.join();
  CHECK(log == "pl");
  CHECK(world.clock.since_start() == 5ms);
}

TEST_CASE("main's values live as long as its hub, and each thread's main has its own") {
  std::string log;
  fiber_local<std::unique_ptr<noted>> value([&] { return std::make_unique<noted>(log, 'm'); });
  CHECK_THROWS_AS(*value, annulet::no_hub);
  {
    driven world;
    (void)*value;
    std::thread([&] {
      driven another;
      CHECK(value.get_if() == nullptr);
    }).join();
    CHECK(log.empty());
  }
  CHECK(log == "m");
  driven world;
  CHECK(value.get_if() == nullptr);
}

TEST_CASE("where the first value cannot be made the fiber has none") {
  driven world;
  bool fails = true;
  fiber_local<int> value([&]() -> int { return fails ? throw std::runtime_error("not yet") : 5; });
  CHECK_THROWS_WITH_AS(*value, "not yet", std::runtime_error);
  CHECK(value.get_if() == nullptr);
  fails = false;
  CHECK(*value == 5);
}

TEST_CASE("a first value that is made while another makes it is the one") {
  driven world;
  int made = 0;
  fiber_local<int>* self = nullptr;
  fiber_local<int> number([&] {
    const int mine = ++made;
    if (mine == 1) {
      *self->operator->() = 20;
    }
    return mine;
  });
  self = &number;
  CHECK(*number == 20);
  CHECK(*number.get_if() == 20);
}

TEST_CASE("a result that uses a fiber-local when nobody wants it leaves none behind") {
  driven world;
  const auto watched = std::make_shared<int>(0);
  fiber_local<std::shared_ptr<int>> kept;
  struct result {
    fiber_local<std::shared_ptr<int>>* variable;
    std::shared_ptr<int> value;
    result(fiber_local<std::shared_ptr<int>>* v, std::shared_ptr<int> p) : variable(v), value(std::move(p)) {}
    result(result&&) = default;
    ~result() {
      if (value != nullptr) {
        **variable = std::move(value);
      }
    }
  };
  spawn([&] { return result(&kept, watched); }).detach();
  this_fiber::yield();
  CHECK(watched.use_count() == 1);
}

TEST_CASE("a destructor finds the value that it destroys") {
  driven world;
  struct id {
    int number = 7;
    fiber_local<id>* mine = nullptr;
    int* seen = nullptr;
    id() = default;
    id(id&&) = default;
    ~id() {
      if (seen != nullptr) {
        *seen = (*mine)->number;
      }
    }
  };
  fiber_local<id> current;
  int seen = 0;
  spawn([&] {
    current->mine = &current;
    current->seen = &seen;
  }).join();
  CHECK(seen == 7);
}

TEST_CASE("values that make each other anew are given up after some rounds, and that is said") {
  const auto end = annulet_test::in_child([] {
    driven world;
    struct maker {
      fiber_local<maker>* other = nullptr;
      maker() = default;
      explicit maker(fiber_local<maker>* o) : other(o) {}
      maker(maker&& m) noexcept : other(std::exchange(m.other, nullptr)) {}
      ~maker() {
        if (other != nullptr) {
          (void)**other;
        }
      }
    };
    fiber_local<maker>* second = nullptr;
    fiber_local<maker> a([&] { return maker(second); });
    fiber_local<maker> b([&] { return maker(&a); });
    second = &b;
    spawn([&] { (void)*a; }).join();
    return true;
  });
  CHECK(end.exit == 0);
  CHECK(end.says("fiber_local"));
}

TEST_CASE("a variable without a function for first values is refused") {
  CHECK_THROWS_AS(fiber_local<int>(std::function<int()>()), std::invalid_argument);
}
