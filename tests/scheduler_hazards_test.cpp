// What a switch between two stacks can break, one test each.
#include <annulet/runtime/event.hpp>
#include <annulet/runtime/fiber.hpp>
#include <annulet/runtime/this_fiber.hpp>

#include "support/driven_clock.hpp"

#include <doctest/doctest.h>

#include <cerrno>
#include <cfenv>
#include <cmath>
#include <exception>
#include <stdexcept>
#include <string>
#include <vector>

using annulet::event;
using annulet::spawn;
using annulet_test::driven;
namespace this_fiber = annulet::this_fiber;
using namespace std::chrono_literals;

namespace {

std::string current_what() {
  const std::exception_ptr now = std::current_exception();
  if (now == nullptr) {
    return "none";
  }
  try {
    std::rethrow_exception(now);
  } catch (const std::exception& e) {
    return e.what();
  }
}

// Calls fn when destroyed.
template <class Fn>
struct at_end {
  Fn fn;
  ~at_end() { fn(); }
};
template <class Fn>
at_end(Fn) -> at_end<Fn>;

}  // namespace

TEST_CASE("errno is each fiber's own over yields") {
  driven world;
  const auto body = [](int mine) {
    for (int i = 0; i < 100; ++i) {
      errno = mine;
      this_fiber::yield();
      CHECK(errno == mine);
    }
  };
  auto a = spawn(body, 1001), b = spawn(body, 1002);
  body(1003);
  errno = 1004;
  a.join();
  b.join();
  CHECK(errno == 1004);
}

TEST_CASE("a new fiber begins with errno 0") {
  driven world;
  errno = 77;
  CHECK(spawn([] { return errno; }).get() == 0);
  CHECK(errno == 77);
}

TEST_CASE("errno is kept over a wait that changes it") {
  driven world;
  world.clock.on_wait = [](annulet::deadline) { errno = EBADF; };
  errno = 7;
  this_fiber::sleep_for(1ms);
  CHECK(errno == 7);
  event flag;
  world.clock.soon([&] { flag.set(); });
  world.clock.outside_handles = true;
  CHECK(flag.wait());
  CHECK(errno == 7);
  CHECK(world.clock.waits == 2);
}

TEST_CASE("errno is kept over a look that changes it") {
  driven world({.look_every = 1});
  world.clock.on_look = [] { errno = EBADF; };
  errno = 7;
  this_fiber::yield();
  CHECK(errno == 7);
  auto other = spawn([] {
    errno = 8;
    this_fiber::yield();
    CHECK(errno == 8);
  });
  other.join();
  CHECK(errno == 7);
  CHECK(world.clock.looks >= 2);
}

TEST_CASE("fibers parked inside catch blocks each keep the exception they handle") {
  driven world;
  const auto body = [](int i) {
    const std::string mine = "error " + std::to_string(i);
    try {
      throw std::runtime_error(mine);
    } catch (const std::exception& e) {
      for (int round = 0; round < 5; ++round) {
        this_fiber::sleep_for(std::chrono::milliseconds((i * 7 + round) % 5));
        CHECK(e.what() == mine);
        CHECK(current_what() == mine);
        CHECK(std::uncaught_exceptions() == 0);
      }
    }
    CHECK(std::current_exception() == nullptr);
  };
  std::vector<annulet::fiber<void>> all;
  for (int i = 0; i < 10; ++i) {
    all.push_back(spawn(body, i));
  }
  for (auto& f : all) {
    f.join();
    CHECK(std::current_exception() == nullptr);
  }
}

TEST_CASE("an exception rethrown after a park is the one that was caught") {
  driven world;
  const auto body = [](int i) -> int {
    try {
      try {
        throw i;
      } catch (...) {
        this_fiber::yield();
        throw;
      }
    } catch (int caught) {
      return caught;
    }
  };
  auto a = spawn(body, 1), b = spawn(body, 2), c = spawn(body, 3);
  CHECK(a.get() == 1);
  CHECK(b.get() == 2);
  CHECK(c.get() == 3);
}

TEST_CASE("nested catch blocks that fibers leave in another order than they entered them stay apart") {
  driven world;
  const auto body = [](int i) {
    const std::string outer = "outer " + std::to_string(i), inner = "inner " + std::to_string(i);
    try {
      throw std::runtime_error(outer);
    } catch (...) {
      this_fiber::sleep_for(std::chrono::milliseconds(10 - i));
      try {
        throw std::runtime_error(inner);
      } catch (...) {
        this_fiber::sleep_for(std::chrono::milliseconds(2 * i + 1));
        CHECK(current_what() == inner);
      }
      CHECK(current_what() == outer);
      this_fiber::sleep_for(std::chrono::milliseconds(3 * (10 - i)));
      CHECK(current_what() == outer);
    }
  };
  std::vector<annulet::fiber<void>> all;
  for (int i = 0; i < 10; ++i) {
    all.push_back(spawn(body, i));
  }
  for (auto& f : all) {
    f.join();
  }
}

TEST_CASE("fibers parked in destructors during unwinding each count their own exceptions in flight") {
  driven world;
  const auto body = [](int i) {
    const std::string mine = "error " + std::to_string(i);
    std::string caught;
    int in_flight = -1, between = -1;
    try {
      const at_end waits{[&] {
        in_flight = std::uncaught_exceptions();
        this_fiber::sleep_for(std::chrono::milliseconds(i % 4));
        in_flight += 10 * std::uncaught_exceptions();
        this_fiber::yield();
        in_flight += 100 * std::uncaught_exceptions();
      }};
      throw std::runtime_error(mine);
    } catch (const std::exception& e) {
      caught = e.what();
      between = std::uncaught_exceptions();
    }
    CHECK(in_flight == 111);
    CHECK(between == 0);
    CHECK(caught == mine);
  };
  std::vector<annulet::fiber<void>> all;
  for (int i = 0; i < 10; ++i) {
    all.push_back(spawn(body, i));
  }
  for (auto& f : all) {
    f.join();
    CHECK(std::uncaught_exceptions() == 0);
  }
}

TEST_CASE("two exceptions in flight at once in one fiber are none in another") {
  driven world;
  int deep = 0;
  auto diver = spawn([&] {
    try {
      const at_end outer{[&] {
        try {
          const at_end inner{[&] {
            this_fiber::sleep_for(5ms);
            deep = std::uncaught_exceptions();
          }};
          throw 2;
        } catch (int two) {
          CHECK(two == 2);
          CHECK(std::uncaught_exceptions() == 1);
        }
      }};
      throw 1;
    } catch (int one) {
      CHECK(one == 1);
    }
  });
  this_fiber::sleep_for(1ms);
  CHECK(std::uncaught_exceptions() == 0);
  CHECK(spawn([] { return std::uncaught_exceptions(); }).get() == 0);
  diver.join();
  CHECK(deep == 2);
}

TEST_CASE("a fiber that begins while others are in catch blocks and unwinding has no exception") {
  driven world;
  bool clean = false;
  try {
    const at_end spawns{[&] {
      spawn([&] { clean = std::current_exception() == nullptr && std::uncaught_exceptions() == 0; }).join();
    }};
    throw 1;
  } catch (int) {
    CHECK(clean);
    clean = false;
    spawn([&] { clean = std::current_exception() == nullptr && std::uncaught_exceptions() == 0; }).join();
    CHECK(clean);
  }
}

TEST_CASE("a fiber that ends leaves no trace in the exception state of the one that goes on") {
  driven world;
  try {
    throw std::runtime_error("mine");
  } catch (...) {
    auto failed = spawn([] { throw std::logic_error("its own"); });
    failed.join();
    CHECK(current_what() == "mine");
    CHECK_THROWS_AS(failed.get(), std::logic_error);
    CHECK(current_what() == "mine");
    auto killed = spawn([] { this_fiber::sleep_for(1h); });
    this_fiber::yield();
    killed.kill();
    killed.join();
    CHECK(current_what() == "mine");
    CHECK(std::uncaught_exceptions() == 0);
  }
}

TEST_CASE("an exception pointer made in one fiber is rethrown in another while both handle it") {
  driven world;
  std::exception_ptr shared;
  auto maker = spawn([&] {
    try {
      throw std::runtime_error("shared");
    } catch (...) {
      shared = std::current_exception();
      this_fiber::sleep_for(5ms);
      CHECK(current_what() == "shared");
    }
  });
  this_fiber::sleep_for(1ms);
  try {
    std::rethrow_exception(shared);
  } catch (const std::exception& e) {
    shared = nullptr;
    maker.join();
    CHECK(std::string(e.what()) == "shared");
    CHECK(current_what() == "shared");
  }
}

TEST_CASE("the rounding mode is each fiber's own") {
  driven world;
  const auto body = [](int mode, double expected) {
    std::fesetround(mode);
    for (int i = 0; i < 10; ++i) {
      this_fiber::yield();
      CHECK(std::fegetround() == mode);
      volatile double value = 2.5;
      CHECK(std::nearbyint(value) == expected);
    }
  };
  auto up = spawn(body, FE_UPWARD, 3.0), down = spawn(body, FE_DOWNWARD, 2.0);
  up.join();
  down.join();
  CHECK(std::fegetround() == FE_TONEAREST);
}

TEST_CASE("values in registers and on the stack survive switches in between") {
  driven world;
  const auto body = [](long seed) {
    long a = seed, b = seed * 3, c = seed * 5, d = seed * 7, e = seed * 11;
    double x = static_cast<double>(seed), y = x / 3;
    for (int i = 0; i < 1000; ++i) {
      a += b;
      b ^= c;
      c -= d;
      d += e & 0xff;
      e = e * 31 + a;
      a &= 0xffffff, b &= 0xffffff, c &= 0xffffff, d &= 0xffffff, e &= 0xffffff;
      x = x * 0.5 + y;
      y = y * 0.25 + 1;
      if (i % 3 == seed % 3) {
        this_fiber::yield();
      }
    }
    return static_cast<double>(a + b + c + d + e) + x + y;
  };
  std::vector<annulet::fiber<double>> all;
  std::vector<double> alone;
  for (long i = 0; i < 8; ++i) {
    all.push_back(spawn(body, i));
  }
  for (long i = 0; i < 8; ++i) {
    alone.push_back(spawn(body, i).get());
  }
  for (std::size_t i = 0; i < all.size(); ++i) {
    CHECK(all[i].get() == alone[i]);
  }
}
