// Holds fibers until so many have arrived, then lets all of them go on, and is ready for the next round.
//
// For the fibers of one thread.
#pragma once

#include "deadline.hpp"
#include "wait_queue.hpp"

#include <cstddef>
#include <functional>
#include <limits>

namespace [[gnu::visibility("default")]] annulet {

class barrier {
 public:
  static constexpr std::size_t max = std::numeric_limits<std::ptrdiff_t>::max();

  // `completion` is called each time that all have arrived, by the last of them, before anyone goes on. It
  // must not park: who arrives meanwhile gets std::logic_error. What it throws comes out of that fiber's
  // call; the others go on. std::invalid_argument for a count of 0, and for more than `max`,
  // as what was negative is.
  explicit barrier(std::size_t count, std::function<void()> completion = {});
  barrier(const barrier&) = delete;
  barrier& operator=(const barrier&) = delete;
  // Fibers that still wait get std::logic_error out of their call.
  ~barrier() = default;

  // Parks until all have arrived. False where the deadline came first; then, as after a cancellation, this
  // fiber has not arrived, and the others wait for one in its stead.
  bool arrive_and_wait(deadline until = deadline::never());
  // Does not park: from now on there is one less to wait for. std::logic_error where there is none left.
  void leave();

 private:
  [[nodiscard]] bool has_arrived(std::size_t needed) noexcept;
  void complete();

  detail::wait_queue waiting_;  // those that have arrived
  std::size_t arrived_ = 0;     // with those that have given up since: counted anew when it seems enough
  std::size_t count_;
  bool completing_ = false;
  std::function<void()> completion_;
};

}  // namespace annulet
