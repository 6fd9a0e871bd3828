// sel_park: what a wait costs in processor time when there is nothing yet, and the thread has to sleep.
//
//   annulet_bench sel_park
//
// Of 1,000 registered sockets another process, on the other processor, makes 1 or 32 readable in each round,
// at a random time after the waiting thread has asked for them, so that every round parks. The asking goes
// through shared memory, on which the other process spins: it costs the waiting thread no system call. What
// counts is the processor time that the waiting thread uses for a round, with its reads, by its own clock
// (the JSON has getrusage's figure as well). The subject is annulet's selector, held against level-triggered
// epoll, and so is annulet on its other engine. With 32 the first byte wakes the thread, and the others come
// while it wakes up, reads and asks again.
#include <sys/mman.h>
#include <time.h>
#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstring>
#include <memory>
#include <new>
#include <random>

#include "benches.hpp"
#include "child_process.hpp"
#include "engines.hpp"
#include "harness.hpp"
#include "pollers.hpp"

namespace bench {
namespace {

constexpr std::size_t registered = 1000;

void spin_for(std::uint64_t ns) {
  const auto now = [] {
    timespec time{};
    clock_gettime(CLOCK_MONOTONIC, &time);
    return static_cast<std::uint64_t>(time.tv_sec) * 1'000'000'000 + static_cast<std::uint64_t>(time.tv_nsec);
  };
  const std::uint64_t until = now() + ns;
  while (now() < until) {
    __builtin_ia32_pause();
  }
}

// The process that makes the events. It is forked before there is a hub, and ends with this one.
class sender {
 public:
  sender(const socket_pairs& sockets, std::size_t active, int processor)
      : asked_(make_shared()), child_(processor, [&] { serve(sockets, active); }) {}
  ~sender() {
    child_.expect_end();
    asked_->store(over, std::memory_order_release);
  }
  sender(const sender&) = delete;
  sender& operator=(const sender&) = delete;

  void ask_for(std::uint64_t round) { asked_->store(round, std::memory_order_release); }

 private:
  using shared_round = std::atomic<std::uint64_t>;
  struct unmap {
    void operator()(shared_round* round) const { munmap(round, sizeof *round); }
  };
  static constexpr std::uint64_t over = ~std::uint64_t{0};

  static shared_round* make_shared() {
    void* page =
        mmap(nullptr, sizeof(shared_round), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (page == MAP_FAILED) {
      fail("mmap: %s", std::strerror(errno));
    }
    return new (page) shared_round(0);
  }

  void serve(const socket_pairs& sockets, std::size_t active) {
    traffic load(sockets, active);
    std::minstd_rand random(7);
    // Long enough that the other thread sleeps by then: its way into the wait takes a few microseconds.
    std::uniform_int_distribution<std::uint64_t> pause_ns(30'000, 60'000);
    for (std::uint64_t done = 0;;) {
      const std::uint64_t round = asked_->load(std::memory_order_acquire);
      if (round == over) {
        return;
      }
      if (round == done) {
        __builtin_ia32_pause();
        continue;
      }
      spin_for(pause_ns(random));
      load.set_round(round);
      load.send_round();
      done = round;
    }
  }

  std::unique_ptr<shared_round, unmap> asked_;
  child_process child_;  // the first to go
};

void park_turn(meter& clock, poller& by, traffic& load, sender& other, std::uint64_t rounds) {
  const auto run = [&](std::uint64_t count) {
    for (std::uint64_t i = 0; i < count; ++i) {
      load.begin_round();
      other.ask_for(load.round());
      while (!load.complete()) {
        by.wait(load);
      }
    }
  };
  run(rounds / 8 + 3);
  clock.start();
  run(rounds);
  clock.stop(rounds);
}

void hold_with(harness& run, const socket_pairs& sockets, std::size_t active, int other_processor) {
  sender other(sockets, active, other_processor);
  annulet::hub hub(on(annulet::engine_choice::uring));
  traffic load(sockets, active);
  const auto turn_of = [&](poller_factory make) -> turn_function {
    return [&, make](meter& clock, std::uint64_t rounds) {
      const auto by = make(sockets.readers());
      park_turn(clock, *by, load, other, rounds);
    };
  };
  run.hold(
      {.bench = "sel_park",
       .setting = "N=" + std::to_string(registered) + " A=" + std::to_string(active),
       .operation = active == 1 ? "a round: one event from elsewhere" : "a round: 32 events from elsewhere",
       .subject = {"annulet selector", turn_of(make_annulet_poller)},
       .baselines = {{"epoll, level-triggered", turn_of(make_epoll_level_poller),
                      goal::at_most(active == 1 ? 1.15 : 1.1)},
                     annulet_on_epoll(turn_of(make_annulet_poller), "epoll, level-triggered")},
       .judged_by = metric::cpu,
       .parks_at_least = 0.9});
}

}  // namespace

void bench_sel_park(harness& run) {
  const auto other_processor = usable_processors().other;
  if (!other_processor) {
    run.skip("sel_park", "N=1000", "needs a second processor");
    return;
  }
  if (!socket_pairs::possible(registered)) {
    run.skip("sel_park", "N=1000", "too few open files allowed (ulimit -n)");
    return;
  }
  const socket_pairs sockets(registered);
  for (const std::size_t active : {1, 32}) {
    hold_with(run, sockets, active, *other_processor);
  }
}

}  // namespace bench
