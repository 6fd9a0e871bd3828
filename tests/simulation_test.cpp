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
#include <new>
#include <sstream>
#include <string>

#include <sys/mman.h>
#include <unistd.h>

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

// How far a search has come.
struct progress {
  std::uint64_t steps = 0;
  std::uint64_t lives = 0;
  script shows;  // the last life
  std::array<std::uint64_t, 16> operations{};
};

// Of a child, which may not come to tell of it.
class shared_progress {
 public:
  shared_progress()
      : page_(::mmap(nullptr, sizeof(progress), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0)) {
    if (page_ == MAP_FAILED) {
      throw std::bad_alloc();
    }
    new (page_) progress;
  }
  ~shared_progress() { ::munmap(page_, sizeof(progress)); }
  shared_progress(const shared_progress&) = delete;
  shared_progress& operator=(const shared_progress&) = delete;

  progress* operator->() const noexcept { return &**this; }
  progress& operator*() const noexcept { return *static_cast<progress*>(page_); }

 private:
  void* page_;
};

constexpr std::uint64_t steps_of_a_life = 10'000;  // and some more
constexpr unsigned seconds_of_a_life = 20;         // a hundred times what it takes

// Lives one after the other, until one breaks, and returns what that broke. For a child, which a life that
// hangs or aborts ends.
std::string search(progress& all, std::uint64_t seed, std::uint64_t steps,
                   std::chrono::seconds limit = std::chrono::hours(24)) {
  const auto begin = std::chrono::steady_clock::now();
  while (all.lives < steps / steps_of_a_life && std::chrono::steady_clock::now() - begin < limit) {
    outcome one;
    all.shows = {seed++, steps_of_a_life, 0};
    ::alarm(seconds_of_a_life);
    std::string broken = lived(all.shows, one);
    all.steps += one.steps;
    ++all.lives;
    for (std::size_t i = 0; i < one.operations.size(); ++i) {
      all.operations[i] += one.operations[i];
    }
    if (!broken.empty()) {
      return broken;
    }
  }
  return {};
}

// How a life ends, in a child.
annulet_test::child_end lived_apart(const script& s) {
  return annulet_test::in_child(
      [&s] {
        outcome one;
        const std::string broken = lived(s, one);
        std::cerr << broken << std::flush;
        return broken.empty();
      },
      seconds_of_a_life);
}

// Whether a life ends as this one did.
auto breaks_like(const annulet_test::child_end& broken) {
  return [exit = broken.exit, signal = broken.signal](const script& s) {
    const auto end = lived_apart(s);
    return end.exit == exit && end.signal == signal;
  };
}

std::string in_words(const annulet_test::child_end& end) {
  return end.said + (end.signal != 0 ? " (ended by signal " + std::to_string(end.signal) + ")" : "");
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
  (void)simulated::live({1, 1, 0});  // what a process finds out once; where that breaks, no script is shorter
  const shared_progress all;
  const auto end = annulet_test::in_child([&] {
    const std::string broken = search(*all, seed, steps);
    std::cerr << broken << std::flush;
    return broken.empty();
  });
  std::cout << "note: " << all->steps << " steps in " << all->lives << " lives, from seed " << seed
            << std::endl;
  if (end.exit != 0) {
    std::cout << "note: " << all->shows.text() << " broke: " << in_words(end) << std::endl;
    const script least = shortened(all->shows, breaks_like(end));
    FAIL("ANNULET_SIMULATION=\"" << least.text() << "\" shows it again: " << in_words(lived_apart(least))
                                 << "; before it was shortened: " << in_words(end));
  }
  CHECK(all->steps >= steps);
  const auto names = simulated::operation_names();
  for (std::size_t i = 0; i < names.size(); ++i) {
    std::cout << "note: " << names[i] << ": " << all->operations[i] << std::endl;
    CHECK(all->operations[i] > 0);
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
    const auto found = annulet_test::in_child([&] {
      const planting on(one.which, one.every);
      progress all;
      const std::string broken = search(all, 1, ~0ULL, 55s);
      std::cerr << all.steps << " steps: " << broken << std::endl;
      return !broken.empty();
    });
    std::cout << "note: " << one.name << ": " << found.said.substr(0, found.said.find('\n')) << std::endl;
    CHECK(found.signal == 0);
    CHECK((found.exit == 0 || found.exit == simulated::given_up));
  }
}

// Of bugs that break a life in another way each: something is wrong at its end, and it comes to none.
TEST_CASE("a life that breaks is made short, and breaks again in the same way") {
  std::signal(SIGPIPE, SIG_IGN);
  struct bug {
    plant which;
    int exit;
  };
  for (const bug& one : {bug{plant::forgotten_candidate, 1}, bug{plant::lost_end, simulated::given_up}}) {
    CAPTURE(one.exit);
    (void)simulated::live({1, 1, 0});  // what a process finds out once is found out without the bug
    const planting on(one.which, 20);
    const shared_progress all;
    const auto end = annulet_test::in_child([&] { return search(*all, 1, 1'000'000).empty(); });
    REQUIRE(end.exit == one.exit);
    REQUIRE(all->shows.seed == 1);  // the bug strikes anew in each child, as it did in the first life
    const script least = shortened(all->shows, breaks_like(end));
    std::cout << "note: " << least.text() << " breaks: " << in_words(lived_apart(least)) << std::endl;
    CHECK(least.steps < steps_of_a_life / 2);
    CHECK(least.without != 0);
    CHECK(lived_apart({least.seed, 1, least.without}).exit == 0);
    const auto once = lived_apart(least), again = lived_apart(least);
    CHECK(once.exit == one.exit);
    CHECK(again.exit == one.exit);
    CHECK(once.said == again.said);
  }
}

TEST_CASE("what a signal ends, as an abort or a limit does, is made short, too") {
  for (const int signal : {SIGABRT, SIGALRM}) {
    const auto ends = [&](const script& s) {
      const auto end = annulet_test::in_child([&] {
        if (s.steps > 3'000 && (s.without & 2U) == 0) {
          std::raise(signal);
        }
        return true;
      });
      return end.exit != 0;
    };
    const script least = simulated::shortened({1, steps_of_a_life, 0}, ends);
    CHECK(least.steps == 3'163);  // three quarters, four times
    CHECK(least.without == (((1U << simulated::operation_names().size()) - 1) & ~2U));
  }
}
