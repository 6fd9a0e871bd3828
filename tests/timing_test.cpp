// How late sleeps and parked selects are, with a bare clock_nanosleep in turn beside them.
//
// ANNULET_TIMING_ROUNDS=10000 on an idle machine holds them to what is promised: at the 99th percentile less
// than 100 us later than the bare call. Fewer rounds are too few for that, and other programs' load would be
// measured; they are held to a bound that only a mistake breaks.

#include "oracle/dice.hpp"
#include "oracle/run.hpp"

#include <annulet/hub/hub.hpp>
#include <annulet/runtime/this_fiber.hpp>
#include <annulet/selector/selector.hpp>

#include <doctest/doctest.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <vector>

#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

using namespace std::chrono_literals;
using clock_type = std::chrono::steady_clock;
using std::chrono::nanoseconds;

namespace {

constexpr std::uint64_t enough_rounds = 10'000;

enum way { bare, slept, selected };
constexpr std::array<const char*, 3> names = {"clock_nanosleep", "sleep_for", "parked select"};

// The small ones as often as the large: 0.1 to 20 ms.
nanoseconds some_time(oracle::dice& d) {
  const double part = static_cast<double>(d.below(1'000'001)) / 1e6;
  return nanoseconds(static_cast<std::int64_t>(100'000.0 * std::pow(200.0, part)));
}

void sleep_bare(nanoseconds time) {
  timespec left{time / 1s, (time % 1s).count()};
  while (::clock_nanosleep(CLOCK_MONOTONIC, 0, &left, &left) == EINTR) {
  }
}

// Lateness in nanoseconds of each wait, by way; negative is early.
struct measured {
  std::array<std::vector<std::int64_t>, 3> late;

  [[nodiscard]] std::int64_t percentile(way which, double part) {
    auto& all = late[which];
    const auto at = all.begin() + static_cast<std::ptrdiff_t>(part * static_cast<double>(all.size() - 1));
    std::nth_element(all.begin(), at, all.end());
    return *at;
  }
};

measured measure(std::uint64_t rounds, oracle::dice& d) {
  annulet::hub hub;
  const int fd = ::eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
  REQUIRE(fd >= 0);
  measured result;
  {
    annulet::selector sel;
    sel.register_(fd, annulet::io_event::read);
    std::vector<annulet::selector::ready_type> ready;
    for (std::uint64_t round = 0; round < rounds; ++round) {
      const nanoseconds time = some_time(d);
      for (std::uint64_t turn = 0; turn < names.size(); ++turn) {
        // Each as often first as last: what runs after what shows at the 99th percentile.
        const auto which = static_cast<way>((round + turn) % names.size());
        const auto start = clock_type::now();
        switch (which) {
          case bare:
            sleep_bare(time);
            break;
          case slept:
            annulet::this_fiber::sleep_for(time);
            break;
          case selected:
            REQUIRE(sel.select(ready, time) == 0);
            break;
        }
        result.late[which].push_back((clock_type::now() - start - time) / 1ns);
      }
    }
  }
  ::close(fd);
  return result;
}

}  // namespace

TEST_CASE("no sleep and no parked select ends early, and none much later than clock_nanosleep") {
  const std::uint64_t rounds = oracle::from_environment("ANNULET_TIMING_ROUNDS", 300);
  const std::uint64_t seed = oracle::from_environment("ANNULET_TIMING_SEED", oracle::fresh_seed());
  oracle::dice d(seed);
  std::printf("note: seed %llu, %llu of each\n", static_cast<unsigned long long>(seed),
              static_cast<unsigned long long>(rounds));
  measured result = measure(rounds, d);
  for (const way which : {bare, slept, selected}) {
    std::printf("note: %s: late by %.1f us at the median, %.1f us at p99\n", names[which],
                static_cast<double>(result.percentile(which, 0.5)) / 1e3,
                static_cast<double>(result.percentile(which, 0.99)) / 1e3);
  }
  for (const way which : {slept, selected}) {
    const std::int64_t later = result.percentile(which, 0.99) - result.percentile(bare, 0.99);
    std::printf("note: %s: %.1f us later than clock_nanosleep at p99\n", names[which],
                static_cast<double>(later) / 1e3);
    CHECK(result.percentile(which, 0.0) >= 0);  // the earliest of all
    if (rounds >= enough_rounds) {
      CHECK(later < 100'000);
    } else {
      CHECK(result.percentile(which, 0.5) < 50'000'000);
    }
  }
}
