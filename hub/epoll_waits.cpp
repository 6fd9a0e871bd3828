// How the engine on epoll waits.

#include "epoll_engine.hpp"
#include "syscalls.hpp"

#include <algorithm>
#include <array>
#include <cerrno>
#include <limits>

#include <poll.h>
#include <time.h>

namespace annulet::detail {

namespace {

timespec to_timespec(std::int64_t nanoseconds) noexcept {
  constexpr std::int64_t second = 1'000'000'000;
  return {nanoseconds / second, nanoseconds % second};
}

}  // namespace

io_result epoll_engine::wait_for_events(std::optional<std::int64_t> nanoseconds, int most,
                                        const signal_mask* mask) noexcept {
  ++counts_.enters;
  if (has_pwait2_) {
    const timespec limit = to_timespec(nanoseconds.value_or(0));
    const io_result got = kernel(SYS_epoll_pwait2, epoll_fd_, events_.data(), most,
                                 nanoseconds ? &limit : nullptr, mask, sizeof(*mask));
    // Linux before 5.11, or a filter that does not know it.
    if (got.error() != ENOSYS && got.error() != EPERM && got.error() != EACCES) {
      return got;
    }
    has_pwait2_ = false;
  }
  int milliseconds = -1;
  if (nanoseconds) {  // rounded up: never early
    const std::int64_t up = *nanoseconds / 1'000'000 + (*nanoseconds % 1'000'000 != 0 ? 1 : 0);
    milliseconds = static_cast<int>(std::min<std::int64_t>(up, std::numeric_limits<int>::max()));
  }
  return kernel(SYS_epoll_pwait, epoll_fd_, events_.data(), most, milliseconds, mask, sizeof(*mask));
}

std::optional<std::int64_t> epoll_engine::time_left(deadline until) noexcept {
  until = calls_->limit(until);
  if (until.is_never()) {
    return std::nullopt;
  }
  const std::int64_t now = until.is_past() ? 0 : clock_now();
  return until.nanoseconds() > now ? until.nanoseconds() - now : 0;  // it may be any number
}

// Whether something was there, and has been taken in.
bool epoll_engine::take_in_at_once() noexcept {
  const std::uint64_t before = taken_in_;
  flush();
  if (taken_in_ == before) {
    return false;
  }
  fetch(0, events_a_wait());
  return true;
}

engine::wait_end epoll_engine::wait(deadline until, const signal_mask* mask) noexcept {
  if (take_in_at_once()) {
    return wait_end::at_once;
  }
  fetch(time_left(until), events_a_wait(), mask);
  return interrupted_ ? wait_end::interrupted : wait_end::over;
}

// epoll_wait(2) also ends where the process was stopped, or io_uring has work for the thread, which it has
// when the thread has closed a ring. poll(2) goes on then by itself. With the signalfd beside it, it reports
// a signal whose handler runs as it returns; the set has nothing to say of that afterwards.
engine::wait_end epoll_engine::wait_for_handlers(deadline until, const signal_mask* mask,
                                                 int signals) noexcept {
  if (take_in_at_once()) {
    return wait_end::at_once;
  }
  const auto left = time_left(until);
  timespec limit = to_timespec(left.value_or(0));  // ppoll(2) may write what is left
  std::array<pollfd, 2> both{{{epoll_fd_, POLLIN, 0}, {signals, POLLIN, 0}}};
  ++counts_.enters;
  const io_result ready =
      kernel(SYS_ppoll, both.data(), signals < 0 ? 1 : 2, left ? &limit : nullptr, mask, sizeof(*mask));
  if (!ready.ok()) {  // EINVAL: so many may not be polled (RLIMIT_NOFILE)
    return ready.error() == EINTR ? wait_end::interrupted : wait(until, mask);
  }
  if ((both[1].revents & POLLNVAL) != 0) {  // it was closed, and not by the hub
    return wait(until, mask);
  }
  if (ready.value() != 0) {
    fetch(0, events_a_wait());
  }
  return (both[1].revents & POLLIN) != 0 ? wait_end::signalled : wait_end::over;
}

}  // namespace annulet::detail
