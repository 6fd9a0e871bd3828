// The kernel is asked about copies of the sets, taken when the call begins, and its answer is what the
// caller's memory gets, when there is one: until then others may use that memory, as while a plain call
// waits.

#include "caller_memory.hpp"
#include "drop_in.hpp"
#include "posix.h"

#include <annulet/hub/syscalls.hpp>
#include <annulet_plants.hpp>

#include <algorithm>
#include <array>
#include <bit>
#include <memory>
#include <span>

#include <fcntl.h>

namespace annulet::detail {

namespace {

using set_word = unsigned long;
constexpr int bits_a_word = 8 * sizeof(set_word);

// As poll(2) asks about what each of the three sets asks.
constexpr std::array<std::uint16_t, 3> masks = {POLLIN | POLLRDNORM | POLLRDBAND,
                                                POLLOUT | POLLWRNORM | POLLWRBAND, POLLPRI};

// Whether the kernel looks at the bit of this number, as it does below the size of the process's table of
// descriptors. Of the numbers there it refuses those that are not open. Throws std::bad_alloc.
bool is_in_table(int number) {
  if (kernel(SYS_fcntl, number, F_GETFD).ok()) {
    return true;
  }
  const auto word = static_cast<std::size_t>(number / bits_a_word);
  const auto only_this = std::make_unique<set_word[]>(word + 1);
  only_this[word] = set_word{1} << number % bits_a_word;
  timespec none{};
  const io_result asked = kernel(SYS_pselect6, number + 1, only_this.get(), nullptr, nullptr, &none, nullptr);
  return asked.error() == EBADF;
}

// How many bits the kernel reads and writes at most: as many as the table has room for, which doubles when it
// grows, or `size`. Sets are often said to be larger than they are. Throws std::bad_alloc.
int bits_in_use(int nfds, int size) {
  constexpr int most = 1 << 30;
  while (size < std::min(nfds, most) && is_in_table(size)) {
    size *= 2;
  }
  return std::min(size, nfds);
}

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

// Copies of what a caller asks, and room for the answer.
class copied_sets {
 public:
  // False where not all can be read. Each set is taken to have room for an fd_set, unless there is nothing
  // behind it. Throws std::bad_alloc.
  [[nodiscard]] bool copy(const select_question& what) {
    constexpr int smallest_table = 64;
    return copy(what, bits_in_use(what.nfds, FD_SETSIZE)) ||
           copy(what, bits_in_use(what.nfds, smallest_table));
  }
  // Whether all could be written.
  [[nodiscard]] bool tell() const noexcept { return copy_to_caller(pieces(answer())); }

  [[nodiscard]] io_result ask(const sigset_t* mask) noexcept {
    std::copy_n(asked_, 3 * words_, answer());
    select_question now{nfds_, {}, mask};
    for (std::size_t i = 0; i < 3; ++i) {
      now.sets[i] = theirs_[i] == nullptr ? nullptr : reinterpret_cast<fd_set*>(of(answer(), i));
    }
    timespec none{};
    return now.plain(&none);
  }

  // Throws std::bad_alloc.
  void watch(file_waits& waits) const {
    std::size_t count = 0;
    for_each([&](int, std::uint16_t) { ++count; });
    waits.make_room(count);
    for_each([&](int fd, std::uint16_t mask) { waits.add(fd, mask); });
  }

 private:
  static constexpr std::size_t few = FD_SETSIZE / bits_a_word;

  [[nodiscard]] bool copy(const select_question& what, int nfds) {
    nfds_ = nfds;
    words_ = static_cast<std::size_t>((nfds_ + bits_a_word - 1) / bits_a_word);
    if (words_ > few) {
      larger_ = std::make_unique<set_word[]>(6 * words_);
      asked_ = larger_.get();
    } else {
      asked_ = small_.data();
      std::fill_n(asked_, 3 * words_, set_word{0});
    }
    theirs_ = what.sets;
    return copy_from_caller(pieces(asked_));
  }
  // Of the sets that there are, beside those of ours.
  struct piece_list {
    std::array<caller_memory, 3> all;
    std::size_t count = 0;

    // NOLINTNEXTLINE: implicit, it is nothing else
    operator std::span<const caller_memory>() const noexcept { return std::span(all).first(count); }
  };
  [[nodiscard]] piece_list pieces(set_word* ours) const noexcept {
    piece_list found;
    for (std::size_t i = 0; i < 3; ++i) {
      if (theirs_[i] != nullptr && words_ != 0) {
        found.all.at(found.count++) = {theirs_[i], of(ours, i), words_ * sizeof(set_word)};
      }
    }
    return found;
  }
  [[nodiscard]] set_word* of(set_word* sets, std::size_t which) const noexcept {
    return sets + which * words_;
  }
  [[nodiscard]] set_word* answer() const noexcept { return asked_ + 3 * words_; }

  // each(fd, mask) for every number that some set has.
  template <class Each>
  void for_each(Each&& each) const {
    for (std::size_t at = 0; at < words_; ++at) {
      set_word any = of(asked_, 0)[at] | of(asked_, 1)[at] | of(asked_, 2)[at];
      for (; any != 0; any &= any - 1) {
        const int bit = std::countr_zero(any);
        const int fd = static_cast<int>(at) * bits_a_word + bit;
        unsigned mask = 0;
        for (std::size_t i = 0; i < 3; ++i) {
          mask |= (of(asked_, i)[at] >> bit & 1) != 0 ? masks[i] : 0U;
        }
        if (fd < nfds_) {
          each(fd, static_cast<std::uint16_t>(mask));
        }
      }
    }
  }

  int nfds_ = 0;
  std::array<fd_set*, 3> theirs_{};
  std::size_t words_ = 0;  // of each
  std::array<set_word, 6 * few> small_;
  std::unique_ptr<set_word[]> larger_;
  set_word* asked_ = small_.data();
};

// What is left of the time is told by the limit.
io_result plain_select(const select_question& what, time_limit& limit) noexcept {
  limit.begin();
  timespec time{limit.length() / nanoseconds_a_second, limit.length() % nanoseconds_a_second};
  return what.plain(limit.length() == for_ever ? nullptr : &time);
}

io_result select_on(hub_core& hub, const char* name, const select_question& what,
                    time_limit& limit) noexcept {
  const bool only_looks = limit.is_zero() && what.mask == nullptr;
  if (only_looks || what.nfds < 0) {  // or is refused
    breathe(hub, work_of_event_loop);
    timespec none{};
    return what.plain(&none);
  }
  try {
    copied_sets sets;
    if (!sets.copy(what)) {
      return io_result(-EFAULT);
    }
    const io_result found = ask_or_wait(
        hub, name, waiter::no_descriptor, limit, what.mask, [&] { return sets.ask(no_signals(what.mask)); },
        [&](file_waits& waits) { sets.watch(waits); },
        [](const file_waits& waits) { return waits.any_was_closed() ? EBADF : 0; },
        [&] { return plain_select(what, limit); });
    return found.ok() && !sets.tell() ? io_result(-EFAULT) : found;
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
