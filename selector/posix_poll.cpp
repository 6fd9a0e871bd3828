#include "drop_in.hpp"
#include "posix.h"

#include <annulet/hub/syscalls.hpp>
#include <annulet_plants.hpp>

#include <algorithm>
#include <array>
#include <memory>
#include <span>

namespace annulet::detail {

namespace {

// ppoll without a mask, for there are machines that have no other.
io_result plain_poll(std::span<pollfd> fds, const timespec* timeout, const sigset_t* mask) noexcept {
  timespec left{};  // the kernel writes there
  if (timeout != nullptr) {
    left = *timeout;
  }
  return kernel(SYS_ppoll, fds.data(), fds.size(), timeout == nullptr ? nullptr : &left, mask,
                sizeof(signal_mask));
}

io_result ask(std::span<pollfd> fds, const sigset_t* mask) noexcept {
#if defined(SYS_poll)
  if (mask == nullptr) {
    return kernel(SYS_poll, fds.data(), fds.size(), 0);
  }
#endif
  const timespec none{};
  return plain_poll(fds, &none, mask);
}

// Bugs that a test can switch on.
io_result spoiled(std::span<pollfd> fds, io_result found) noexcept {
  if (found.ok() && found.value() != 0 && planted(plant::unasked_hang_up)) {
    for (pollfd& one : fds) {
      one.revents = static_cast<short>(one.revents | (one.revents != 0 ? POLLRDHUP : 0));
    }
  }
  if (found.ok() && found.value() != 0 && planted(plant::missing_invalid)) {
    for (pollfd& one : fds) {
      one.revents = static_cast<short>(one.revents & ~POLLNVAL);
    }
  }
  return found;
}

void watch_all(std::span<const pollfd> fds, file_waits& waits) {
  waits.make_room(fds.size());
  for (const pollfd& one : fds) {
    if (one.fd >= 0) {
      waits.add(one.fd, static_cast<std::uint16_t>(one.events));
    }
  }
}

// Those that were closed through the hub are POLLNVAL, whoever has their numbers now. Returns how many have
// something to say.
unsigned tell_closed(std::span<pollfd> fds, const file_waits& waits) noexcept {
  unsigned telling = 0;
  std::size_t watched = 0;
  for (pollfd& one : fds) {
    if (one.fd >= 0 && waits.was_closed(watched++)) {
      one.revents = POLLNVAL;
    }
    telling += one.revents != 0 ? 1 : 0;
  }
  return telling;
}

// What the caller asks, from when it parks: as in Linux, what others write into the array has no say then.
class kept_fds {
 public:
  // Throws std::bad_alloc.
  [[nodiscard]] std::span<pollfd> keep(std::span<const pollfd> fds) {
    if (fds.size() > few_.size()) {
      many_ = std::make_unique_for_overwrite<pollfd[]>(fds.size());
    }
    kept_ = {many_ != nullptr ? many_.get() : few_.data(), fds.size()};
    std::ranges::copy(fds, kept_.begin());
    return kept_;
  }
  void tell(std::span<pollfd> fds) const noexcept {
    for (std::size_t i = 0; i < kept_.size(); ++i) {
      fds[i].revents = kept_[i].revents;
    }
  }

 private:
  std::array<pollfd, 4> few_;
  std::unique_ptr<pollfd[]> many_;
  std::span<pollfd> kept_;
};

// A time that is not there is for ever.
int poll_on(hub_core& hub, const char* name, std::span<pollfd> fds, const timespec* timeout,
            const sigset_t* mask) noexcept {
  time_limit limit(timeout == nullptr ? for_ever : nanoseconds(*timeout));
  kept_fds kept;
  std::span<pollfd> asked = fds;
  const file_waits* waiting = nullptr;
  const io_result found = ask_or_wait(
      hub, name, waiter::no_descriptor, limit, mask,
      [&] {
        const io_result now = spoiled(asked, ask(asked, no_signals(mask)));
        const bool closed = now.ok() && waiting != nullptr && waiting->any_was_closed();
        return closed ? io_result(static_cast<int>(tell_closed(asked, *waiting))) : now;
      },
      [&](file_waits& waits) {
        asked = kept.keep(fds);
        watch_all(asked, waits);
        waiting = &waits;
      },
      [](const file_waits&) { return 0; }, [&] { return plain_poll(fds, timeout, mask); });
  kept.tell(fds);
  return as_returned(found);
}

}  // namespace

}  // namespace annulet::detail

using namespace annulet::detail;

int annulet_poll(pollfd* fds, nfds_t nfds, int milliseconds) {
  hub_core* const hub = hub_core::of_caller();
  const std::span all(fds, nfds);
  const timespec limit{milliseconds / 1000, milliseconds % 1000 * 1'000'000L};
  const timespec* const timeout = milliseconds < 0 ? nullptr : &limit;
  return hub == nullptr ? as_returned(plain_poll(all, timeout, nullptr))
                        : poll_on(*hub, "poll", all, timeout, nullptr);
}

int annulet_ppoll(pollfd* fds, nfds_t nfds, const timespec* timeout, const sigset_t* mask) {
  hub_core* const hub = hub_core::of_caller();
  const std::span all(fds, nfds);
  if (hub == nullptr || (timeout != nullptr && !is_valid(*timeout)) || !is_readable(mask)) {
    return as_returned(plain_poll(all, timeout, mask));
  }
  return poll_on(*hub, "ppoll", all, timeout, mask);
}
