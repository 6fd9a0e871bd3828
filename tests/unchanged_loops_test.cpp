// Fifty event loops, of libevent and of libuv, in fifty fibers of one thread.

#include "support/files.hpp"
#include "unchanged/event_loop.hpp"

#include <annulet/hub/hub.hpp>
#include <annulet/runtime/fiber.hpp>

#include <doctest/doctest.h>
#include <uv.h>

#include <algorithm>
#include <atomic>
#include <csignal>
#include <cstdio>
#include <thread>

#include <pthread.h>

namespace {

using namespace annulet::test;
using namespace std::chrono_literals;
using steady = std::chrono::steady_clock;

constexpr int loops = 50;
constexpr int rounds = 20;
constexpr auto pause = 10ms;

// Each round: a pause, a byte to itself, and what that brings. How many were right.
int rounds_of_libevent(const std::string& back_end) {
  event_loop loop(back_end);
  auto [from, to] = make_socket_pair();
  int right = 0;
  event* reading = nullptr;
  event* timer = loop.every(pause, [&from = from](short) { send_byte(from.get()); });
  reading = loop.on(to.get(), EV_READ | EV_PERSIST, [&, &to = to](short what) {
    right += what == EV_READ && try_read(to.get()) == 1;
    if (right == rounds) {
      event_del(timer);
      event_del(reading);
    }
  });
  CHECK(loop.run() == 1);
  return right;
}

struct uv_rounds {
  uv_loop_t loop;
  uv_timer_t timer;
  uv_poll_t reading;
  socket_pair ends = make_socket_pair();
  int right = 0;

  void stop() {
    uv_close(reinterpret_cast<uv_handle_t*>(&timer), nullptr);
    uv_close(reinterpret_cast<uv_handle_t*>(&reading), nullptr);
  }
};

int rounds_of_libuv() {
  uv_rounds all;
  REQUIRE(uv_loop_init(&all.loop) == 0);
  uv_timer_init(&all.loop, &all.timer);
  uv_poll_init(&all.loop, &all.reading, all.ends.second.get());
  all.timer.data = all.reading.data = &all;
  const auto send = [](uv_timer_t* its) { send_byte(static_cast<uv_rounds*>(its->data)->ends.first.get()); };
  const auto take = [](uv_poll_t* its, int status, int) {
    auto* const mine = static_cast<uv_rounds*>(its->data);
    mine->right += status == 0 && try_read(mine->ends.second.get()) == 1;
    if (mine->right == rounds) {
      mine->stop();
    }
  };
  uv_timer_start(&all.timer, send, pause.count(), pause.count());
  uv_poll_start(&all.reading, UV_READABLE, take);
  CHECK(uv_run(&all.loop, UV_RUN_DEFAULT) == 0);
  CHECK(uv_loop_close(&all.loop) == 0);
  return all.right;
}

// The number chooses among libevent's back ends and libuv.
int rounds_of(std::size_t number) {
  const std::size_t kind = number % (back_ends().size() + 1);
  return kind == back_ends().size() ? rounds_of_libuv() : rounds_of_libevent(back_ends()[kind]);
}

// So many at once, of all kinds in turn from the first: seconds.
double time_of(std::size_t first, std::size_t count) {
  const annulet::hub home;
  std::vector<annulet::fiber<int>> all;
  const auto start = steady::now();
  for (std::size_t i = 0; i < count; ++i) {
    all.push_back(annulet::spawn([number = first + i] { return rounds_of(number); }));
  }
  for (auto& one : all) {
    CHECK(one.get() == rounds);
  }
  return std::chrono::duration<double>(steady::now() - start).count();
}

// A loop that hears of SIGUSR1, and counts.
struct listening_loop {
  listening_loop() {
    REQUIRE(uv_loop_init(&loop) == 0);
    uv_timer_init(&loop, &timer);
  }
  void begin() {
    uv_signal_init(&loop, &signals);
    signals.data = &heard;
    const auto count = [](uv_signal_t* its, int) { ++*static_cast<int*>(its->data); };
    REQUIRE(uv_signal_start(&signals, count, SIGUSR1) == 0);
  }
  void wait_for_a_while() {
    uv_timer_start(
        &timer, [](uv_timer_t*) {}, 1, 0);
    uv_run(&loop, UV_RUN_ONCE);
  }
  void end() {
    uv_close(reinterpret_cast<uv_handle_t*>(&signals), nullptr);
    uv_timer_stop(&timer);
    uv_run(&loop, UV_RUN_DEFAULT);
  }
  void close() {
    uv_close(reinterpret_cast<uv_handle_t*>(&timer), nullptr);
    uv_run(&loop, UV_RUN_DEFAULT);
    CHECK(uv_loop_close(&loop) == 0);
  }

  uv_loop_t loop;
  uv_signal_t signals;
  uv_timer_t timer;
  int heard = 0;
};

int rounds_of_signals() {
  listening_loop one;
  for (int round = 0; round < rounds; ++round) {
    one.begin();
    one.wait_for_a_while();
    one.end();
  }
  one.close();
  return one.heard;
}

}  // namespace

TEST_CASE("fifty loops take about as long as the slowest of their kinds alone") {
  double alone = 0;
  double together = 0;
  // What the machine does beside it only adds, so one of a few attempts has to do.
  for (int attempt = 0; attempt < 5; ++attempt) {
    for (std::size_t kind = 0; kind <= back_ends().size(); ++kind) {
      alone = std::max(alone, time_of(kind, 1));
    }
    const std::size_t before = open_descriptors();  // with what libuv has for its process, and for good
    together = time_of(0, loops);
    std::printf("note: one loop %.2f s, %d together %.2f s\n", alone, loops, together);
    CHECK(open_descriptors() == before);
    if (together < 1.5 * alone) {
      break;
    }
  }
  CHECK(together < 1.5 * alone);
}

// libuv blocks all signals around a lock of its process's, which its handlers take, too.
TEST_CASE("fifty loops begin and end to hear of signals, again and again, while those come") {
  const annulet::hub home;
  listening_loop first;  // so that there always is one: without, a signal ends the process
  first.begin();
  std::atomic<bool> over{false};
  std::thread sender([&over, thread = ::pthread_self()] {
    while (!over) {
      ::pthread_kill(thread, SIGUSR1);
      std::this_thread::sleep_for(200us);
    }
  });
  int heard = 0;
  std::vector<annulet::fiber<int>> all;
  for (int i = 0; i < loops; ++i) {
    all.push_back(annulet::spawn(rounds_of_signals));
  }
  for (auto& one : all) {
    heard += one.get();
  }
  over = true;
  sender.join();
  first.end();
  first.close();
  CHECK(heard > 0);
  sigset_t blocked;
  REQUIRE(::pthread_sigmask(SIG_SETMASK, nullptr, &blocked) == 0);
  CHECK(sigismember(&blocked, SIGUSR1) == 0);
}
