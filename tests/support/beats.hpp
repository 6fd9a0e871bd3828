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

  [[nodiscard]] int count() const noexcept { return count_; }

 private:
  void beat() {
    for (;;) {
      this_fiber::sleep_for(std::chrono::milliseconds(1));
      ++count_;
    }
  }

  int count_ = 0;
  fiber<void> fiber_;
};

}  // namespace annulet::test
