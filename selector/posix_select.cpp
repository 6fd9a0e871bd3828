// The kernel writes its answer over the sets that it was asked about. So they are kept, and put back before
// the fiber parks: while it is parked, whenever the kernel is asked again, and where the call ends without an
// answer, they are as the caller gave them.

#include "caller_memory.hpp"
#include "drop_in.hpp"
#include "posix.h"

#include <annulet/hub/syscalls.hpp>
#include <annulet_plants.hpp>

#include <algorithm>
#include <array>
#include <bit>
#include <cstdio>
#include <memory>
#include <span>

namespace annulet::detail {

namespace {

using set_word = unsigned long;
constexpr int bits_a_word = 8 * sizeof(set_word);

// As poll(2) asks about what each of the three sets asks.
constexpr std::array<std::uint16_t, 3> masks = {POLLIN | POLLRDNORM | POLLRDBAND,
                                                POLLOUT | POLLWRNORM | POLLWRBAND, POLLPRI};

// How many numbers the process has room for. The kernel looks at none beyond, however large the sets are.
int room_for_numbers() noexcept {
  int room = 0;
  if (std::FILE* const status = std::fopen("/proc/thread-self/status", "re")) {
    std::array<char, 256> line{};
    while (std::fgets(line.data(), line.size(), status) != nullptr &&
           std::sscanf(line.data(), "FDSize: %d", &room) != 1) {
    }
    std::fclose(status);
  }
  constexpr int most = 1 << 20;  // as many as a process may have, where nobody has asked for more
  return room > 0 ? room : most;
}

class kept_sets {
 public:
  // Throws std::bad_alloc. Without it, none are kept.
  void keep(int nfds, const std::array<fd_set*, 3>& sets) {
    sets_ = sets;
    constexpr int many = 1 << 16;
    if (nfds > many) {
      nfds = std::min(nfds, room_for_numbers());
    }
    nfds = std::max(nfds, 0);  // it is refused
    words_ = static_cast<std::size_t>((nfds + bits_a_word - 1) / bits_a_word);
    if (words_ > few) {
      larger_ = std::make_unique<set_word[]>(3 * words_);
      kept_ = larger_.get();
    } else {
      std::fill_n(kept_, 3 * words_, set_word{0});
    }
    for (std::size_t i = 0; i < 3; ++i) {
      if (sets_[i] != nullptr) {
        readable_[i] = read_from_caller(of(i), sets_[i], words_ * sizeof(set_word)) / sizeof(set_word);
      }
    }
  }

  // Writes to nothing that the kernel has not written to.
  void put_back() noexcept {
    for (std::size_t i = 0; i < 3; ++i) {
      set_word* const set = reinterpret_cast<set_word*>(sets_[i]);
      for (std::size_t at = 0; at < readable_[i]; ++at) {
        if (set[at] != of(i)[at]) {
          set[at] = of(i)[at];
        }
      }
    }
  }

  // each(fd, mask) for every number that some set has.
  template <class Each>
  void for_each(int nfds, Each&& each) const {
    for (std::size_t at = 0; at < words_; ++at) {
      set_word any = of(0)[at] | of(1)[at] | of(2)[at];
      for (; any != 0; any &= any - 1) {
        const int bit = std::countr_zero(any);
        const int fd = static_cast<int>(at) * bits_a_word + bit;
        unsigned mask = 0;
        for (std::size_t i = 0; i < 3; ++i) {
          mask |= (of(i)[at] >> bit & 1) != 0 ? masks[i] : 0U;
        }
        if (fd < nfds) {
          each(fd, static_cast<std::uint16_t>(mask));
        }
      }
    }
  }

 private:
  static constexpr std::size_t few = FD_SETSIZE / bits_a_word;

  [[nodiscard]] set_word* of(std::size_t set) noexcept { return kept_ + set * words_; }
  [[nodiscard]] const set_word* of(std::size_t set) const noexcept { return kept_ + set * words_; }

  std::array<fd_set*, 3> sets_{};
  std::size_t words_ = 0;  // of each
  std::array<std::size_t, 3> readable_{};
  std::array<set_word, 3 * few> small_;
  std::unique_ptr<set_word[]> larger_;
  set_word* kept_ = small_.data();
};

struct select_question {
  int nfds;
  std::array<fd_set*, 3> sets;
  const sigset_t* mask;

  [[nodiscard]] io_result plain(timespec* timeout) const noexcept {
    const struct {
      const sigset_t* mask;
      std::size_t size;
    } with{mask, sizeof(signal_mask)};
    return kernel(SYS_pselect6, nfds, sets[0], sets[1], sets[2], timeout, mask == nullptr ? nullptr : &with);
  }
};

// What is left of the time is told by the limit.
io_result plain_select(const select_question& what, time_limit& limit) noexcept {
  limit.begin();
  timespec time{limit.length() / nanoseconds_a_second, limit.length() % nanoseconds_a_second};
  return what.plain(limit.length() == for_ever ? nullptr : &time);
}

io_result select_on(hub_core& hub, const char* name, const select_question& what,
                    time_limit& limit) noexcept {
  const select_question quiet{what.nfds, what.sets, no_signals(what.mask)};
  try {
    kept_sets kept;
    if (!limit.is_zero() || what.mask != nullptr) {
      kept.keep(what.nfds, what.sets);
    }
    const io_result found = ask_or_wait(
        hub, name, waiter::no_descriptor, limit, what.mask,
        [&] {
          timespec none{};
          return quiet.plain(&none);
        },
        [&](file_waits& waits) {
          std::size_t count = 0;
          kept.for_each(what.nfds, [&](int, std::uint16_t) { ++count; });
          waits.make_room(count);
          kept.for_each(what.nfds, [&](int fd, std::uint16_t mask) { waits.add(fd, mask); });
        },
        [&] { kept.put_back(); }, [](const file_waits& waits) { return waits.any_was_closed() ? EBADF : 0; },
        [&] {
          kept.put_back();
          return plain_select(what, limit);
        });
    if (!found.ok() && found.error() != EFAULT) {
      kept.put_back();
    }
    return found;
  } catch (const std::bad_alloc&) {
    return io_result(-ENOMEM);
  }
}

// What Linux writes back. Where no clock was read, none of it has passed that a microsecond would show; but
// never all of it is left.
timespec left_of(const timespec& time, time_limit& limit) noexcept {
  std::int64_t left = nanoseconds(time);
  if (left == 0 || left == for_ever) {
    return time;
  }
  left = limit.begun() ? std::max<std::int64_t>(limit.end().nanoseconds() - clock_now(), 0) : left - 1;
  if (planted(plant::rounded_time)) {
    constexpr std::int64_t tick = 1'000'000;
    left = (left + tick - 1) / tick * tick;
  }
  return {left / nanoseconds_a_second, left % nanoseconds_a_second};
}

}  // namespace

}  // namespace annulet::detail

using namespace annulet::detail;

int annulet_select(int nfds, fd_set* readfds, fd_set* writefds, fd_set* exceptfds, timeval* timeout) {
  hub_core* const hub = hub_core::of_caller();
  const select_question what{nfds, {readfds, writefds, exceptfds}, nullptr};
  if (timeout == nullptr) {
    time_limit never(for_ever);
    return as_returned(hub == nullptr ? what.plain(nullptr) : select_on(*hub, "select", what, never));
  }
  constexpr std::int32_t microseconds_a_second = 1'000'000;
  // As the C library has it: 32 bits of the second number, which may be more than a second.
  const auto microseconds = static_cast<std::int32_t>(timeout->tv_usec);
  if (timeout->tv_sec < 0 || microseconds < 0) {
    return as_returned(io_result(-EINVAL));
  }
  timespec time{timeout->tv_sec, microseconds % microseconds_a_second * 1000L};
  if (__builtin_add_overflow(time.tv_sec, microseconds / microseconds_a_second, &time.tv_sec)) {
    time = {std::numeric_limits<time_t>::max(), nanoseconds_a_second - 1};
  }
  io_result found(0);
  if (hub == nullptr) {
    found = what.plain(&time);
  } else {
    time_limit limit(nanoseconds(time));
    found = select_on(*hub, "select", what, limit);
    time = left_of(time, limit);
  }
  *timeout = {time.tv_sec, time.tv_nsec / 1000};
  return as_returned(found);
}

int annulet_pselect(int nfds, fd_set* readfds, fd_set* writefds, fd_set* exceptfds, const timespec* timeout,
                    const sigset_t* mask) {
  hub_core* const hub = hub_core::of_caller();
  const select_question what{nfds, {readfds, writefds, exceptfds}, mask};
  if (hub == nullptr || (timeout != nullptr && !is_valid(*timeout)) || !is_readable(mask)) {
    timespec time{};  // the kernel writes there
    if (timeout != nullptr) {
      time = *timeout;
    }
    return as_returned(what.plain(timeout == nullptr ? nullptr : &time));
  }
  time_limit limit(timeout == nullptr ? for_ever : nanoseconds(*timeout));
  return as_returned(select_on(*hub, "pselect", what, limit));
}
