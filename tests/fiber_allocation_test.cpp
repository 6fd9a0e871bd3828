// What fibers ask of the heap, and what happens where it gives nothing. This program counts operator new.
#include <annulet/runtime/cancellation.hpp>
#include <annulet/runtime/errors.hpp>
#include <annulet/runtime/event.hpp>
#include <annulet/runtime/fiber.hpp>
#include <annulet/runtime/this_fiber.hpp>

#include "support/child.hpp"
#include "support/driven_clock.hpp"

#include <doctest/doctest.h>

#include <array>
#include <cstddef>
#include <cstdlib>
#include <new>
#include <stdexcept>

namespace {

std::size_t allocations = 0;
bool exhausted = false;

void* allocate(std::size_t size) {
  ++allocations;
  void* const memory = exhausted ? nullptr : std::malloc(size);
  if (memory == nullptr) {
    throw std::bad_alloc();
  }
  return memory;
}

}  // namespace

void* operator new(std::size_t size) { return allocate(size); }
void* operator new[](std::size_t size) { return allocate(size); }
void operator delete(void* memory) noexcept { std::free(memory); }
void operator delete[](void* memory) noexcept { std::free(memory); }
void operator delete(void* memory, std::size_t) noexcept { std::free(memory); }
void operator delete[](void* memory, std::size_t) noexcept { std::free(memory); }

using annulet::event;
using annulet::spawn;
using annulet_test::child_end;
using annulet_test::driven;
using annulet_test::in_child;
namespace this_fiber = annulet::this_fiber;
using namespace std::chrono_literals;

namespace {

// How often operator new was called by fn.
template <class Fn>
std::size_t allocations_of(Fn&& fn) {
  const std::size_t before = allocations;
  fn();
  return allocations - before;
}

}  // namespace

TEST_CASE("the counting counts") {
  CHECK(allocations_of([] { ::operator delete(::operator new(1)); }) == 1);
}

TEST_CASE("a warm spawn and join allocates nothing, with a result, arguments and a name") {
  driven world;
  const auto round = [] {
    const std::array<char, 200> large{};
    int sum = spawn(
                  {.name = "one"}, [](int a, int b) { return a + b; }, 1, 2)
                  .get();
    sum += spawn([large] { return static_cast<int>(large[7]); }).get();
    spawn([&] { ++sum; }).join();
    return sum;
  };
  CHECK(round() == 4);
  CHECK(allocations_of([&] {
          for (int i = 0; i < 1000; ++i) {
            CHECK(round() == 4);
          }
        }) == allocations_of([] {
          for (int i = 0; i < 1000; ++i) {
            CHECK(true);
          }
        }));
}

TEST_CASE("1,000 fibers at once, spawned again on warm stacks, allocate nothing") {
  driven world;
  std::array<annulet::fiber<void>, 1000> all;
  const auto round = [&] {
    for (auto& f : all) {
      f = spawn([] { this_fiber::yield(); });
    }
    for (auto& f : all) {
      f.join();
    }
  };
  round();
  round();
  CHECK(allocations_of(round) == 0);
}

TEST_CASE("yields, sleeps, waits, guards and wakes allocate nothing") {
  event ping, pong;
  driven world;
  std::size_t counted = 1;
  auto other = spawn([&] {
    for (;;) {
      ping.wait();
      ping.clear();
      pong.set();
    }
  });
  counted = allocations_of([&] {
    for (int i = 0; i < 1000; ++i) {
      const annulet::timeout guard(1h);
      ping.set();
      pong.wait(1s);
      pong.clear();
      this_fiber::yield();
      this_fiber::sleep_for(1ms);
      (void)ping.wait(1ms);
    }
  });
  CHECK(counted == 0);
}

TEST_CASE("a kill, and a guard that expires, ask nothing of operator new") {
  driven world;
  const auto round = [] {
    auto victim = spawn([] { this_fiber::sleep_for(1h); });
    this_fiber::yield();
    victim.kill();
    victim.join();
    const annulet::timeout guard(1ms);
    try {
      this_fiber::sleep_for(1h);
    } catch (const annulet::timeout_expired&) {
    }
  };
  round();
  CHECK(allocations_of(round) == 0);
}

TEST_CASE("a spawn that gets no memory is std::bad_alloc, spawns nothing, and the next one goes well") {
  driven world;
  bool refused = false, ran = false;
  exhausted = true;
  try {
    spawn({.stack_size = 48 << 10}, [&] { ran = true; }).detach();  // a size that nobody had before
  } catch (const std::bad_alloc&) {
    refused = true;
  }
  exhausted = false;
  CHECK(refused);
  CHECK(world.fibers.fibers() == 0);
  this_fiber::yield();
  CHECK_FALSE(ran);
  spawn({.stack_size = 48 << 10}, [&] { ran = true; }).join();
  CHECK(ran);
}

TEST_CASE("an error nobody collects, where there is no memory to describe it, does not end the process") {
  const child_end end = in_child([] {
    driven world;
    spawn([] { throw std::runtime_error("a sentence that is longer than a short string"); }).detach();
    exhausted = true;
    this_fiber::yield();
    exhausted = false;
    return world.fibers.fibers() == 0;
  });
  CAPTURE(end.said);
  CHECK(end.signal == 0);
  CHECK(end.exit == 0);
  CHECK_FALSE(end.said.empty());
}

TEST_CASE(
    "a deadlock, where there is no memory to list the fibers, is main's deadlock still, and no other's") {
  const child_end end = in_child([] {
    driven world;
    event never;
    int wrong = 0;
    auto other = spawn([&] {
      try {
        never.wait();
      } catch (const annulet::fiber_killed&) {
        throw;
      } catch (...) {
        ++wrong;
      }
    });
    bool told = false;
    exhausted = true;
    try {
      other.join();
    } catch (const annulet::deadlock&) {
      told = true;
    } catch (const std::bad_alloc&) {
      told = true;
    }
    exhausted = false;
    other.kill();
    other.join();
    return told && wrong == 0;
  });
  CAPTURE(end.said);
  CHECK(end.signal == 0);
  CHECK(end.exit == 0);
}
