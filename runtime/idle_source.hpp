// The seam to the hub: all that the scheduler knows of the world outside. A test puts a clock that it
// drives in the hub's place, and the whole runtime runs without a kernel.
#pragma once

#include "deadline.hpp"
#include "door.hpp"

#include <memory>

namespace annulet::detail {

class idle_source {
 public:
  idle_source() = default;
  idle_source(const idle_source&) = delete;
  idle_source& operator=(const idle_source&) = delete;
  virtual ~idle_source() = default;

  // No fiber is ready: block the thread until something was made ready, the deadline, a notification from
  // outside, or a signal; early returns are fine. Runs on the stack of whichever fiber parked last, and
  // never switches. What it cannot recover from ends the process with a message.
  virtual void wait(deadline until) noexcept = 0;
  // Take in what has happened, without blocking. Called once in a bounded run of switches.
  virtual void look() noexcept = 0;
  // False where a look would find nothing; and it costs much less than one.
  [[nodiscard]] virtual bool may_have_news() const noexcept { return true; }
  // Steady nanoseconds.
  [[nodiscard]] virtual std::int64_t now() const noexcept = 0;
  // The same to within some milliseconds, for less.
  [[nodiscard]] virtual std::int64_t about_now() const noexcept { return now(); }
  // Whether another thread may still bring work: then nothing is ever a deadlock.
  [[nodiscard]] virtual bool has_outside_handles() const noexcept = 0;
  // For other threads. It may outlive this.
  [[nodiscard]] virtual std::shared_ptr<door> way_in() noexcept = 0;
};

}  // namespace annulet::detail
