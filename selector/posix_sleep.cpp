// Sleeps. What runs by the monotonic clock, and each relative sleep by the wall clock, is a timer of the
// hub's; an absolute time of another clock is a timer of the kernel's, for such a clock may be set meanwhile.

#include "caller_memory.hpp"
#include "drop_in.hpp"
#include "posix.h"

#include <annulet/hub/syscalls.hpp>
#include <annulet/runtime/switching.hpp>

#include <algorithm>

#include <sys/timerfd.h>

namespace annulet::detail {

namespace {

io_result plain_sleep(clockid_t clock, int flags, const timespec* time, timespec* left) noexcept {
  return kernel(SYS_clock_nanosleep, clock, flags, time, left);
}

timespec time_of(std::int64_t nanoseconds) noexcept {
  return {nanoseconds / nanoseconds_a_second, nanoseconds % nanoseconds_a_second};
}

io_result as_result(wake_reason why) noexcept {
  switch (why) {
    case wake_reason::signalled:
      return io_result(-EINTR);
    case wake_reason::interrupted:
      return io_result(-ECANCELED);
    default:
      return io_result(0);
  }
}

// A time of the monotonic clock.
io_result sleep_until(hub_core& hub, const char* name, deadline until) noexcept {
  file_waits waits(hub, name);
  try {
    return as_result(waits.park(until, {}));
  } catch (const std::bad_alloc&) {
    return io_result(-ENOMEM);
  }
}

std::int64_t now_by(clockid_t clock) noexcept {
  timespec now{};
  (void)kernel(SYS_clock_gettime, clock, &now);
  return nanoseconds(now);
}

// By a clock that no timer knows, such as one of CPU time: looks at it from time to time, and more often when
// it may be there soon.
io_result watch_clock(hub_core& hub, const char* name, clockid_t clock, std::int64_t until) noexcept {
  constexpr std::int64_t most = 100'000'000;
  constexpr std::int64_t least = 1'000'000;
  for (;;) {
    const std::int64_t left = until - now_by(clock);
    if (left <= 0) {
      return io_result(0);
    }
    // All CPUs together run it faster than time goes by.
    const std::int64_t step = std::clamp(left / 4, least, most);
    const io_result slept = sleep_until(hub, name, deadline(std::chrono::nanoseconds(step)));
    if (!slept.ok()) {
      return slept;
    }
  }
}

io_result sleep_by_timer(hub_core& hub, const char* name, clockid_t clock, const timespec& until) noexcept {
  const io_result made = kernel(SYS_timerfd_create, clock, TFD_CLOEXEC | TFD_NONBLOCK);
  if (!made.ok()) {
    return watch_clock(hub, name, clock, nanoseconds(until));  // TAI, or no descriptor is left
  }
  const int timer = static_cast<int>(made.value());
  const itimerspec once{{}, until};
  io_result slept = kernel(SYS_timerfd_settime, timer, TFD_TIMER_ABSTIME, &once, nullptr);
  if (slept.ok()) {
    try {
      file_waits waits(hub, name);
      waits.make_room(1);
      waits.add(timer, POLLIN);
      wake_reason why = wake_reason::ready;
      std::uint64_t expired = 0;
      while (why == wake_reason::ready && !kernel(SYS_read, timer, &expired, sizeof(expired)).ok()) {
        why = waits.park(deadline::never(), {});
      }
      slept = as_result(why);
    } catch (const std::bad_alloc&) {
      slept = io_result(-ENOMEM);
    }
  }
  (void)kernel(SYS_close, timer);
  return slept;
}

bool is_steady(clockid_t clock, bool absolute) noexcept {
  return clock == CLOCK_MONOTONIC || (clock == CLOCK_REALTIME && !absolute);
}

// Until a time of the clock, in nanoseconds.
io_result sleep_by(hub_core& hub, const char* name, clockid_t clock, bool steady,
                   std::int64_t until) noexcept {
  if (until == for_ever) {
    return sleep_until(hub, name, deadline::never());
  }
  if (steady) {
    using point = std::chrono::steady_clock::time_point;
    return sleep_until(hub, name, deadline(point(std::chrono::nanoseconds(until))));
  }
  return sleep_by_timer(hub, name, clock, time_of(until));
}

io_result sleep_on(hub_core& hub, const char* name, clockid_t clock, int flags, const timespec* caller_time,
                   timespec* left) noexcept {
  timespec time{};
  if (!copy_from_caller(&time, caller_time, sizeof(time)) || !is_valid(time)) {
    return plain_sleep(clock, flags, caller_time, left);  // refused
  }
  if (hub.is_in_handler()) {
    return plain_sleep(clock, flags, caller_time, left);
  }
  const bool absolute = (flags & TIMER_ABSTIME) != 0;
  const bool steady = is_steady(clock, absolute);
  if (!steady) {
    const timespec long_ago{};
    if (const io_result known = plain_sleep(clock, TIMER_ABSTIME, &long_ago, nullptr); !known.ok()) {
      return known;
    }
  }
  const auto now = [&] { return steady ? clock_now() : now_by(clock); };
  std::int64_t until = nanoseconds(time);
  if (!absolute && __builtin_add_overflow(until, now(), &until)) {
    until = for_ever;
  }
  if (until <= now()) {
    hub.fibers().give_way();
    return io_result(0);
  }
  const io_result slept = sleep_by(hub, name, clock, steady, until);
  if ((slept.error() == EINTR || slept.error() == ECANCELED) && left != nullptr && !absolute) {
    const timespec rest = time_of(std::max<std::int64_t>(until - now(), 0));
    if (!copy_to_caller(left, &rest, sizeof(rest))) {
      return io_result(-EFAULT);
    }
  }
  return slept;
}

// As the C library has it.
io_result sleep_anyhow(const char* name, clockid_t clock, int flags, const timespec* time,
                       timespec* left) noexcept {
  if (clock == CLOCK_THREAD_CPUTIME_ID) {
    return io_result(-EINVAL);
  }
  hub_core* const hub = hub_core::of_caller();
  return hub == nullptr ? plain_sleep(clock, flags, time, left)
                        : sleep_on(*hub, name, clock, flags, time, left);
}

}  // namespace

}  // namespace annulet::detail

using namespace annulet::detail;

unsigned annulet_sleep(unsigned seconds) {
  hub_core* const hub = hub_core::of_caller();
  const bool ended_before = hub != nullptr && hub->fibers().is_interrupted();
  timespec time{seconds, 0};
  const int kept = errno;
  const io_result slept = sleep_anyhow("sleep", CLOCK_REALTIME, 0, &time, &time);
  if (slept.ok()) {
    errno = kept;
    return 0;
  }
  errno = slept.error();
  return ended_before && errno == ECANCELED ? 0 : static_cast<unsigned>(time.tv_sec);
}

int annulet_usleep(unsigned microseconds) {
  constexpr unsigned a_second = 1'000'000;
  const timespec time{microseconds / a_second, microseconds % a_second * 1000L};
  return as_returned(sleep_anyhow("usleep", CLOCK_REALTIME, 0, &time, nullptr));
}

int annulet_nanosleep(const timespec* time, timespec* left) {
  return as_returned(sleep_anyhow("nanosleep", CLOCK_REALTIME, 0, time, left));
}

int annulet_clock_nanosleep(clockid_t clock, int flags, const timespec* time, timespec* left) {
  return sleep_anyhow("clock_nanosleep", clock, flags, time, left).error();
}
