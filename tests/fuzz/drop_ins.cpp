// The arrays, sets, times and masks that a drop-in is given, whatever they are: each call is made plainly and
// as a drop-in about the same files, and what they return and write has to be the same. A libFuzzer target.
//
// ANNULET_FUZZ_PLANTED=1 switches a bug on that it has to find.
#include "fuzz.hpp"

#include "../support/planting.hpp"

#include <annulet/selector/posix.h>
#include <annulet/hub/hub.hpp>

#include <algorithm>
#include <array>
#include <cerrno>
#include <climits>
#include <csignal>
#include <cstdlib>
#include <optional>
#include <vector>

#include <fcntl.h>
#include <poll.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/select.h>
#include <sys/socket.h>
#include <unistd.h>

namespace {

using fuzz::differ;
using fuzz::input;

// Files that nobody changes.
class files {
 public:
  files() {
    std::array<int, 2> two{};
    open(::pipe2(two.data(), O_CLOEXEC) == 0 ? two[0] : -1);  // empty
    open(two[1]);
    open(::pipe2(two.data(), O_CLOEXEC) == 0 ? two[0] : -1);  // full of a byte
    (void)!::write(two[1], "x", 1);
    open(::pipe2(two.data(), O_CLOEXEC) == 0 ? two[0] : -1);  // at its end
    ::close(two[1]);
    open(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, two.data()) == 0 ? two[0] : -1);
    open(two[1]);
    ::shutdown(two[1], SHUT_WR);
    open(::eventfd(1, EFD_CLOEXEC));
    open(::open("/dev/null", O_RDWR | O_CLOEXEC));
    open(::open("/", O_RDONLY | O_CLOEXEC));
    set_ = open(::epoll_create1(EPOLL_CLOEXEC));
    // One of them has something to say: several would take turns.
    for (const std::size_t one : {std::size_t{0}, std::size_t{2}}) {
      epoll_event event{EPOLLIN, {.fd = all_[one]}};
      ::epoll_ctl(set_, EPOLL_CTL_ADD, all_[one], &event);
    }
    all_.push_back(closed);
    all_.push_back(closed + 1000);
  }
  [[nodiscard]] int any(input& from) const {
    return all_[from.ConsumeIntegralInRange<std::size_t>(0, all_.size() - 1)];
  }
  [[nodiscard]] int any_set(input& from) const {
    return from.ConsumeIntegralInRange(0, 3) != 0 ? set_ : any(from);
  }

 private:
  static constexpr int closed = 777;

  int open(int fd) {
    if (fd < 0) {
      fuzz::give_up("a file cannot be opened");
    }
    all_.push_back(fd);
    return fd;
  }

  std::vector<int> all_;
  int set_ = -1;
};

// Where a call's memory is: it ends right before nothing, or too early, or may be read only, or is not at
// all.
class place {
 public:
  place()
      : start_(static_cast<char*>(
            ::mmap(nullptr, 2 * page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0))) {
    ::mprotect(start_ + page, page, PROT_NONE);
  }
  // For so many bytes.
  template <class T>
  T* lay_out(input& from, const void* bytes, std::size_t size) {
    size_ = std::min(size, page);
    offset_ = page - size_;
    kept_.assign(static_cast<const char*>(bytes), static_cast<const char*>(bytes) + size_);
    how_ = from.ConsumeIntegralInRange(0, 15);
    if (how_ == short_by_some && size_ != 0) {
      offset_ += from.ConsumeIntegralInRange<std::size_t>(1, size_);
    }
    renew();
    return how_ == none ? nullptr : reinterpret_cast<T*>(start_ + offset_);
  }
  // As it was laid out.
  void renew() {
    ::mprotect(start_, page, PROT_READ | PROT_WRITE);
    std::copy_n(kept_.begin(), page - offset_, start_ + offset_);
    if (how_ == read_only) {
      ::mprotect(start_, page, PROT_READ);
    }
  }
  [[nodiscard]] std::vector<char> now() const { return {start_ + offset_, start_ + page}; }

 private:
  static constexpr std::size_t page = 4096;
  enum : int { none = 0, short_by_some = 1, read_only = 2 };

  char* start_;
  std::size_t size_ = 0;
  std::size_t offset_ = page;
  int how_ = read_only + 1;
  std::vector<char> kept_;
};

struct said {
  int result;
  int error;
  std::vector<std::vector<char>> written;
  bool operator==(const said&) const = default;
  // However long it may: a look that could not write what it found may have found nothing.
  [[nodiscard]] bool needs_no_time() const noexcept { return result > 0 || (error != 0 && error != EFAULT); }
};

// The same call twice. `places`: what it may write to.
template <std::size_t N, class Plain, class Ours>
said made_twice(const char* name, std::array<place*, N> places, Plain&& plain, Ours&& ours) {
  const auto make = [&](auto&& call) {
    for (place* const one : places) {
      one->renew();
    }
    int result = -1;
    do {  // libFuzzer has an alarm
      errno = 0;
      result = call();
    } while (result < 0 && errno == EINTR);
    said all{result, result < 0 ? errno : 0, {}};
    for (const place* const one : places) {
      all.written.push_back(one->now());
    }
    return all;
  };
  const said expected = make(plain);
  const said found = make(ours);
  if (found != expected) {
    differ(name, expected.result, expected.error, found.result, found.error);
  }
  return found;
}

// A time that is no time, or none, or so short that it may pass; with `finds`, where there is something to be
// found, any.
timespec some_time(input& from, bool finds) {
  constexpr std::array<long, 6> odd = {-1, LONG_MIN, LONG_MAX, 1'000'000'000, 1'500'000'000, 999'999'999};
  switch (from.ConsumeIntegralInRange(0, 4)) {
    case 0:
      return {from.PickValueInArray({0L, -1L, LONG_MIN}),
              from.PickValueInArray({-1L, LONG_MIN, 1'000'000'000L})};
    case 1:
      return {0, from.ConsumeIntegralInRange(1L, 20'000L)};
    case 2:
      return finds ? timespec{from.PickValueInArray({1L, LONG_MAX, LONG_MAX / 2}), 0} : timespec{0, 0};
    case 3:
      return finds ? timespec{from.PickValueInArray(odd), from.PickValueInArray(odd)} : timespec{-1, 0};
    default:
      return {0, 0};
  }
}

const sigset_t* some_mask(input& from, place& at) {
  sigset_t mask;
  sigemptyset(&mask);
  if (from.ConsumeBool()) {
    sigaddset(&mask, SIGUSR1);
  }
  return from.ConsumeBool() ? nullptr : at.lay_out<sigset_t>(from, &mask, sizeof(unsigned long));
}

struct world {
  annulet::hub home;
  files known;
  std::array<place, 5> places;
};

void fuzz_poll(world& all, input& from) {
  std::array<pollfd, 40> fds{};
  const auto count = from.ConsumeIntegralInRange<std::size_t>(0, fds.size());
  for (pollfd& one : std::span(fds).first(count)) {
    one = {from.ConsumeIntegralInRange(0, 9) != 0 ? all.known.any(from)
                                                  : -1 - from.ConsumeIntegral<std::uint8_t>(),
           from.ConsumeIntegral<short>(), from.ConsumeIntegral<short>()};
  }
  const nfds_t said_count =
      from.ConsumeIntegralInRange(0, 9) != 0
          ? count
          : from.PickValueInArray<nfds_t>({count + 1, 600, 30'000, UINT_MAX, ULONG_MAX});
  pollfd* const at = all.places[0].lay_out<pollfd>(from, fds.data(), count * sizeof(pollfd));
  const std::array<place*, 1> written = {&all.places[0]};
  const said look = made_twice(
      "poll", written, [&] { return fuzz::plain_ppoll(at, said_count, &fuzz::no_time, nullptr); },
      [&] { return annulet_poll(at, said_count, 0); });
  const timespec time = some_time(from, look.needs_no_time());
  const timespec* const time_at = look.needs_no_time() && from.ConsumeBool() ? nullptr : &time;
  const sigset_t* const mask = some_mask(from, all.places[2]);
  made_twice(
      "ppoll", written, [&] { return fuzz::plain_ppoll(at, said_count, time_at, mask); },
      [&] { return annulet_ppoll(at, said_count, time_at, mask); });
}

void fuzz_select(world& all, input& from) {
  std::array<fd_set, 3> sets{};
  std::array<fd_set*, 3> at{};
  int highest = -1;
  for (std::size_t i = 0; i < 3; ++i) {
    for (int n = from.ConsumeIntegralInRange(0, 6); n != 0; --n) {
      const int fd = all.known.any(from);
      if (fd < FD_SETSIZE && (fd < 700 || from.ConsumeIntegralInRange(0, 9) == 0)) {
        FD_SET(fd, &sets[i]);
        highest = std::max(highest, fd);
      }
    }
    at[i] = from.ConsumeBool() ? all.places[i].lay_out<fd_set>(from, &sets[i], sizeof(fd_set)) : nullptr;
  }
  const int numbers = from.ConsumeIntegralInRange(0, 9) != 0
                          ? highest + 1
                          : from.PickValueInArray({-1, INT_MIN, 0, 64, 1024});
  const std::array<place*, 3> written = {&all.places[0], &all.places[1], &all.places[2]};
  const said found = made_twice(
      "select", written,
      [&] { return fuzz::plain_pselect(numbers, at[0], at[1], at[2], &fuzz::no_time, nullptr); },
      [&] {
        timeval none{};
        return annulet_select(numbers, at[0], at[1], at[2], &none);
      });
  const timespec time = some_time(from, found.needs_no_time());
  const timespec* const time_at = found.needs_no_time() && from.ConsumeBool() ? nullptr : &time;
  const sigset_t* const mask = some_mask(from, all.places[4]);
  made_twice(
      "pselect", written, [&] { return fuzz::plain_pselect(numbers, at[0], at[1], at[2], time_at, mask); },
      [&] { return annulet_pselect(numbers, at[0], at[1], at[2], time_at, mask); });
}

void fuzz_epoll(world& all, input& from) {
  std::array<epoll_event, 16> events{};
  const int most = from.ConsumeIntegralInRange(0, 9) != 0
                       ? 8
                       : from.PickValueInArray({0, -1, INT_MIN, INT_MAX, INT_MAX / 12, INT_MAX / 12 + 1});
  epoll_event* const at = all.places[0].lay_out<epoll_event>(from, events.data(), sizeof(events));
  const int set = all.known.any_set(from);
  const std::array<place*, 1> written = {&all.places[0]};
  const said look = made_twice(
      "epoll_wait", written, [&] { return fuzz::plain_epoll_pwait2(set, at, most, &fuzz::no_time, nullptr); },
      [&] { return annulet_epoll_wait(set, at, most, 0); });
  const timespec time = some_time(from, look.needs_no_time());
  const timespec* const time_at = look.needs_no_time() && from.ConsumeBool() ? nullptr : &time;
  const sigset_t* const mask = some_mask(from, all.places[2]);
  made_twice(
      "epoll_pwait2", written, [&] { return fuzz::plain_epoll_pwait2(set, at, most, time_at, mask); },
      [&] { return annulet_epoll_pwait2(set, at, most, time_at, mask); });
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static world& all = *new world;  // for the process ends within libFuzzer
  static const std::optional<annulet_test::planting> bug =
      std::getenv("ANNULET_FUZZ_PLANTED") != nullptr
          ? std::optional<annulet_test::planting>(std::in_place, annulet::detail::plant::missing_invalid, 1)
          : std::nullopt;
  input from(data, size);
  switch (from.ConsumeIntegralInRange(0, 2)) {
    case 0:
      fuzz_poll(all, from);
      break;
    case 1:
      fuzz_select(all, from);
      break;
    default:
      fuzz_epoll(all, from);
      break;
  }
  return 0;
}
