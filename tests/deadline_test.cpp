#include <annulet/runtime/deadline.hpp>

#include <annulet/runtime/event.hpp>
#include <annulet/runtime/fiber.hpp>
#include <annulet/runtime/this_fiber.hpp>

#include "support/driven_clock.hpp"

#include <doctest/doctest.h>

#include <chrono>
#include <cmath>
#include <cstdint>
#include <limits>
#include <ratio>
#include <stdexcept>

using annulet::deadline;
using annulet_test::driven;
using annulet_test::driven_clock;
using namespace std::chrono_literals;

namespace {

using steady = std::chrono::steady_clock;
constexpr auto longest = std::numeric_limits<std::int64_t>::max();
constexpr auto shortest = std::numeric_limits<std::int64_t>::min();

template <class Rep, class Period = std::ratio<1>>
std::int64_t from_start(std::chrono::duration<Rep, Period> d) {
  return deadline(d).nanoseconds() - driven_clock::start;
}

}  // namespace

TEST_CASE("a duration counts from now") {
  driven world;
  CHECK(from_start(1ns) == 1);
  CHECK(from_start(1us) == 1'000);
  CHECK(from_start(50ms) == 50'000'000);
  CHECK(from_start(2h) == 7'200'000'000'000);
  world.clock.advance(5ns);
  CHECK(from_start(1ns) == 6);
}

TEST_CASE("what is finer than a nanosecond is rounded up, so that no wait is early") {
  const driven world;
  CHECK(from_start(std::chrono::duration<std::int64_t, std::pico>(1)) == 1);
  CHECK(from_start(std::chrono::duration<std::int64_t, std::pico>(1000)) == 1);
  CHECK(from_start(std::chrono::duration<std::int64_t, std::pico>(1001)) == 2);
  CHECK(from_start(std::chrono::duration<double>(1e-300)) == 1);
  CHECK(from_start(std::chrono::duration<double, std::nano>(7.25)) == 8);
  CHECK(from_start(std::chrono::duration<float>(0.5F)) == 500'000'000);
  CHECK(from_start(std::chrono::duration<int, std::ratio<1, 3>>(1)) == 333'333'334);
}

TEST_CASE("a floating duration that is negative by less than a nanosecond means: look once") {
  const driven world;
  CHECK(deadline(std::chrono::duration<double, std::nano>(-0.25)).is_past());
  CHECK(deadline(std::chrono::duration<double>(-0.0)).is_past());
}

TEST_CASE("zero and negative durations are past and read no clock") {
  const driven world;
  CHECK(deadline(0ms).is_past());
  CHECK(deadline(-1ns).is_past());
  CHECK(deadline(std::chrono::hours::min()).is_past());
  CHECK(deadline(-1.5s).is_past());
  CHECK(deadline(0ms).reached());
  CHECK(deadline(0ms) == deadline::past());
  CHECK(world.clock.reads == 0);
}

TEST_CASE("never is never reached, and neither never nor past read the clock to know") {
  const driven world;
  CHECK(deadline::never().is_never());
  CHECK_FALSE(deadline::never().is_past());
  CHECK_FALSE(deadline::never().reached());
  CHECK_FALSE(deadline::past().is_never());
  CHECK(deadline::past().reached());
  CHECK(world.clock.reads == 0);
}

TEST_CASE("a NaN duration is std::invalid_argument, of every floating type and in every blocking call") {
  driven world;
  CHECK_THROWS_AS(deadline(std::chrono::duration<float>(std::nanf(""))), std::invalid_argument);
  CHECK_THROWS_AS(deadline(std::chrono::duration<double, std::milli>(std::nan(""))), std::invalid_argument);
  CHECK_THROWS_AS(deadline(std::chrono::duration<long double>(std::nanl(""))), std::invalid_argument);
  const std::chrono::duration<double> nan(std::nan(""));
  CHECK_THROWS_AS(annulet::this_fiber::sleep_for(nan), std::invalid_argument);
  annulet::event flag;
  CHECK_THROWS_AS(flag.wait(nan), std::invalid_argument);
  auto child = annulet::spawn([] {});
  CHECK_THROWS_AS(child.join(nan), std::invalid_argument);
  CHECK_THROWS_AS(child.get(nan), std::invalid_argument);
  CHECK_FALSE(child.done());
  CHECK(world.clock.waits == 0);
}

TEST_CASE("what is too long for the clock is never, what is too short is past") {
  const driven world;
  constexpr double infinite = std::numeric_limits<double>::infinity();
  CHECK(deadline(std::chrono::duration<double>(infinite)).is_never());
  CHECK(deadline(std::chrono::duration<double>(-infinite)).is_past());
  CHECK(deadline(std::chrono::duration<double>(1e300)).is_never());
  CHECK(deadline(std::chrono::duration<double>(-1e300)).is_past());
  CHECK(deadline(std::chrono::hours::max()).is_never());
  CHECK(deadline(std::chrono::nanoseconds::max()).is_never());
  CHECK(deadline(std::chrono::nanoseconds::max() - 1ns).is_never());  // now is added to it
  CHECK(deadline(std::chrono::duration<std::uint64_t, std::nano>(1ULL << 63)).is_never());
  CHECK(deadline(std::chrono::duration<std::int64_t, std::giga>(10)).is_never());
  CHECK(deadline(std::chrono::duration<double, std::nano>(9223372036854775808.0)).is_never());
}

TEST_CASE("a long double that rounds up to beyond the clock is never, and not past") {
  const driven world;
  // Below 2^63 by half, so the next whole nanosecond is out of range.
  const std::chrono::duration<long double, std::nano> edge(9223372036854775807.5L);
  CHECK(deadline(edge).is_never());
  CHECK_FALSE(deadline(edge).is_past());
}

TEST_CASE("a long duration in a unit that is no multiple of a nanosecond is not past") {
  const driven world;
  // 105 years in thirds of a second: within the clock's range, though not when first multiplied by 10^9.
  const std::chrono::duration<std::int64_t, std::ratio<1, 3>> thirds(10'000'000'000);
  CHECK(from_start(thirds) == 3'333'333'333'333'333'334);
}

TEST_CASE("a deadline of 292 years minus what the clock shows is still a point in time") {
  const driven world;
  const auto room = longest - driven_clock::start;
  CHECK(deadline(std::chrono::nanoseconds(room - 1)).nanoseconds() == longest - 1);
  CHECK_FALSE(deadline(std::chrono::nanoseconds(room - 1)).is_never());
  CHECK(deadline(std::chrono::nanoseconds(room)).is_never());
  CHECK(deadline(std::chrono::nanoseconds(room + 1)).is_never());
}

TEST_CASE("a time point of any resolution is taken as it is, and no clock is read") {
  const driven world;
  CHECK(deadline(steady::time_point(7ns)).nanoseconds() == 7);
  CHECK(deadline(steady::time_point(-7ns)).nanoseconds() == -7);
  CHECK(deadline(std::chrono::time_point<steady, std::chrono::seconds>(3s)).nanoseconds() == 3'000'000'000);
  CHECK(deadline(std::chrono::time_point<steady, std::chrono::hours>(std::chrono::hours::max())).is_never());
  CHECK(deadline(steady::time_point::max()).is_never());
  CHECK(deadline(steady::time_point::min()).nanoseconds() == shortest);
  const auto nan = std::chrono::duration<double>(std::nan(""));
  using point = std::chrono::time_point<steady, std::chrono::duration<double>>;
  CHECK_THROWS_AS(deadline(point(nan)), std::invalid_argument);
  CHECK(world.clock.reads == 0);
}

TEST_CASE("a deadline is reached at its nanosecond and not before") {
  driven world;
  const deadline soon(10ns);
  CHECK_FALSE(soon.reached());
  world.clock.advance(9ns);
  CHECK_FALSE(soon.reached());
  world.clock.advance(1ns);
  CHECK(soon.reached());
}

TEST_CASE("deadlines are ordered: past, the points of the clock, never") {
  const driven world;
  CHECK(deadline::past() < deadline(1ns));
  CHECK(deadline(1ns) < deadline(2ns));
  CHECK(deadline(1ns) == deadline(1ns));
  CHECK(deadline(1h) < deadline::never());
}

TEST_CASE("without a scheduler a deadline counts from the steady clock") {
  const auto before = steady::now();
  const deadline one_hour(1h);
  const auto after = steady::now();
  CHECK(one_hour >= deadline(before + 1h));
  CHECK(one_hour <= deadline(after + 1h));
}
