// Somebody else on the thread: a fiber that beats each millisecond, as long as the thread does not stop.
#pragma once

#include "waited_for_a_core.hpp"

#include <annulet/runtime/fiber.hpp>
#include <annulet/runtime/this_fiber.hpp>

#include <chrono>

namespace annulet::test {

class beats {
 public:
  beats() : fiber_(spawn([this] { beat(); })) {}
  ~beats() { fiber_.kill(); }
  beats(const beats&) = delete;
  beats& operator=(const beats&) = delete;

  // One in each 20 ms on average, but for two, of the time in which the thread had a core: a slow machine, or
  // one that stands still for 30 ms, lets no more through.
  [[nodiscard]] bool kept_up() const {
    const auto had_a_core = std::chrono::steady_clock::now() - start_ - waited_.so_far();
    return (count_ + 2) * std::chrono::milliseconds(20) > had_a_core;
  }

 private:
  void beat() {
    for (;;) {
      this_fiber::sleep_for(std::chrono::milliseconds(1));
      ++count_;
    }
  }

  const std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
  const waited_for_a_core waited_;
  int count_ = 0;
  fiber<void> fiber_;
};

}  // namespace annulet::test
