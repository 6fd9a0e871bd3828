// A fiber that makes every call there is that parks, killed at its first park, at its second, and so on until
// it comes through. Wherever it was, nothing is left of it: no fiber, lock, descriptor, request or memory.
// This program counts what operator new has given and not got back.
#include "support/acts.hpp"
#include "support/counted_blocks.hpp"
#include "support/files.hpp"

#include <annulet/hub/hub.hpp>
#include <annulet/runtime/errors.hpp>
#include <annulet/runtime/fiber.hpp>
#include <annulet/runtime/this_fiber.hpp>
#include <annulet_plants.hpp>

#include <doctest/doctest.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <string>

using namespace annulet::test;
using namespace std::chrono_literals;
namespace this_fiber = annulet::this_fiber;

namespace {

struct outcome {
  bool killed;
  unsigned parks;
};

outcome perform(const act& a, lasting& all, unsigned at) {
  auto victim = annulet::spawn({.name = "victim"}, [&] { a.body(all); });
  struct revealed : annulet::fiber<void> {
    static const annulet::detail::control_block* block(annulet::fiber<void>& f) {
      return f.*(&revealed::block_);
    }
  };
  annulet::detail::killed_fiber = revealed::block(victim);
  annulet::detail::killed_at_park = at;
  annulet::detail::parks_seen = 0;
  outcome result{false, 0};
  try {
    victim.get(30s);
  } catch (const annulet::fiber_failed&) {
    result.killed = true;
  }
  annulet::detail::killed_fiber = nullptr;
  result.parks = annulet::detail::parks_seen;
  return result;
}

// Parks until there are no fibers but this, and no more blocks than there were; how many more there are.
std::ptrdiff_t left_over(const annulet::hub& home, std::ptrdiff_t before) {
  const annulet::deadline patience = 1s;  // what was offloaded ends by itself
  while ((home.fiber_count() != 0 || blocks_in_use > before) && !patience.reached()) {
    this_fiber::sleep_for(100us);
  }
  REQUIRE(home.fiber_count() == 0);
  return blocks_in_use - before;
}

// Kills it there, and looks for what is left.
outcome kill_at(const act& a, annulet::hub& home, lasting& all, unsigned at) {
  const std::size_t descriptors = open_descriptors();
  outcome result{};
  std::ptrdiff_t least_left = PTRDIFF_MAX;  // a leak is one each time; what is kept for later is not
  for (int i = 0; i < 3 && least_left > 0; ++i) {
    const std::ptrdiff_t before = blocks_in_use;
    result = perform(a, all, at);
    least_left = std::min(least_left, left_over(home, before));
    all.require_whole();
    REQUIRE(open_descriptors() == descriptors);
  }
  REQUIRE(least_left <= 0);
  return result;
}

}  // namespace

TEST_CASE("wherever a fiber is killed, nothing is left of it") {
  annulet::hub home;
  lasting all;
  for (const act& a : acts) {
    CAPTURE(std::string(a.name));
    for (int warm = 0; warm < 3; ++warm) {
      REQUIRE_FALSE(perform(a, all, 0).killed);
    }
    unsigned at = 1;
    for (;; ++at) {
      CAPTURE(at);
      const outcome result = kill_at(a, home, all, at);
      if (!result.killed && result.parks < at) {
        break;
      }
      REQUIRE(at < 10'000);
    }
    std::printf("note: %s: killed at each of %u parks\n", a.name, at - 1);
    CHECK(at > 1);
  }
}
