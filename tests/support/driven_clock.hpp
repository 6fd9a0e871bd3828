// The world outside, as a test wants it: time stands still while fibers run and jumps to the next thing that
// happens when none is ready. Nothing sleeps and nothing asks the kernel.
#pragma once

#include <annulet/runtime/check.hpp>
#include <annulet/runtime/deadline.hpp>
#include <annulet/runtime/idle_source.hpp>
#include <annulet/runtime/scheduler.hpp>

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <functional>
#include <map>
#include <utility>

namespace annulet_test {

using namespace std::chrono_literals;

class driven_clock final : public annulet::detail::idle_source {
 public:
  using nanoseconds = std::chrono::nanoseconds;

  static constexpr std::int64_t start = 1'000'000'000'000;

  // What other threads would do: fn is called out of a wait, or a look, as soon as the time has come. It may
  // wake and spawn, as a hub does there, but not park or throw.
  void at(nanoseconds since_start, std::function<void()> fn) {
    script_.emplace(start + since_start.count(), std::move(fn));
  }
  // The same, at the very next wait, however long it would be.
  void soon(std::function<void()> fn) { script_.emplace(now_, std::move(fn)); }

  // Time passes although fibers run.
  void advance(nanoseconds by) noexcept { now_ += by.count(); }
  [[nodiscard]] nanoseconds since_start() const noexcept { return nanoseconds(now_ - start); }

  unsigned waits = 0;
  unsigned looks = 0;
  mutable unsigned reads = 0;  // of the time
  mutable unsigned coarse_reads = 0;
  bool outside_handles = false;
  // Called first thing in each wait with what it was given, and in each look.
  std::function<void(annulet::deadline)> on_wait;
  std::function<void()> on_look;

  void wait(annulet::deadline until) noexcept override {
    ++waits;
    if (on_wait) {
      on_wait(until);
    }
    if (!script_.empty() && script_.begin()->first <= until.nanoseconds()) {
      now_ = std::max(now_, script_.begin()->first);
      run_script();
      return;
    }
    annulet::detail::check(!until.is_never(), "driven clock: nothing will ever end this wait");
    now_ = std::max(now_, until.nanoseconds());
  }

  void look() noexcept override {
    ++looks;
    if (on_look) {
      on_look();
    }
    run_script();
  }

  [[nodiscard]] std::int64_t now() const noexcept override {
    ++reads;
    return now_;
  }

  [[nodiscard]] std::int64_t about_now() const noexcept override {
    ++coarse_reads;
    return now_;
  }
  [[nodiscard]] bool has_outside_handles() const noexcept override { return outside_handles; }
  // No other thread comes in.
  [[nodiscard]] std::shared_ptr<annulet::detail::door> way_in() noexcept override { return nullptr; }

 private:
  void run_script() {
    while (!script_.empty() && script_.begin()->first <= now_) {
      auto next = script_.extract(script_.begin());
      next.mapped()();
    }
  }

  std::int64_t now_ = start;
  std::multimap<std::int64_t, std::function<void()>> script_;
};

// A scheduler on such a clock, with the test's own context as its main fiber.
class driven {
 public:
  driven_clock clock;
  annulet::detail::scheduler fibers;

  explicit driven(const annulet::detail::scheduler_options& options = {}) : fibers(clock, options) {}
  ~driven() { fibers.shut_down(annulet::deadline::never()); }
  driven(const driven&) = delete;
  driven& operator=(const driven&) = delete;

  // The fiber that calls.
  [[nodiscard]] annulet::detail::control_block& self() noexcept { return fibers.running(); }
};

}  // namespace annulet_test
