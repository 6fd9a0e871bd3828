// Things that happen at nearly the same time, in an order that only the real time decides.
#pragma once

#include "../oracle/dice.hpp"
#include "../oracle/stranger.hpp"

#include <annulet/hub/hub.hpp>
#include <annulet/runtime/event.hpp>
#include <annulet/runtime/fiber.hpp>
#include <annulet/runtime/this_fiber.hpp>

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <functional>
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

}  // namespace annulet::test
