// drop_in: what a drop-in costs beside the plain call, with 1, 10 and 1,000 descriptors.
//
//   annulet_bench drop_in
//
// poll, select and epoll_wait, each in three situations. "ready": one descriptor has something, and there is
// a second to wait. "nothing": there is nothing, and no time to wait. "woken": two parties that wait in turn,
// each for a byte on one of its descriptors, and send one to the other: two fibers of one thread with the
// drop-in, against two threads with the plain call. There the time of a round counts with few descriptors,
// and with 1,000 the processor time of both parties. Two threads that nobody has pinned are soon on two
// processors, so that pair is judged where time counts. Of processor time the pair on one is: with two, one
// writes while the other is still going through its 1,000, and most calls do not wait at all (column "parks",
// where 2 would be all).
#include <annulet/selector/posix.h>
#include <annulet/hub/hub.hpp>
#include <annulet/runtime/fiber.hpp>

#include <poll.h>
#include <sys/epoll.h>
#include <sys/select.h>
#include <unistd.h>
#include <algorithm>
#include <array>
#include <optional>
#include <thread>
#include <vector>

#include "benches.hpp"
#include "engines.hpp"
#include "harness.hpp"
#include "traffic.hpp"

namespace bench {
namespace {

constexpr std::size_t set_words = 1 << 8;

// Waits for any of some descriptors, by one of the three calls.
class waiting {
 public:
  virtual ~waiting() = default;
  // What the call returns.
  virtual int wait(int milliseconds) = 0;
};

template <auto Poll>
class by_poll final : public waiting {
 public:
  explicit by_poll(const std::vector<int>& fds) {
    for (const int fd : fds) {
      fds_.push_back({fd, POLLIN, 0});
    }
  }
  int wait(int milliseconds) override { return Poll(fds_.data(), fds_.size(), milliseconds); }

 private:
  std::vector<pollfd> fds_;
};

template <auto Select>
class by_select final : public waiting {
 public:
  explicit by_select(const std::vector<int>& fds) {
    for (const int fd : fds) {
      all_[static_cast<std::size_t>(fd) / 64] |= 1UL << (fd % 64);
      numbers_ = std::max(numbers_, fd + 1);
    }
  }
  int wait(int milliseconds) override {
    std::array<unsigned long, set_words> now;
    std::copy_n(all_.begin(), static_cast<std::size_t>(numbers_) / 64 + 1, now.begin());
    timeval time{milliseconds / 1000, milliseconds % 1000 * 1000};
    return Select(numbers_, reinterpret_cast<fd_set*>(now.data()), nullptr, nullptr, &time);
  }

 private:
  std::array<unsigned long, set_words> all_{};
  int numbers_ = 0;
};

template <auto EpollWait>
class by_epoll final : public waiting {
 public:
  explicit by_epoll(const std::vector<int>& fds) : set_(epoll_create1(EPOLL_CLOEXEC)) {
    for (const int fd : fds) {
      epoll_event event{EPOLLIN, {}};
      if (epoll_ctl(set_, EPOLL_CTL_ADD, fd, &event) != 0) {
        fail("drop_in: epoll_ctl failed");
      }
    }
  }
  ~by_epoll() override { ::close(set_); }
  by_epoll(const by_epoll&) = delete;
  by_epoll& operator=(const by_epoll&) = delete;
  int wait(int milliseconds) override {
    std::array<epoll_event, 8> events;
    return EpollWait(set_, events.data(), static_cast<int>(events.size()), milliseconds);
  }

 private:
  int set_;
};

template <class Waiting>
void turn_of_looks(meter& clock, const std::vector<int>& fds, std::uint64_t operations, int milliseconds,
                   int expected) {
  Waiting by(fds);
  const auto run = [&](std::uint64_t count) {
    for (std::uint64_t i = 0; i < count; ++i) {
      if (by.wait(milliseconds) != expected) {
        fail("drop_in: the call did not find what there was");
      }
    }
  };
  run(operations / 8 + 3);
  clock.start();
  run(operations);
  clock.stop(operations);
}

void send_byte(int fd) {
  const char byte = 1;
  if (::write(fd, &byte, 1) != 1) {
    fail("drop_in: write failed");
  }
}

void take_byte(int fd) {
  char byte = 0;
  if (::read(fd, &byte, 1) != 1) {
    fail("drop_in: read failed");
  }
}

// One of two, with its descriptors, of which the last is the one that is written to.
struct party {
  std::vector<int> fds;
  int to_other;

  void await(waiting& by) const {
    if (by.wait(1000) != 1) {
      fail("drop_in: woken for nothing");
    }
    take_byte(fds.back());
  }
};

template <class Waiting>
void answer(const party& who, std::uint64_t rounds) {
  Waiting by(who.fds);
  for (std::uint64_t i = 0; i < rounds; ++i) {
    who.await(by);
    send_byte(who.to_other);
  }
}

// `beside(fn)` has the other party run.
template <class Waiting, class Beside>
void turn_of_rounds(meter& clock, const party& here, const party& there, std::uint64_t rounds,
                    Beside&& beside) {
  const std::uint64_t warm_up = rounds / 8 + 3;
  auto other = beside([&] { answer<Waiting>(there, warm_up + rounds); });
  Waiting by(here.fds);
  const auto run = [&](std::uint64_t count) {
    for (std::uint64_t i = 0; i < count; ++i) {
      send_byte(here.to_other);
      here.await(by);
    }
  };
  run(warm_up);
  clock.start();
  run(rounds);
  clock.stop(rounds);
  other.join();
}

template <class DropIn, class Plain>
void hold_looks(harness& run, const char* call, const std::vector<int>& fds, int ready_writer) {
  const auto hold = [&](const std::string& situation, int milliseconds, int expected) {
    run.hold({.bench = "drop_in",
              .setting = std::string(call) + " " + situation + " N=" + std::to_string(fds.size()),
              .operation = "a call",
              .subject = {std::string("annulet_") + call,
                          [&](meter& clock, std::uint64_t operations) {
                            annulet::hub hub(on(annulet::engine_choice::uring));
                            turn_of_looks<DropIn>(clock, fds, operations, milliseconds, expected);
                          }},
              .baselines = {{call,
                             [&](meter& clock, std::uint64_t operations) {
                               turn_of_looks<Plain>(clock, fds, operations, milliseconds, expected);
                             },
                             goal::at_most(1.1)}}});
  };
  hold("nothing", 0, 0);
  send_byte(ready_writer);
  hold("ready", 1000, 1);
  take_byte(fds.back());
}

// Both threads are new, for one that has had a ring may be told EINTR by a plain call without any signal:
// what is left to do of the ring's end interrupts it.
template <class Plain>
turn_function by_threads(const party& here, const party& there, std::optional<int> other_processor) {
  return [&here, &there, other_processor](meter& clock, std::uint64_t operations) {
    const auto beside = [&](auto fn) {
      return std::thread([fn, other_processor] {
        if (other_processor) {
          pin_this_thread(*other_processor);
        }
        fn();
      });
    };
    std::thread([&] { turn_of_rounds<Plain>(clock, here, there, operations, beside); }).join();
  };
}

template <class DropIn, class Plain>
void hold_rounds(harness& run, const char* call, const party& here, const party& there) {
  const bool many = here.fds.size() > 10;
  const std::optional<goal> time = many ? std::nullopt : std::optional(goal::at_least(3.0));
  const std::optional<goal> processor_time = many ? std::optional(goal::at_most(3.0)) : std::nullopt;
  const auto other = usable_processors().other;
  contest what{.bench = "drop_in",
               .setting = std::string(call) + " woken N=" + std::to_string(here.fds.size()),
               .operation = "a round of two",
               .subject = {std::string("annulet_") + call + ", two fibers",
                           [&](meter& clock, std::uint64_t operations) {
                             annulet::hub hub(on(annulet::engine_choice::uring));
                             turn_of_rounds<DropIn>(clock, here, there, operations,
                                                    [](auto fn) { return annulet::spawn(fn); });
                           }},
               .baselines = {},
               .judged_by = many ? metric::cpu : metric::wall,
               .charged = accounting::process};
  if (other) {
    what.baselines.push_back(
        {std::string(call) + ", two threads, two CPUs", by_threads<Plain>(here, there, other), time});
  }
  what.baselines.push_back(
      {std::string(call) + ", two threads, one CPU", by_threads<Plain>(here, there, {}), processor_time});
  run.hold(what);
}

template <class DropIn, class Plain>
void hold_all(harness& run, const char* call) {
  for (const std::size_t count : {1, 10, 1000}) {
    const socket_pairs here_pairs(count);
    const socket_pairs there_pairs(count);
    const auto of = [](const socket_pairs& pairs) {
      const auto readers = pairs.readers();
      return std::vector<int>(readers.begin(), readers.end());
    };
    hold_looks<DropIn, Plain>(run, call, of(here_pairs), here_pairs.writers()[count - 1]);
    const party here{of(here_pairs), there_pairs.writers()[count - 1]};
    const party there{of(there_pairs), here_pairs.writers()[count - 1]};
    hold_rounds<DropIn, Plain>(run, call, here, there);
  }
}

}  // namespace

void bench_drop_in(harness& run) {
  if (!socket_pairs::possible(2000)) {
    run.skip("drop_in", "N=1000", "too few open files allowed (ulimit -n)");
    return;
  }
  hold_all<by_poll<&annulet_poll>, by_poll<&::poll>>(run, "poll");
  hold_all<by_select<&annulet_select>, by_select<&::select>>(run, "select");
  hold_all<by_epoll<&annulet_epoll_wait>, by_epoll<&::epoll_wait>>(run, "epoll_wait");
}

}  // namespace bench
