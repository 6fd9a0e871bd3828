// The smallest stack that spawn accepts holds the wait and a signal handler.
#include <annulet/runtime/fiber.hpp>
#include <annulet/runtime/stack.hpp>

#include "support/child.hpp"
#include "support/driven_clock.hpp"

#include <doctest/doctest.h>

#include <array>
#include <csignal>
#include <cstddef>
#include <cstdint>
#include <stdexcept>
#include <utility>

using annulet::smallest_stack_size;
using annulet::detail::stack;
using annulet_test::child_end;
using annulet_test::driven;
using annulet_test::in_child;
using namespace std::chrono_literals;

namespace {

volatile std::sig_atomic_t handled = 0;
volatile std::uintptr_t handled_at = 0;

// Of modest size.
void handler(int) {
  std::array<volatile char, 1024> room;
  for (auto& c : room) {
    c = 1;
  }
  handled_at = reinterpret_cast<std::uintptr_t>(&room);
  handled = handled + 1;
}

void handle_signals() {
  handled = 0;
  struct sigaction action {};
  action.sa_handler = handler;
  ::sigaction(SIGUSR1, &action, nullptr);
}

bool handled_on(const stack& s) {
  const auto start = reinterpret_cast<std::uintptr_t>(s.memory.data());
  return handled_at >= start && handled_at < start + s.memory.size();
}

enum class outcome { refused, wrong, right };

// Spawns a callable of N bytes on the smallest stack, which raises a signal in its wait, and throws.
template <std::size_t N>
outcome live_beside_callable() {
  driven world;
  std::array<char, N> ballast;
  ballast.fill(7);
  bool right = false;
  const auto body = [&world, &right, ballast] {
    handled = 0;
    world.clock.on_wait = [](annulet::deadline) { ::raise(SIGUSR1); };
    annulet::this_fiber::sleep_for(1ms);
    world.clock.on_wait = nullptr;
    right = handled == 1 && handled_on(world.self().memory);
    try {
      throw std::runtime_error("thrown");
    } catch (const std::runtime_error&) {
    }
    for (const char c : ballast) {
      right = right && c == 7;
    }
  };
  try {
    annulet::spawn({.stack_size = smallest_stack_size()}, body).join();
  } catch (const std::invalid_argument&) {
    return outcome::refused;
  }
  return right ? outcome::right : outcome::wrong;
}

// How many of these sizes were taken, and whether all that were taken went well.
template <std::size_t... N>
std::pair<int, bool> live_beside(std::index_sequence<N...>) {
  int taken = 0;
  bool well = true;
  const auto tell = [&](outcome o) {
    taken += o != outcome::refused;
    well = well && o != outcome::wrong;
  };
  (tell(live_beside_callable<(N + 1) * 512>()), ...);
  return {taken, well};
}

}  // namespace

TEST_CASE("a fiber on the smallest stack runs a signal handler while it runs") {
  const child_end end = in_child([] {
    handle_signals();
    driven world;
    bool on_stack = false;
    annulet::spawn({.stack_size = smallest_stack_size()}, [&] {
      ::raise(SIGUSR1);
      on_stack = handled_on(world.self().memory);
    }).join();
    return handled == 1 && on_stack;
  });
  CHECK(end.signal == 0);
  CHECK(end.exit == 0);
}

TEST_CASE("a fiber on the smallest stack runs a signal handler in the wait, again and again") {
  const child_end end = in_child([] {
    handle_signals();
    driven world;
    bool on_stack = true;
    auto f = annulet::spawn({.stack_size = smallest_stack_size()}, [&] {
      world.clock.on_wait = [](annulet::deadline) { ::raise(SIGUSR1); };
      for (int i = 0; i < 100; ++i) {
        annulet::this_fiber::sleep_for(1ms);
        on_stack = on_stack && handled_on(world.self().memory);
      }
      world.clock.on_wait = nullptr;
    });
    f.join();
    return handled >= 100 && on_stack;
  });
  CHECK(end.signal == 0);
  CHECK(end.exit == 0);
}

TEST_CASE("whatever callable the smallest stack takes, it leaves room for the wait, a handler and a throw") {
  const child_end end = in_child([] {
    handle_signals();
    const auto [taken, well] = live_beside(std::make_index_sequence<32>());
    return taken >= 1 && taken < 32 && well;
  });
  CAPTURE(end.said);
  CHECK(end.signal == 0);
  CHECK(end.exit == 0);
}

TEST_CASE("an exception is thrown and caught on the smallest stack") {
  const child_end end = in_child([] {
    driven world;
    auto f = annulet::spawn({.stack_size = smallest_stack_size()}, [] {
      try {
        throw std::runtime_error("thrown");
      } catch (const std::runtime_error&) {
        annulet::this_fiber::sleep_for(1ms);
      }
      annulet::this_fiber::sleep_for(1h);
    });
    annulet::this_fiber::sleep_for(1s);
    f.kill();
    f.join();
    return f.done();
  });
  CHECK(end.signal == 0);
  CHECK(end.exit == 0);
}
