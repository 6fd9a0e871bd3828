// Opens once, when it has been counted down to zero, and stays open.
//
// For the fibers of one thread.
#pragma once

#include "deadline.hpp"
#include "wait_queue.hpp"

#include <cstddef>
#include <limits>

namespace [[gnu::visibility("default")]] annulet {

class latch {
 public:
  static constexpr std::size_t max = std::numeric_limits<std::ptrdiff_t>::max();

  // std::invalid_argument for more than `max`, as what was negative is.
  explicit latch(std::size_t count);
  latch(const latch&) = delete;
  latch& operator=(const latch&) = delete;
  // Fibers that still wait get std::logic_error out of wait().
  ~latch() = default;

  // Does not park. std::logic_error where that is more than is left; then nothing was counted.
  void count_down(std::size_t by = 1);
  // Does not park.
  [[nodiscard]] bool is_open() const noexcept { return count_ == 0; }
  // Parks until it is open. False where the deadline came first.
  bool wait(deadline until = deadline::never());
  // Both. What was counted stays counted, also where the wait is ended by the deadline or a cancellation.
  bool arrive_and_wait(deadline until = deadline::never());

 private:
  friend struct detail::lines;

  detail::wait_queue waiting_;
  std::size_t count_;
};

}  // namespace annulet
