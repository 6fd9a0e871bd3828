// How long the kernel may refuse a call as if for a moment. One that is short of memory recovers; a filter
// that says so never does. Internal.
#pragma once

#include <annulet/runtime/deadline.hpp>

#include <cstdint>

namespace annulet::detail {

class refusals {
 public:
  void end() noexcept { in_a_row_ = 0; }
  // One more. Whether that is how it will stay: after so many and so long.
  [[nodiscard]] bool are_for_good() noexcept {
    constexpr unsigned many = 1000;
    constexpr std::int64_t patience = 5'000'000'000;
    if (++in_a_row_ == 1) {
      since_ = clock_now();
    }
    return in_a_row_ > many && clock_now() - since_ > patience;
  }

 private:
  unsigned in_a_row_ = 0;
  std::int64_t since_ = 0;
};

}  // namespace annulet::detail
