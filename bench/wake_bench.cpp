// wake: what it costs to wake a parked fiber from another thread.
//
//   annulet_bench wake
//
// Two threads on two processors, each of which waits until the other has woken it, there and back. In annulet
// each has a hub, and wakes the other's main fiber by posting to its hub a function that sets an event: that
// is the one way in for other threads. It is held against
// - an eventfd and an epoll set a thread, by hand: edge-triggered, which need not read the eventfd, and
//   level-triggered, which does;
// - a std::mutex and a std::condition_variable, which are futexes.
// The time of each round is taken; what counts is the median of a turn's rounds, and their 99th percentile in
// a contest of its own. The processor time is that of one of the threads. "busy" is one way only: posts to a
// hub whose fibers never sleep, each of which has run before the next, and which make no system call.
#include <annulet/hub/hub.hpp>
#include <annulet/runtime/event.hpp>
#include <annulet/runtime/fiber.hpp>
#include <annulet/runtime/this_fiber.hpp>

#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>
#include <algorithm>
#include <atomic>
#include <cerrno>
#include <condition_variable>
#include <cstring>
#include <future>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "benches.hpp"
#include "engines.hpp"
#include "harness.hpp"

namespace bench {
namespace {

// --- the parties: each is made and waits on its own thread, and is woken by the other

template <annulet::engine_choice Engine>
class annulet_party {
 public:
  void wake() {
    handle_.post([this] { woken_.set(); });
  }
  void wait() {
    woken_.wait();
    woken_.clear();
  }

 private:
  annulet::hub hub_{on(Engine)};
  annulet::hub_handle handle_ = hub_.handle();
  annulet::event woken_;
};

template <EPOLL_EVENTS Edge>
class epoll_party {
 public:
  epoll_party() : event_(eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)), set_(epoll_create1(EPOLL_CLOEXEC)) {
    epoll_event interest{.events = EPOLLIN | Edge, .data = {}};
    if (event_ < 0 || set_ < 0 || epoll_ctl(set_, EPOLL_CTL_ADD, event_, &interest) != 0) {
      fail("wake: eventfd or epoll: %s", std::strerror(errno));
    }
  }
  ~epoll_party() {
    ::close(set_);
    ::close(event_);
  }
  epoll_party(const epoll_party&) = delete;
  epoll_party& operator=(const epoll_party&) = delete;

  void wake() {
    const std::uint64_t one = 1;
    if (::write(event_, &one, sizeof one) != sizeof one) {
      fail("wake: write to an eventfd: %s", std::strerror(errno));
    }
  }
  void wait() {
    while (!look(-1)) {
    }
  }
  // Whether it was woken. A ring that this thread has closed before may still interrupt a wait.
  bool look(int timeout) {
    epoll_event events[512];
    const int found = epoll_wait(set_, events, 512, timeout);
    if (found < 0 && errno != EINTR) {
      fail("wake: epoll_wait: %s", std::strerror(errno));
    }
    std::uint64_t wakes = 0;
    if (found > 0 && Edge == EPOLL_EVENTS{} && ::read(event_, &wakes, sizeof wakes) != sizeof wakes) {
      fail("wake: read from an eventfd: %s", std::strerror(errno));
    }
    return found > 0;
  }

 private:
  int event_;
  int set_;
};

class futex_party {
 public:
  void wake() {
    {
      const std::lock_guard lock(mutex_);
      woken_ = true;
    }
    more_.notify_one();
  }
  void wait() {
    std::unique_lock lock(mutex_);
    more_.wait(lock, [this] { return woken_; });
    woken_ = false;
  }

 private:
  std::mutex mutex_;
  std::condition_variable more_;
  bool woken_ = false;
};

// --- there and back

double now_ns() {
  timespec now{};
  clock_gettime(CLOCK_MONOTONIC, &now);
  return static_cast<double>(now.tv_sec) * 1e9 + static_cast<double>(now.tv_nsec);
}

// The `share` of all that is not above what it returns.
double percentile(std::vector<double> values, double share) {
  const auto place = static_cast<std::size_t>(share * static_cast<double>(values.size() - 1));
  std::nth_element(values.begin(), values.begin() + static_cast<std::ptrdiff_t>(place), values.end());
  return values[place];
}

template <class Party>
turn_function there_and_back(double share) {
  return [share](meter& clock, std::uint64_t rounds) {
    const std::uint64_t warm_up = rounds / 8 + 1;
    Party mine;
    std::promise<Party*> made;
    std::thread thread([&] {
      pin_this_thread(*usable_processors().other);
      Party its;
      made.set_value(&its);
      for (std::uint64_t i = 0; i < warm_up + rounds; ++i) {
        its.wait();
        mine.wake();
      }
    });
    Party& other = *made.get_future().get();
    std::vector<double> took(rounds);
    for (std::uint64_t i = 0; i < warm_up + rounds; ++i) {
      if (i == warm_up) {
        clock.start();
      }
      const double begin = now_ns();
      other.wake();
      mine.wait();
      if (i >= warm_up) {
        took[i - warm_up] = now_ns() - begin;
      }
    }
    clock.stop(rounds);
    clock.took(percentile(std::move(took), share));
    thread.join();
  };
}

void hold(harness& run, const std::string& setting, double share, double bound) {
  using annulet::engine_choice;
  constexpr auto level = EPOLL_EVENTS{};
  run.hold({.bench = "wake",
            .setting = setting,
            .operation = "two wakes: there and back",
            .subject = {"annulet", there_and_back<annulet_party<engine_choice::uring>>(share)},
            .baselines = {{"eventfd, epoll edge", there_and_back<epoll_party<EPOLLET>>(share),
                           goal::at_most(bound)},
                          {"eventfd, epoll level", there_and_back<epoll_party<level>>(share),
                           goal::at_most(bound)},
                          {.name = on_epoll_name,
                           .turn = there_and_back<annulet_party<engine_choice::epoll>>(share),
                           .own = rivalry{"eventfd, epoll edge"}},
                          {"mutex and condition", there_and_back<futex_party>(share)}},
            .turn_length = 4,
            .parks_at_least = 0.9});
}

// --- busy: the other thread works on, and looks at what has come after so much work

class busy_hub {
 public:
  busy_hub() : thread_([this] { run(); }), handle_(made_.get_future().get()) {}
  ~busy_hub() {
    handle_.post([this] { over_ = true; });
    thread_.join();
  }
  busy_hub(const busy_hub&) = delete;
  busy_hub& operator=(const busy_hub&) = delete;

  void wake(std::atomic<std::uint64_t>& seen) const {
    handle_.post([&seen] { seen.fetch_add(1, std::memory_order_release); });
  }

 private:
  void run() {
    pin_this_thread(*usable_processors().other);
    annulet::hub hub(on(annulet::engine_choice::uring));
    made_.set_value(hub.handle());
    while (!over_) {
      annulet::this_fiber::yield();
    }
  }

  bool over_ = false;  // of the hub's thread
  std::promise<annulet::hub_handle> made_;
  std::thread thread_;
  annulet::hub_handle handle_;
};

class busy_loop {
 public:
  void wake(std::atomic<std::uint64_t>& seen) {
    seen_.store(&seen, std::memory_order_relaxed);
    party_.wake();
  }
  ~busy_loop() { over_ = true; }

 private:
  void run() {
    pin_this_thread(*usable_processors().other);
    while (!over_) {
      for (int work = 0; work < 64; ++work) {
        __builtin_ia32_pause();
      }
      if (party_.look(0)) {
        seen_.load(std::memory_order_relaxed)->fetch_add(1, std::memory_order_release);
      }
    }
  }

  epoll_party<EPOLLET> party_;
  std::atomic<bool> over_ = false;
  std::atomic<std::atomic<std::uint64_t>*> seen_ = nullptr;
  std::jthread thread_{[this] { run(); }};  // the first to go
};

template <class Busy>
void busy_turn(meter& clock, std::uint64_t operations) {
  std::atomic<std::uint64_t> seen = 0;
  Busy other;
  const auto run = [&](std::uint64_t times) {
    for (std::uint64_t i = 0; i < times; ++i) {
      const std::uint64_t before = seen.load(std::memory_order_relaxed);
      other.wake(seen);
      while (seen.load(std::memory_order_acquire) == before) {
        __builtin_ia32_pause();
      }
    }
  };
  run(operations / 8 + 1);
  clock.start();
  run(operations);
  clock.stop(operations);
}

}  // namespace

void bench_wake(harness& run) {
  if (!usable_processors().other) {
    run.skip("wake", "there and back", "needs a second processor");
    return;
  }
  hold(run, "there and back, median", 0.5, 1.0);
  hold(run, "there and back, 99th percentile", 0.99, 1.1);
  run.hold({.bench = "wake",
            .setting = "busy",
            .operation = "a wake, until it was seen",
            .subject = {"annulet", busy_turn<busy_hub>},
            .baselines = {{"eventfd, epoll edge", busy_turn<busy_loop>}},
            .syscalls_at_most = 0.01});
}

}  // namespace bench
