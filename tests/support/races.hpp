// Things that happen at nearly the same time, in an order that only the real time decides; and what comes of
// them, counted.
#pragma once

#include "../oracle/dice.hpp"
#include "../oracle/run.hpp"
#include "../oracle/stranger.hpp"

#include <annulet/hub/hub.hpp>
#include <annulet/runtime/deadline.hpp>
#include <annulet/runtime/event.hpp>
#include <annulet/runtime/fiber.hpp>
#include <annulet/runtime/sanitizer.hpp>
#include <annulet/runtime/this_fiber.hpp>

#include <doctest/doctest.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <functional>
#include <map>
#include <string>
#include <utility>
#include <vector>

namespace annulet::test {

struct racer {
  std::function<void()> act;
  // Whether another thread may do it itself; else it posts it to the hub.
  enum class place { anywhere, hub } where = place::hub;
};

// Starts each after a random time of some microseconds: from fibers that sleep, from another thread, or
// mixed, so that none is always before another.
class race {
 public:
  race(hub& h, oracle::dice& d) : handle_(h.handle()), dice_(d) {}

  // Parks until all have acted. What they throw is thrown here, but only the last.
  void run(std::vector<racer> racers) {
    if (racers.empty()) {
      return;
    }
    struct start {
      std::chrono::nanoseconds delay;
      const racer* who;
    };
    std::vector<start> foreign;
    std::vector<fiber<void>> own;
    const std::size_t way = dice_.below(3);
    left_ = racers.size();
    over_.clear();
    for (const racer& r : racers) {
      const auto delay = std::chrono::nanoseconds(dice_.below(window));
      if (way == 0 || (way == 1 && dice_.one_in(2))) {
        own.push_back(spawn([this, delay, &r] {
          this_fiber::sleep_for(delay);
          r.act();
          one_less();
        }));
      } else {
        foreign.push_back({delay, &r});
      }
    }
    std::ranges::sort(foreign, {}, &start::delay);
    if (!foreign.empty()) {
      stranger_.begin(std::chrono::nanoseconds(0), [this, foreign] {
        const auto begin = std::chrono::steady_clock::now();
        for (const start& s : foreign) {
          while (std::chrono::steady_clock::now() - begin < s.delay) {
          }
          go(*s.who);
        }
      });
    }
    for (auto& f : own) {
      f.get();
    }
    over_.wait();
    stranger_.await();
  }

 private:
  static constexpr std::size_t window = 60'000;  // nanoseconds

  void go(const racer& r) {
    if (r.where == racer::place::anywhere) {
      r.act();
      handle_.post([this] { one_less(); });
    } else {
      handle_.post([this, &r] {
        r.act();
        one_less();
      });
    }
  }
  void one_less() {
    if (--left_ == 0) {
      over_.set();
    }
  }

  hub_handle handle_;
  oracle::dice& dice_;
  oracle::stranger stranger_;
  event over_;
  std::size_t left_ = 0;
};

// A time that comes while the racers run, or a little later.
inline deadline soon(oracle::dice& dice) { return std::chrono::nanoseconds(1 + dice.below(90'000)); }

// The times within which racers meet are those of a plain build: under a sanitizer some outcomes are rare.
inline constexpr bool at_full_speed = annulet::detail::built_in == annulet::detail::sanitizer::none;

// Counts outcomes, and prints them.
class outcomes {
 public:
  explicit outcomes(std::string races) : races_(std::move(races)) {}
  void count(const std::string& what, std::uint64_t times = 1) { counts_[what] += times; }
  // Every one of these came in at least 1 % of the rounds, and no other came.
  void check(std::uint64_t rounds, const std::vector<std::string>& possible) {
    const std::uint64_t all = print(rounds);
    CAPTURE(races_);
    for (const std::string& what : possible) {
      CHECK_MESSAGE((counts_[what] * 100 >= rounds || !at_full_speed), what);
    }
    CHECK(counts_.size() == possible.size());
    CHECK(all == rounds);
  }
  // For those that come in bursts: so many of these came at least, and no other came.
  void check_among(std::uint64_t rounds, const std::vector<std::string>& possible, std::size_t least) {
    const std::uint64_t all = print(rounds);
    CAPTURE(races_);
    for (const auto& [what, times] : counts_) {
      CHECK_MESSAGE(std::ranges::find(possible, what) != possible.end(), what);
    }
    CHECK(counts_.size() >= (at_full_speed ? least : 1));
    CHECK(all == rounds);
  }

 private:
  std::uint64_t print(std::uint64_t rounds) const {
    std::uint64_t all = 0;
    std::string line;
    for (const auto& [what, times] : counts_) {
      std::array<char, 32> share{};
      std::snprintf(share.data(), share.size(), " %.1f %%",
                    100.0 * static_cast<double>(times) / static_cast<double>(rounds));
      line += (line.empty() ? "" : ", ") + what + share.data();
      all += times;
    }
    std::printf("note: %s: %s\n", races_.c_str(), line.c_str());
    return all;
  }

  std::string races_;
  std::map<std::string, std::uint64_t> counts_;
};

// What each battery of races starts from. ANNULET_RACE_ROUNDS says how many rounds each, ANNULET_RACE_SEED
// repeats what the dice said before.
struct race_ground {
  race_ground(const char* races, std::uint64_t usual_rounds)
      : rounds(oracle::from_environment("ANNULET_RACE_ROUNDS", usual_rounds)) {
    std::printf("note: %s: seed %llu\n", races, static_cast<unsigned long long>(seed));
  }

  const std::uint64_t seed = oracle::from_environment("ANNULET_RACE_SEED", oracle::fresh_seed());
  const std::uint64_t rounds;
  annulet::hub hub;
  oracle::dice dice{seed};
  annulet::test::race race{hub, dice};
};

}  // namespace annulet::test
