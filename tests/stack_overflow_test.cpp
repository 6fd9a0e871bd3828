// A fiber that runs over its stack is named, and the process then ends as it would have without us. Each
// overflow takes a process.
#include <annulet/hub/hub.hpp>
#include <annulet/runtime/event.hpp>
#include <annulet/runtime/fiber.hpp>

#include "support/child.hpp"
#include "support/driven_clock.hpp"
#include "support/overflowing.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <csignal>
#include <cstddef>
#include <cstring>
#include <future>
#include <optional>
#include <random>
#include <span>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include <unistd.h>

using annulet::smallest_stack_size;
using annulet::spawn;
using annulet_test::child_end;
using annulet_test::count_of;
using annulet_test::driven;
using annulet_test::in_child;
using annulet_test::run_over;
using annulet_test::way_down;
using namespace std::chrono_literals;

namespace {

// Whole stacks of parked fibers, as they were.
struct neighbours {
  std::vector<std::pair<std::span<const std::byte>, std::vector<std::byte>>> kept;
};
neighbours* watched = nullptr;

void say(const char* what) {
  [[maybe_unused]] const auto written = ::write(STDERR_FILENO, what, std::strlen(what));
}

// The program's own handler, which our message comes before.
void look_at_neighbours(int) {
  const bool whole = std::all_of(watched->kept.begin(), watched->kept.end(), [](const auto& one) {
    return std::memcmp(one.first.data(), one.second.data(), one.first.size()) == 0;
  });
  say(whole ? "neighbours whole\n" : "a neighbour was touched\n");
  std::signal(SIGSEGV, SIG_DFL);
}

struct scene {
  way_down how;
  std::size_t stack_size;
  std::size_t victim;  // which of `fibers`
  std::size_t seed;
};
constexpr unsigned fibers = 6;

// In a child. All but the victim park, and are to stay as they are.
bool overflow(const scene& s) {
  neighbours others;
  watched = &others;
  struct sigaction own {};
  own.sa_handler = look_at_neighbours;
  own.sa_flags = SA_ONSTACK;
  ::sigaction(SIGSEGV, &own, nullptr);

  driven world;
  annulet::event never, last;
  std::vector<annulet::fiber<void>> all;
  for (unsigned i = 0; i < fibers; ++i) {
    const std::string name = "number " + std::to_string(i);
    all.push_back(spawn({.name = name, .stack_size = s.stack_size}, [&, i] {
      if (i == s.victim) {
        annulet::this_fiber::sleep_for(1s);  // the others have parked
        last.set();
        run_over(s.how, s.seed);
      }
      others.kept.emplace_back();
      others.kept.back().first = world.self().memory.memory;
      never.wait();  // a timer would change when another is due
    }));
  }
  spawn([&] {  // so that a yield is a switch
    last.wait();
    for (;;) {
      annulet::this_fiber::yield();
    }
  })
      .detach();
  annulet::this_fiber::sleep_for(500ms);
  for (auto& [memory, copy] : others.kept) {
    copy.assign(memory.begin(), memory.end());
  }
  all[s.victim].join();
  return false;
}

}  // namespace

TEST_CASE("1,000 overflows each name the fiber, touch no neighbour, and end in SIGSEGV") {
  std::mt19937 random(1);
  unsigned named = 0, whole = 0, ended = 0;
  std::string first_wrong;
  for (unsigned i = 0; i < 1'000 && named + 5 > i; ++i) {  // it is enough to have seen some go wrong
    const std::size_t size = i % 5 == 0 ? smallest_stack_size() : std::size_t{32 + 4 * (i % 9)} << 10;
    const scene s{static_cast<way_down>(i % annulet_test::ways_down), size, random() % fibers, random()};
    const child_end end = in_child([&] { return overflow(s); }, 10);
    const std::string name = "\"number " + std::to_string(s.victim) + "\" (spawned at ";
    const std::string what = ") ran over the end of its stack of " + std::to_string(size) + " bytes\n";
    const bool is_named = end.says(name) && end.says("stack_overflow_test.cpp:") && end.says(what) &&
                          count_of(end.said, "annulet: ") == 1;
    named += is_named;
    whole += end.says("neighbours whole");
    ended += end.signal == SIGSEGV;
    if (first_wrong.empty() && !(is_named && end.says("neighbours whole") && end.signal == SIGSEGV)) {
      first_wrong = std::to_string(i) + " (way " + std::to_string(i % annulet_test::ways_down) + ", signal " +
                    std::to_string(end.signal) + "): " + end.said;
    }
  }
  CAPTURE(first_wrong);
  CHECK(named == 1'000);
  CHECK(whole == 1'000);
  CHECK(ended == 1'000);
}

TEST_CASE("an overflow is named on a hub, on another thread's too, also when the first hub has ended") {
  for (const bool first_ends : {false, true}) {
    const child_end end = in_child([&] {
      std::optional<annulet::hub> first(std::in_place);
      annulet::hub_handle there = [] {
        std::promise<annulet::hub_handle> made;
        auto handle = made.get_future();
        std::thread([made = std::move(made)]() mutable {
          annulet::hub second;
          made.set_value(second.handle());
          annulet::this_fiber::sleep_for(1h);
        }).detach();
        return handle.get();
      }();
      if (first_ends) {
        first.reset();
      }
      there.post([] { spawn({.name = "abroad"}, [] { run_over(way_down::recursion, 7); }).join(); });
      ::sleep(10);
      return true;
    });
    CAPTURE(end.said);
    CHECK(end.signal == SIGSEGV);
    CHECK(end.says("\"abroad\" (spawned at "));
    CHECK(end.says("ran over the end of its stack of 262144 bytes"));
  }
}

TEST_CASE("an overflow while slabs are mapped is named as any other") {
  for (std::size_t seed = 0; seed < 100; ++seed) {
    const child_end end = in_child([&] {
      driven world;
      const auto base = smallest_stack_size();
      spawn({.name = "spawner", .stack_size = base}, [&] {
        (void)annulet_test::spawn_deeper(base, seed * 16, annulet_test::for_ever);
      }).join();
      return false;
    });
    CAPTURE(seed);
    CAPTURE(end.said);
    REQUIRE(end.signal == SIGSEGV);
    REQUIRE(end.says("\"spawner\" (spawned at "));
  }
}

TEST_CASE("a touch of a guard from another stack is told from an overflow") {
  const child_end end = in_child([] {
    driven world;
    std::byte* guard = nullptr;
    auto owner = spawn({.name = "owner"}, [&] {
      guard = world.self().memory.memory.data() - 1;
      annulet::this_fiber::sleep_for(1h);
    });
    spawn({.name = "stray"}, [&] { *static_cast<volatile std::byte*>(guard) = std::byte{1}; }).join();
    return false;
  });
  CAPTURE(end.said);
  CHECK(end.signal == SIGSEGV);
  CHECK(end.says("\"stray\" (spawned at "));
  CHECK(end.says(" touched the guard below a stack that is not its own but that of fiber 2 \"owner\""));
  CHECK_FALSE(end.says("ran over"));
}

TEST_CASE("main, and a thread without a hub, run over their stacks unnamed") {
  for (const bool on_main : {true, false}) {
    const child_end end = in_child([&] {
      const annulet::hub home;
      if (on_main) {
        run_over(way_down::recursion, 1);
      }
      std::thread([] { run_over(way_down::recursion, 1); }).join();
      return true;
    });
    CAPTURE(on_main);
    CHECK(end.signal == SIGSEGV);
    CHECK(end.said.empty());
  }
}
