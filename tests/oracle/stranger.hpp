// Another thread, which does one thing at a time on demand, a little later.
#pragma once

#include <atomic>
#include <chrono>
#include <functional>
#include <thread>
#include <utility>

namespace oracle {

class stranger {
 public:
  stranger() : thread_([this] { serve(); }) {}
  ~stranger() {
    await();
    state_.store(ends);
    state_.notify_one();
    thread_.join();
  }
  stranger(const stranger&) = delete;
  stranger& operator=(const stranger&) = delete;

  // Calls act() there after the delay. The one before must have been awaited.
  void begin(std::chrono::nanoseconds delay, std::function<void()> act) {
    act_ = std::move(act);
    delay_ = delay;
    state_.store(acts);
    state_.notify_one();
  }
  [[nodiscard]] bool done() const noexcept { return state_.load() == idle; }
  void await() const noexcept { state_.wait(acts); }

 private:
  using clock = std::chrono::steady_clock;
  enum : int { idle, acts, ends };

  void serve() {
    for (;;) {
      state_.wait(idle);
      if (state_.load() == ends) {
        return;
      }
      // Short delays are spun, for a sleep would make them all the same.
      const auto start = clock::now();
      if (delay_ > std::chrono::microseconds(100)) {
        std::this_thread::sleep_for(delay_);
      }
      while (clock::now() - start < delay_) {
      }
      act_();
      act_ = nullptr;
      state_.store(idle);
      state_.notify_all();
    }
  }

  std::atomic<int> state_{idle};
  std::function<void()> act_;
  std::chrono::nanoseconds delay_{};
  std::thread thread_;
};

}  // namespace oracle
