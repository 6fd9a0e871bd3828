// The one way to say how long a call may wait.
//
//   event.wait(50ms);                        // from now on
//   event.wait(steady_clock::now() + 50ms);  // until then
//   event.wait(deadline::never());           // as long as it takes: the default everywhere
//   event.wait(0ms);                         // look once, do not wait
//
// A deadline is a point on std::chrono::steady_clock in nanoseconds, fixed when it is made: handing one
// deadline to several calls bounds them all together.
#pragma once

#include <chrono>
#include <cmath>
#include <compare>
#include <cstdint>
#include <limits>
#include <stdexcept>
#include <type_traits>

namespace [[gnu::visibility("default")]] annulet {

namespace detail {

// Nanoseconds of steady_clock, or of the clock that a test drives, on this thread. Any thread.
std::int64_t clock_now() noexcept;

// Nanoseconds in a duration, rounded up so that no wait is early, saturated at the ends of int64.
// Throws std::invalid_argument for NaN.
template <class Rep, class Period>
std::int64_t saturated_nanoseconds(std::chrono::duration<Rep, Period> d) {
  using limits = std::numeric_limits<std::int64_t>;
  if constexpr (std::is_floating_point_v<Rep>) {
    if (std::isnan(d.count())) {
      throw std::invalid_argument("annulet: a deadline cannot be made from a NaN duration");
    }
  }
  // A long double has at least the 64 bits that all whole nanoseconds in range need.
  static_assert(std::numeric_limits<long double>::digits >= 64);
  const auto wide = std::ceil(std::chrono::duration<long double, std::nano>(d).count());
  constexpr long double beyond = 9223372036854775808.0L;  // 2^63: the first that does not fit
  if (wide >= beyond) {
    return limits::max();
  }
  return wide < -beyond ? limits::min() : static_cast<std::int64_t>(wide);
}

}  // namespace detail

class deadline {
 public:
  using clock = std::chrono::steady_clock;

  // Implicit from any duration: so long from now. Zero and negative mean "look once" and read no clock;
  // what is too long for the clock is never. Throws std::invalid_argument for NaN.
  template <class Rep, class Period>
  deadline(std::chrono::duration<Rep, Period> from_now)  // NOLINT(google-explicit-constructor)
      : deadline(after(detail::saturated_nanoseconds(from_now))) {}

  // Implicit from a point of the steady clock, of any resolution.
  template <class Duration>
  deadline(std::chrono::time_point<clock, Duration> when)  // NOLINT(google-explicit-constructor)
      : ns_(detail::saturated_nanoseconds(when.time_since_epoch())) {}

  [[nodiscard]] static constexpr deadline never() noexcept { return deadline(never_ns); }
  // Already over: whoever is given it looks once.
  [[nodiscard]] static constexpr deadline past() noexcept { return deadline(past_ns); }

  [[nodiscard]] constexpr bool is_never() const noexcept { return ns_ == never_ns; }
  // Made from a duration of zero or less. A time point in the past is not: that takes a look at the clock.
  [[nodiscard]] constexpr bool is_past() const noexcept { return ns_ == past_ns; }
  // Reads the clock, but for never() and past().
  [[nodiscard]] bool reached() const noexcept {
    return is_past() || (!is_never() && detail::clock_now() >= ns_);
  }

  // Nanoseconds since the steady clock's epoch; the ends of the range stand for never and past.
  [[nodiscard]] constexpr std::int64_t nanoseconds() const noexcept { return ns_; }

  friend constexpr auto operator<=>(deadline, deadline) noexcept = default;

 private:
  static constexpr std::int64_t never_ns = std::numeric_limits<std::int64_t>::max();
  static constexpr std::int64_t past_ns = std::numeric_limits<std::int64_t>::min();

  constexpr explicit deadline(std::int64_t ns) noexcept : ns_(ns) {}
  static deadline after(std::int64_t wait) noexcept;

  std::int64_t ns_;
};

}  // namespace annulet
