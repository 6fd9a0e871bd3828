// Somebody else on the thread: a fiber that beats each millisecond, as long as the thread does not stop.
#pragma once

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

  // One in each 20 ms on average: a machine that is full, or a slow start, lets no more through.
  [[nodiscard]] bool kept_up() const noexcept {
    return (count_ + 1) * std::chrono::milliseconds(20) > std::chrono::steady_clock::now() - start_;
  }

 private:
  void beat() {
    for (;;) {
      this_fiber::sleep_for(std::chrono::milliseconds(1));
      ++count_;
    }
  }

  const std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
  int count_ = 0;
  fiber<void> fiber_;
};

}  // namespace annulet::test
