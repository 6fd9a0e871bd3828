#include "caller_memory.hpp"
#include "drop_in.hpp"
#include "posix.h"

#include <annulet/hub/syscalls.hpp>

namespace annulet::detail {

namespace {

// What a caller wants of an epoll descriptor.
struct epoll_question {
  int epoll;
  epoll_event* events;
  int most;
  const sigset_t* mask;

  [[nodiscard]] io_result plain(int milliseconds) const noexcept {
    return kernel(SYS_epoll_pwait, epoll, events, most, milliseconds, mask, sizeof(signal_mask));
  }
  [[nodiscard]] io_result plain(const timespec* timeout) const noexcept {
    return kernel(SYS_epoll_pwait2, epoll, events, most, timeout, mask, sizeof(signal_mask));
  }
};

// plainly(): the plain call with its whole time.
template <class Plainly>
int epoll_wait_on(hub_core& hub, const char* name, const epoll_question& what, std::int64_t nanoseconds,
                  Plainly&& plainly) noexcept {
  if (!is_readable(what.mask)) {
    return as_returned(what.plain(0));
  }
  const epoll_question quiet{what.epoll, what.events, what.most, no_signals(what.mask)};
  time_limit limit(nanoseconds);
  const sigset_t* const let_in =
      limit.is_zero() ? nullptr : what.mask;  // unlike poll, with no time it takes none
  return as_returned(ask_or_wait(
      hub, name, what.epoll, limit, let_in, [&] { return quiet.plain(0); },
      [&](file_waits& waits) {
        waits.make_room(1);
        waits.add(what.epoll, POLLIN);
      },
      [](const file_waits& waits) { return waits.was_closed(0) ? EBADF : 0; }, plainly));
}

}  // namespace

}  // namespace annulet::detail

using namespace annulet::detail;

int annulet_epoll_wait(int epoll, epoll_event* events, int maxevents, int milliseconds) {
  hub_core* const hub = hub_core::of_caller();
  const epoll_question what{epoll, events, maxevents, nullptr};
  const auto plainly = [&] { return what.plain(milliseconds); };
  return hub == nullptr ? as_returned(plainly())
                        : epoll_wait_on(*hub, "epoll_wait", what, nanoseconds(milliseconds), plainly);
}

int annulet_epoll_pwait(int epoll, epoll_event* events, int maxevents, int milliseconds,
                        const sigset_t* mask) {
  hub_core* const hub = hub_core::of_caller();
  const epoll_question what{epoll, events, maxevents, mask};
  const auto plainly = [&] { return what.plain(milliseconds); };
  return hub == nullptr ? as_returned(plainly())
                        : epoll_wait_on(*hub, "epoll_pwait", what, nanoseconds(milliseconds), plainly);
}

// A kernel without this call (before 5.11) says so, and refuses a bad time by its address or its value, as
// the plain call.
int annulet_epoll_pwait2(int epoll, epoll_event* events, int maxevents, const timespec* timeout,
                         const sigset_t* mask) {
  hub_core* const hub = hub_core::of_caller();
  const epoll_question what{epoll, events, maxevents, mask};
  const auto plainly = [&] { return what.plain(timeout); };
  if (hub == nullptr) {
    return as_returned(plainly());
  }
  timespec limit{};
  if (timeout != nullptr) {
    if (!copy_from_caller(&limit, timeout, sizeof(limit)) || !is_valid(limit)) {
      return as_returned(plainly());
    }
  }
  const std::int64_t length = timeout == nullptr ? for_ever : nanoseconds(limit);
  return epoll_wait_on(*hub, "epoll_pwait2", what, length, plainly);
}
