// A watch that writes down what it is told, and the four ways in which a ring can be set up.
#pragma once

#include <annulet/hub/hub.hpp>
#include <annulet/hub/hub_core.hpp>
#include <annulet/runtime/event.hpp>

#include <array>
#include <chrono>
#include <memory>
#include <vector>

#include <poll.h>

namespace annulet::test {

using namespace std::chrono_literals;

inline constexpr std::array all_modes = {ring_mode::defer_taskrun, ring_mode::coop_taskrun,
                                         ring_mode::submit_all, ring_mode::plain};

inline hub_options options_for(ring_mode mode) {
  hub_options options;
  options.mode = mode;
  return options;
}

// How long a test waits for what must come, before it says that it did not.
inline constexpr auto patience = 10s;

inline detail::hub_core& this_hub() { return *detail::hub_core::current(); }

class probe_watch final : public detail::watch {
 public:
  probe_watch() = default;
  explicit probe_watch(int fd) { attach(fd); }
  ~probe_watch() override {
    if (attached()) {
      detach();
    }
  }

  void attach(int fd) { this_hub().attach(*this, fd); }
  void detach() {
    const std::array<detail::watch*, 1> self{this};
    this_hub().detach(self);
  }
  void let_go() {
    const std::array<detail::watch*, 1> self{this};
    this_hub().io().let_go(self);
  }
  void want(int mask) { this_hub().io().set_interest(*this, static_cast<std::uint16_t>(mask)); }
  void want_nothing() { this_hub().io().clear_interest(*this); }
  // Armed, and the kernel knows: nothing that happens later can be missed.
  void arm_now(int mask) {
    want(mask);
    this_hub().io().flush();
  }

  // Parks until it was told so often. False where it was not in time.
  [[nodiscard]] bool told(std::size_t times) {
    return wait_until([&] { return results.size() >= times; });
  }
  // Parks until it was told of one of these bits.
  [[nodiscard]] bool told_of(int bits) {
    return wait_until([&] { return (seen & bits) != 0; });
  }
  [[nodiscard]] bool told_error(int error) {
    return wait_until([&] { return !results.empty() && results.back() == -error; });
  }

  void forget() {
    results.clear();
    seen = 0;
  }

  std::vector<int> results;  // masks, and errors as negative numbers
  int seen = 0;              // all masks together
  int closes = 0;
  int hub_ends = 0;
  // Called from inside the engine.
  void (*then)(probe_watch&) = nullptr;

 private:
  template <class Condition>
  bool wait_until(Condition condition) {
    const deadline limit = patience;
    while (!condition()) {
      something_.clear();
      if (!something_.wait(limit)) {
        return condition();
      }
    }
    return true;
  }

  void on_event(detail::io_result mask) noexcept override {
    if (mask.ok()) {
      results.push_back(static_cast<int>(mask.value()));
      seen |= static_cast<int>(mask.value());
    } else {
      results.push_back(-mask.error());
    }
    if (then != nullptr) {
      then(*this);
    }
    something_.set();
  }
  void on_close() noexcept override {
    ++closes;
    something_.set();
  }
  void on_hub_end() noexcept override { ++hub_ends; }

  event something_;
};

// Takes in all that the kernel has for this hub right now.
inline void take_in() {
  this_hub().io().flush();
  this_hub().io().look();
}

}  // namespace annulet::test
