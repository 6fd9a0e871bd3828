// timers_1m: what a timer costs among a million.
//
//   annulet_bench timers_1m
//
// The subject is the runtime's timer_queue itself, without fibers; it is held against the timers of libuv and
// of libev. All three are armed for random deadlines, whole milliseconds, by timers that lie side by side in
// memory and have been used before:
// - arm and fire: all are armed, then the loop finds that the time of all has come. Each callback checks that
//   it is in its turn;
// - arm and cancel: all are armed, then cancelled in another random order;
// - arm and cancel one: the others stay armed. Some have fired before, for a heap that nothing has been taken
//   from may still have no shape.
// Nobody waits for deadlines: they lie before the time at which the loop looks, and after the one at which it
// looked before. Our queue is told the time, libev takes a deadline in the past, and libuv's loop is set
// back.
#include <annulet/runtime/timer_queue.hpp>

#include <ev.h>
#include <uv.h>
#include <algorithm>
#include <cstdint>
#include <memory>
#include <numeric>
#include <random>
#include <string>
#include <vector>

#include "benches.hpp"
#include "harness.hpp"

namespace bench {
namespace {

constexpr std::size_t count = 1'000'000;
constexpr std::uint64_t span_ms =
    1 << 16;  // of deadlines; a machine that was just started has been up longer

// What each of the contenders knows of what has fired.
struct firing {
  std::uint64_t fired = 0;
  double latest = 0;

  void note(double when) {
    if (when < latest) {
      fail("timers_1m: a timer fired before an earlier one");
    }
    latest = when;
    ++fired;
  }
};

// --- the contenders: begin(past_ms) says how much of the span will be past when fire() looks

class annulet_timers {
 public:
  annulet_timers() { queue_.make_room(count); }
  void begin(std::uint64_t past_ms) {
    now_ms_ = past_ms;
    seen_ = {};
  }
  void arm(std::size_t i, std::uint64_t when_ms) {
    timer& one = timers_[i];
    one.seen = &seen_;
    one.when = static_cast<std::int64_t>(when_ms * 1'000'000);
    queue_.arm(one, one.when);
  }
  void cancel(std::size_t i) { queue_.disarm(timers_[i]); }
  std::uint64_t fire() {
    queue_.fire_due(static_cast<std::int64_t>(now_ms_ * 1'000'000));
    return seen_.fired;
  }

 private:
  struct timer : annulet::detail::timer_node {
    timer() : timer_node(&fire) {}
    static void fire(timer_node& node) noexcept {
      auto& self = static_cast<timer&>(node);
      self.seen->note(static_cast<double>(self.when));
    }
    firing* seen = nullptr;
    std::int64_t when = 0;
  };

  annulet::detail::timer_queue queue_;
  std::unique_ptr<timer[]> timers_ = std::make_unique<timer[]>(count);
  std::uint64_t now_ms_ = 0;
  firing seen_;
};

class libuv_timers {
 public:
  libuv_timers() {
    uv_loop_init(&loop_);
    for (std::size_t i = 0; i < count; ++i) {
      uv_timer_init(&loop_, &timers_[i]);
      timers_[i].data = &seen_;
    }
  }
  ~libuv_timers() {
    for (std::size_t i = 0; i < count; ++i) {
      uv_close(reinterpret_cast<uv_handle_t*>(&timers_[i]), nullptr);
    }
    uv_run(&loop_, UV_RUN_DEFAULT);
    uv_loop_close(&loop_);
  }
  libuv_timers(const libuv_timers&) = delete;
  libuv_timers& operator=(const libuv_timers&) = delete;

  void begin(std::uint64_t past_ms) {
    uv_update_time(&loop_);
    loop_.time -= past_ms;
    seen_ = {};
  }
  void arm(std::size_t i, std::uint64_t when_ms) {
    const auto fired = [](uv_timer_t* timer) {
      static_cast<firing*>(timer->data)->note(static_cast<double>(timer->timeout));
    };
    uv_timer_start(&timers_[i], fired, when_ms, 0);
  }
  void cancel(std::size_t i) { uv_timer_stop(&timers_[i]); }
  std::uint64_t fire() {
    uv_run(&loop_, UV_RUN_NOWAIT);
    return seen_.fired;
  }

 private:
  uv_loop_t loop_{};
  std::unique_ptr<uv_timer_t[]> timers_ = std::make_unique<uv_timer_t[]>(count);
  firing seen_;
};

class libev_timers {
 public:
  libev_timers() : loop_(ev_loop_new(EVFLAG_AUTO)) {
    const auto fired = [](struct ev_loop*, ev_timer* timer, int) {
      static_cast<firing*>(timer->data)->note(timer->at);
    };
    for (std::size_t i = 0; i < count; ++i) {
      ev_init(&timers_[i], fired);
      timers_[i].data = &seen_;
    }
  }
  ~libev_timers() { ev_loop_destroy(loop_); }
  libev_timers(const libev_timers&) = delete;
  libev_timers& operator=(const libev_timers&) = delete;

  void begin(std::uint64_t past_ms) {
    ev_now_update(loop_);
    past_ms_ = past_ms;
    seen_ = {.latest = -1e9};  // its clock may have begun later than that
  }
  void arm(std::size_t i, std::uint64_t when_ms) {
    const double after = (static_cast<double>(when_ms) - static_cast<double>(past_ms_)) * 1e-3;
    ev_timer_set(&timers_[i], after, 0.0);
    ev_timer_start(loop_, &timers_[i]);
  }
  void cancel(std::size_t i) { ev_timer_stop(loop_, &timers_[i]); }
  std::uint64_t fire() {
    ev_run(loop_, EVRUN_NOWAIT);
    return seen_.fired;
  }

 private:
  struct ev_loop* loop_;
  std::unique_ptr<ev_timer[]> timers_ = std::make_unique<ev_timer[]>(count);
  std::uint64_t past_ms_ = 0;
  firing seen_;
};

// --- the turns

struct plan {
  std::vector<std::uint64_t> when_ms = std::vector<std::uint64_t>(count);
  std::vector<std::uint32_t> cancelled = std::vector<std::uint32_t>(count);

  plan() {
    std::mt19937_64 random(11);
    for (auto& one : when_ms) {
      one = random() % span_ms;
    }
    std::iota(cancelled.begin(), cancelled.end(), 0U);
    std::shuffle(cancelled.begin(), cancelled.end(), random);
  }
};

template <class Timers>
void fire_turn(meter& clock, Timers& timers, const plan& by) {
  timers.begin(span_ms);
  clock.start();
  for (std::size_t i = 0; i < count; ++i) {
    timers.arm(i, by.when_ms[i]);
  }
  const std::uint64_t fired = timers.fire();
  clock.stop(count);
  if (fired != count) {
    fail("timers_1m: not all timers have fired");
  }
}

template <class Timers>
void cancel_turn(meter& clock, Timers& timers, const plan& by) {
  timers.begin(span_ms);
  clock.start();
  for (std::size_t i = 0; i < count; ++i) {
    timers.arm(i, by.when_ms[i]);
  }
  for (const std::uint32_t i : by.cancelled) {
    timers.cancel(i);
  }
  clock.stop(count);
  if (timers.fire() != 0) {
    fail("timers_1m: a timer fired that was cancelled");
  }
}

// The first of the timers comes and goes, all others stand from the second turn on.
template <class Timers>
turn_function one_turn(Timers& timers, const plan& by) {
  return [&timers, &by, standing = false](meter& clock, std::uint64_t operations) mutable {
    if (!standing) {
      timers.begin(span_ms / 100);
      for (std::size_t i = 1; i < count; ++i) {
        timers.arm(i, by.when_ms[i]);
      }
      if (const std::uint64_t fired = timers.fire(); fired < count / 200 || fired > count / 50) {
        fail("timers_1m: %llu timers have fired", static_cast<unsigned long long>(fired));
      }
      standing = true;
    }
    const auto run = [&](std::uint64_t times) {
      for (std::uint64_t i = 0, next = 0; i < times; ++i) {
        timers.arm(0, span_ms / 100 + by.when_ms[next]);
        timers.cancel(0);
        next = next + 1 == count ? 0 : next + 1;
      }
    };
    run(operations / 8 + 1);
    clock.start();
    run(operations);
    clock.stop(operations);
  };
}

struct contenders {
  plan by;
  annulet_timers annulet;
  libuv_timers libuv;
  libev_timers libev;
};

template <class TurnOf>
void hold(harness& run, const std::string& setting, std::optional<goal> bound, TurnOf turn_of,
          contenders& all, std::optional<int> pairs_at_most = {}) {
  run.hold({.bench = "timers_1m",
            .setting = setting,
            .operation = "a timer",
            .subject = {"annulet's timer_queue", turn_of(all.annulet)},
            .baselines = {{"libuv", turn_of(all.libuv), bound}, {"libev", turn_of(all.libev)}},
            .pairs_at_most = pairs_at_most});
}

}  // namespace

void bench_timers_1m(harness& run) {
  const auto all = std::make_unique<contenders>();
  constexpr int pairs = 9;
  hold(
      run, "arm and fire", goal::at_least(2.0),
      [&](auto& timers) -> turn_function {
        return [&](meter& clock, std::uint64_t) { fire_turn(clock, timers, all->by); };
      },
      *all, pairs);
  hold(
      run, "arm and cancel", goal::at_least(4.0),
      [&](auto& timers) -> turn_function {
        return [&](meter& clock, std::uint64_t) { cancel_turn(clock, timers, all->by); };
      },
      *all, pairs);
  hold(
      run, "arm and cancel one", goal::at_least(4.0), [&](auto& timers) { return one_turn(timers, all->by); },
      *all);
}

}  // namespace bench
