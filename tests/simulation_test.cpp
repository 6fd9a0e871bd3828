// The hub, the selector and the drop-ins on a simulated kernel: what a real one does rarely happens all the
// time, and the same seed makes the same happen again.
//
// ANNULET_SIMULATION_STEPS says how many steps are taken, from the life of ANNULET_SIMULATION_SEED on;
// ANNULET_SIMULATION="17 10000 0" plays one life again, as a failure prints it.
#include "oracle/dice.hpp"
#include "oracle/run.hpp"
#include "simulated/life.hpp"
#include "support/child.hpp"
#include "support/counted_blocks.hpp"
#include "support/files.hpp"
#include "support/planting.hpp"

#include <annulet_plants.hpp>

#include <doctest/doctest.h>

#include <array>
#include <chrono>
#include <csignal>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <iostream>
#include <sstream>
#include <string>

using annulet::detail::plant;
using annulet::test::open_descriptors;
using annulet_test::planting;
using namespace std::chrono_literals;
using simulated::outcome;
using simulated::script;

namespace {

// What it broke, or what it left behind.
std::string lived(const script& s, outcome& result) {
  (void)simulated::live({s.seed, 1, 0});  // what is made once and kept
  const auto blocks = annulet::test::blocks_in_use.load();
  const auto descriptors = open_descriptors();
  {
    result = simulated::live(s);
    if (!result.broken.empty()) {
      return result.broken;
    }
  }
  if (open_descriptors() != descriptors) {
    return "of " + std::to_string(descriptors) + " descriptors there are " +
           std::to_string(open_descriptors());
  }
  const auto left = annulet::test::blocks_in_use.load() - blocks;
  return left == 0 ? "" : std::to_string(left) + " blocks of memory are left";
}

struct search_result {
  std::uint64_t steps = 0;
  std::uint64_t lives = 0;
  std::string broken;
  script shows;
  std::array<std::uint64_t, 16> operations{};
};

// Lives one after the other, until one breaks.
constexpr std::uint64_t steps_of_a_life = 10'000;  // and some more

search_result search(std::uint64_t seed, std::uint64_t steps, unsigned without = 0,
                     std::chrono::seconds limit = std::chrono::hours(24)) {
  search_result all;
  const auto begin = std::chrono::steady_clock::now();
  while (all.lives < steps / steps_of_a_life && all.broken.empty() &&
         std::chrono::steady_clock::now() - begin < limit) {
    outcome one;
    all.shows = {seed++, steps_of_a_life, without};
    all.broken = lived(all.shows, one);
    all.steps += one.steps;
    ++all.lives;
    for (std::size_t i = 0; i < one.operations.size(); ++i) {
      all.operations[i] += one.operations[i];
    }
  }
  return all;
}

}  // namespace

TEST_CASE("nothing breaks under a kernel that does all it may") {
  std::signal(SIGPIPE, SIG_IGN);
  if (const char* const again = std::getenv("ANNULET_SIMULATION")) {
    script s;
    std::istringstream words(again);
    REQUIRE_MESSAGE((words >> s.seed >> s.steps >> s.without && (words >> std::ws).eof()),
                    "ANNULET_SIMULATION is three numbers, as a failure prints them, not '" << again << "'");
    outcome result;
    CHECK(lived(s, result) == "");
    return;
  }
  const std::uint64_t seed = oracle::from_environment("ANNULET_SIMULATION_SEED", oracle::fresh_seed());
  const std::uint64_t steps = oracle::from_environment("ANNULET_SIMULATION_STEPS", 1'000'000);
  const search_result all = search(seed, steps);
  std::cout << "note: " << all.steps << " steps in " << all.lives << " lives, from seed " << seed
            << std::endl;
  CHECK((all.steps >= steps || !all.broken.empty()));
  if (!all.broken.empty()) {
    const script least = shortened(all.shows);
    FAIL("ANNULET_SIMULATION=\"" << least.text() << "\" shows it again: " << live(least).broken
                                 << "; before it was shortened: " << all.broken);
  }
  const auto names = simulated::operation_names();
  for (std::size_t i = 0; i < names.size(); ++i) {
    std::cout << "note: " << names[i] << ": " << all.operations[i] << std::endl;
    CHECK(all.operations[i] > 0);
  }
}

TEST_CASE("a life with the same seed is the same") {
  std::signal(SIGPIPE, SIG_IGN);
  for (std::uint64_t seed = 1; seed <= 20; ++seed) {
    const outcome once = simulated::live({seed, 2'000, 0});
    const outcome again = simulated::live({seed, 2'000, 0});
    CHECK(once.trace == again.trace);
    CHECK(once.steps == again.steps);
    CHECK(once.trace != simulated::live({seed + 100, 2'000, 0}).trace);
  }
}

// A missing look at the generation of a request is none of them: files are let go before their slots have new
// owners, and events are hints, so nothing came of it in millions of steps.
TEST_CASE("ten planted bugs are found, each within a minute") {
  std::signal(SIGPIPE, SIG_IGN);
  struct bug {
    plant which;
    const char* name;
    unsigned every;
  };
  constexpr std::array bugs = {
      bug{plant::ignored_refusal, "a refused change of a mask is ignored", 1},
      bug{plant::lost_end, "a request that has ended is not armed again", 20},
      bug{plant::lost_wake_poll, "what wakes the hub has ended and is not armed again", 1},
      bug{plant::ignored_overflow, "completions that overflowed are not fetched", 1},
      bug{plant::left_early, "a frame is left before the last completion", 1},
      bug{plant::unsaid_sleep, "the hub sleeps and does not say so", 1},
      bug{plant::forgotten_candidate, "a key with an event is forgotten", 20},
      bug{plant::lost_event, "an event is dropped", 20},
      bug{plant::stale_candidate, "a key is told without being asked about", 20},
      bug{plant::queued_cancel, "a file is let go before the kernel has", 20},
  };
  for (const bug& one : bugs) {
    CAPTURE(std::string(one.name));
    // A child, for a life that is broken may not end well.
    const auto found = annulet_test::in_child([&] {
      const planting on(one.which, one.every);
      const search_result all = search(1, ~0ULL, 0, 55s);
      std::cerr << all.steps << " steps: " << all.broken << std::endl;
      return !all.broken.empty();
    });
    std::cout << "note: " << one.name << ": " << found.said.substr(0, found.said.find('\n')) << std::endl;
    CHECK(found.signal == 0);
    CHECK((found.exit == 0 || found.exit == simulated::given_up));
  }
}
