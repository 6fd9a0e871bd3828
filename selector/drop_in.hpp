// What the calls of posix.h have in common: the plain call is asked without waiting, and where it has nothing
// the fiber parks until it may have, and asks again. Internal.
#pragma once

#include <annulet/hub/file_waits.hpp>
#include <annulet/hub/hub_core.hpp>
#include <annulet/hub/io_result.hpp>
#include <annulet/hub/signal_mask.hpp>
#include <annulet/runtime/deadline.hpp>

#include <cerrno>
#include <cstdint>
#include <limits>
#include <new>
#include <optional>
#include <utility>

#include <signal.h>
#include <time.h>

namespace annulet::detail {

[[nodiscard]] inline int as_returned(io_result result) noexcept {
  if (!result.ok()) {
    errno = result.error();
    return -1;
  }
  return static_cast<int>(result.value());
}

// Lets others run, if it is time for that.
inline void breathe(hub_core& hub, std::size_t work = 1) noexcept {
  if (hub.fibers().due_to_breathe(work)) [[unlikely]] {
    hub.let_others_run();
  }
}

constexpr std::int64_t nanoseconds_a_second = 1'000'000'000;
constexpr std::int64_t for_ever = std::numeric_limits<std::int64_t>::max();

// Whether the kernel would take it for a time to wait.
[[nodiscard]] inline bool is_valid(const timespec& time) noexcept {
  return time.tv_sec >= 0 && time.tv_nsec >= 0 && time.tv_nsec < nanoseconds_a_second;
}
// Of a valid one. What is too long for the clock, some 292 years, is for ever.
[[nodiscard]] inline std::int64_t nanoseconds(const timespec& time) noexcept {
  return time.tv_sec >= for_ever / nanoseconds_a_second - 1
             ? for_ever
             : time.tv_sec * nanoseconds_a_second + time.tv_nsec;
}
[[nodiscard]] inline std::int64_t nanoseconds(int milliseconds) noexcept {
  return milliseconds < 0 ? for_ever : std::int64_t{milliseconds} * 1'000'000;
}

// A deadline so long from the moment at which it is first needed: a call that finds at once what it wants
// needs no clock.
class time_limit {
 public:
  explicit time_limit(std::int64_t nanoseconds) noexcept : length_(nanoseconds) {}

  [[nodiscard]] std::int64_t length() const noexcept { return length_; }
  [[nodiscard]] bool is_zero() const noexcept { return length_ == 0; }
  [[nodiscard]] bool begun() const noexcept { return begun_; }
  void begin() noexcept {
    if (!std::exchange(begun_, true) && length_ != for_ever) {
      end_ = deadline(std::chrono::nanoseconds(length_));
    }
  }
  [[nodiscard]] deadline end() noexcept {
    begin();
    return end_;
  }

 private:
  const std::int64_t length_;
  bool begun_ = false;
  deadline end_ = deadline::never();
};

[[nodiscard]] inline std::optional<signal_mask> mask_of(const sigset_t* set) noexcept {
  if (set == nullptr) {
    return std::nullopt;
  }
  signal_mask mask = 0;
  __builtin_memcpy(&mask, set, sizeof(mask));
  return mask;
}

// Whether the kernel would read it. There is no such way to change a mask, which is found out after it was
// read.
[[nodiscard]] inline bool is_readable(const sigset_t* set) noexcept {
  constexpr int no_way = 99;
  return set == nullptr ||
         kernel(SYS_rt_sigprocmask, no_way, set, nullptr, sizeof(signal_mask)).error() != EFAULT;
}

// For the plain call in the place of the caller's mask: a signal that it let in there would end this call
// alone, and not those of others that let it in, too. So what is pending is taken afterwards, for all.
[[nodiscard]] inline const sigset_t* no_signals(const sigset_t* mask) noexcept {
  static const signal_mask all = all_signals;
  return mask == nullptr ? nullptr : reinterpret_cast<const sigset_t*>(&all);
}

// Each finds something, and what the program then does with it may take long.
constexpr std::size_t work_of_event_loop = 8;

// `ask()` makes the plain call without waiting, and with no_signals(): 0 is "nothing yet". It also looks at
// what it was given, so `watch(waits)`, which says what to wait for, is called only after it and may trust
// that. `check(waits)` is asked after each park, before the plain call, for what that cannot know: an errno,
// or 0. `plainly()` makes the plain call as it came: for a handler,
// which must not park.
template <class Ask, class Watch, class Check, class Plainly>
[[nodiscard]] io_result ask_or_wait(hub_core& hub, const char* name, int fd, time_limit& limit,
                                    const sigset_t* mask, Ask&& ask, Watch&& watch, Check&& check,
                                    Plainly&& plainly) noexcept {
  try {
    if (hub.fibers().due_to_breathe(work_of_event_loop)) {
      limit.begin();
      hub.let_others_run();
    }
    const signal_terms signals{.mask = mask_of(mask)};
    const auto ask_and_let_in = [&] {
      const io_result found = ask();
      const bool has_nothing = found.ok() && found.value() == 0;
      return has_nothing && signals.mask && hub.signals().take_for(*signals.mask) ? io_result(-EINTR) : found;
    };
    const io_result found = ask_and_let_in();
    if (!found.ok() || found.value() != 0 || limit.is_zero()) {
      return found;
    }
    if (hub.is_in_handler()) {
      return plainly();
    }
    limit.begin();
    file_waits waits(hub, name, fd);
    watch(waits);
    for (;;) {
      const wake_reason why = waits.park(limit.end(), signals);
      if (why == wake_reason::signalled) {
        return io_result(-EINTR);
      }
      if (why == wake_reason::interrupted) {
        return io_result(-ECANCELED);
      }
      if (const int error = check(waits); error != 0) {
        return io_result(-error);
      }
      const io_result now = ask_and_let_in();
      if (!now.ok() || now.value() != 0 || why == wake_reason::timed_out) {
        return now;
      }
    }
  } catch (const std::bad_alloc&) {
    return io_result(-ENOMEM);
  }
}

}  // namespace annulet::detail
