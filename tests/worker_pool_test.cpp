#include <annulet/hub/worker_pool.hpp>

#include "support/apart.hpp"
#include "support/pool_jobs.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstdint>
#include <ctime>
#include <filesystem>
#include <thread>
#include <vector>

#include <poll.h>

using namespace annulet::test;

namespace {

// As often as it can.
const worker_pool::job* interrupt_until_one_ends(worker_pool& pool, job& j) {
  const worker_pool::job* ended = nullptr;
  wait_until([&] {
    pool.interrupt(j);
    ended = pool.take_ended();
    return ended != nullptr;
  });
  return ended;
}

constexpr std::size_t bound = 4;

}  // namespace

namespace {

// As some programs have: each thread's come out of its stack.
constexpr std::size_t large = 512 * 1024;
thread_local std::array<char, large> large_variable{};

}  // namespace

TEST_CASE("threads are to be had however large the thread-local variables of the program are") {
  pool_and_bell here;
  large_variable.back() = 1;
  job j([] {
    large_variable.front() = 2;
    return large_variable.back() == 0 ? 1 : 0;
  });
  REQUIRE(here.pool.submit(j, urgency::bounded));
  CHECK(here.next_ended() == &j);
  CHECK(j.result == 1);
}

TEST_CASE("four bounded jobs run at a time, the others in their order as these end") {
  pool_and_bell here;
  crowd all(here.pool, 10, urgency::bounded);
  for (std::size_t ended = 0; ended < all.jobs.size(); ++ended) {
    wait_until([&] { return all.begun() == std::min(ended + bound, all.jobs.size()); });
    for (std::size_t i = 0; i < all.jobs.size(); ++i) {
      CHECK(all.jobs[i]->begun == (i < ended + bound));
    }
    all.let_go(1);
    job* const one = here.next_ended();
    REQUIRE(one != nullptr);
    CHECK(one->result == 1);
  }
  CHECK(here.pool.take_ended() == nullptr);
}

TEST_CASE("bounded jobs that run for long hold up no others, though nothing happens meanwhile") {
  pool_and_bell here{std::chrono::milliseconds(20)};
  crowd stuck(here.pool, 3 * bound, urgency::bounded);
  job queued([] { return 7; });
  REQUIRE(here.pool.submit(queued, urgency::bounded));
  CHECK(here.next_ended() == &queued);
  wait_until([&] { return stuck.begun() == 3 * bound; });
  // Those that are there still do not count.
  job next([] { return 8; });
  REQUIRE(here.pool.submit(next, urgency::bounded));
  CHECK(here.next_ended() == &next);
  stuck.let_go(3 * bound);
  for (std::size_t left = 3 * bound; left > 0; --left) {
    REQUIRE(here.next_ended() != nullptr);
  }
}

TEST_CASE("of bounded jobs that do not end so many run and no more, and nobody is busy with the others") {
  constexpr std::size_t most = 64;
  const std::size_t before = threads();
  pool_and_bell here{std::chrono::milliseconds(1)};
  crowd stuck(here.pool, most + 10, urgency::bounded);
  wait_until([&] { return stuck.begun() == most; });
  const std::clock_t begin = std::clock();
  std::this_thread::sleep_for(std::chrono::milliseconds(200));
  CHECK(std::clock() - begin < CLOCKS_PER_SEC / 20);
  CHECK(stuck.begun() == most);
  CHECK(threads() <= before + most + bound);
  stuck.let_go(1);
  wait_until([&] { return stuck.begun() == most + 1; });
  stuck.let_go(stuck.jobs.size() - 1);
  for (std::size_t left = stuck.jobs.size(); left > 0; --left) {
    REQUIRE(here.next_ended() != nullptr);
  }
}

TEST_CASE("who looks after the queued takes an urgent job, and another looks after them") {
  pool_and_bell here{std::chrono::milliseconds(20)};
  crowd stuck(here.pool, bound, urgency::bounded);
  wait_until([&] { return stuck.begun() == bound; });
  job queued([] { return 7; });
  REQUIRE(here.pool.submit(queued, urgency::bounded));
  crowd silent(here.pool, 2, urgency::urgent);
  CHECK(here.next_ended() == &queued);
  stuck.let_go(bound);
  silent.let_go(2);
  for (std::size_t left = bound + 2; left > 0; --left) {
    REQUIRE(here.next_ended() != nullptr);
  }
}

TEST_CASE("urgent jobs run all at once, beyond the bound, and hold up no bounded one") {
  const std::size_t before = threads();
  pool_and_bell here;
  {
    crowd disks(here.pool, bound, urgency::bounded);
    crowd silent(here.pool, 50, urgency::urgent);
    wait_until([&] { return disks.begun() == bound && silent.begun() == silent.jobs.size(); });
    job quick([] { return 7; });
    REQUIRE(here.pool.submit(quick, urgency::urgent));
    CHECK(here.next_ended() == &quick);
    disks.let_go(1);
    CHECK(here.next_ended() != nullptr);
    job disk([] { return 8; });
    REQUIRE(here.pool.submit(disk, urgency::bounded));
    CHECK(here.next_ended() == &disk);
    disks.let_go(bound - 1);
    silent.let_go(silent.jobs.size());
    for (std::size_t left = bound - 1 + silent.jobs.size(); left > 0; --left) {
      REQUIRE(here.next_ended() != nullptr);
    }
  }
  // No more are kept than may be of use.
  wait_until([&] {
    (void)here.pool.take_ended();
    return threads() <= before + bound + 1;
  });
}

TEST_CASE("a job that has not begun can be withdrawn, and is not run") {
  pool_and_bell here;
  crowd running(here.pool, bound, urgency::bounded);
  wait_until([&] { return running.begun() == bound; });
  crowd queued(here.pool, 3, urgency::bounded);
  CHECK_FALSE(here.pool.withdraw(*running.jobs[0]));
  CHECK(here.pool.withdraw(*queued.jobs[1]));
  CHECK_FALSE(here.pool.withdraw(*queued.jobs[1]));
  queued.let_go(2);
  running.let_go(bound);
  for (std::size_t left = bound + 2; left > 0; --left) {
    REQUIRE(here.next_ended() != nullptr);
  }
  CHECK(queued.jobs[0]->begun);
  CHECK_FALSE(queued.jobs[1]->begun);
  CHECK(queued.jobs[2]->begun);
}

TEST_CASE("an interruption that is repeated ends any wait, with EINTR") {
  pool_and_bell here;
  for (int round = 0; round < 500; ++round) {
    crowd one(here.pool, 1, urgency::urgent);
    while (round % 2 == 1 && !one.jobs[0]->begun) {
    }
    CHECK(interrupt_until_one_ends(here.pool, *one.jobs[0]) == one.jobs[0].get());
    REQUIRE(one.jobs[0]->result == -EINTR);
  }
}

TEST_CASE("interruptions of what cannot be interrupted do not pile up, and one is there when it can be") {
  pool_and_bell here;
  const auto gate = make_pipe(O_CLOEXEC);
  std::atomic<bool> go{false};
  job deaf([&] {
    sigset_t all;
    sigset_t before;
    sigfillset(&all);
    ::pthread_sigmask(SIG_SETMASK, &all, &before);
    while (!go) {
      std::this_thread::yield();
    }
    ::pthread_sigmask(SIG_SETMASK, &before, nullptr);
    return read_once(gate.reader.get());
  });
  REQUIRE(here.pool.submit(deaf, urgency::urgent));
  wait_until([&] { return deaf.begun.load(); });
  const std::uint64_t before = proc_value("/proc/self/status", "SigQ");
  for (int times = 0; times < 10'000; ++times) {
    here.pool.interrupt(deaf);
  }
  CHECK(proc_value("/proc/self/status", "SigQ") <= before + 100);  // other processes have a part in it
  go = true;
  CHECK(interrupt_until_one_ends(here.pool, deaf) == &deaf);
  CHECK(deaf.result == -EINTR);
}

TEST_CASE("what is done before the interruption comes is delivered") {
  pool_and_bell here;
  std::array<int, 2> ends{};
  for (int round = 0; round < 500; ++round) {
    crowd one(here.pool, 1, urgency::urgent);
    one.let_go(1);
    for (int spin = 0; spin < round * 40; ++spin) {
      [[maybe_unused]] volatile int work = spin;
    }
    here.pool.interrupt(*one.jobs[0]);
    REQUIRE(here.next_ended() == one.jobs[0].get());
    const bool read = one.jobs[0]->result == 1;
    REQUIRE((read || one.jobs[0]->result == -EINTR));
    ++ends.at(read ? 0 : 1);
    CHECK(is_readable(one.gate.reader.get()) != read);  // a byte is neither lost nor read twice
  }
  CHECK(ends[0] > 0);
}

TEST_CASE("an interruption that comes too late for its job strikes no other") {
  pool_and_bell here;
  for (int round = 0; round < 2'000; ++round) {
    job quick([] { return 1; });
    REQUIRE(here.pool.submit(quick, urgency::urgent));
    CHECK(interrupt_until_one_ends(here.pool, quick) == &quick);
    crowd next(here.pool, 1, urgency::urgent);
    here.pool.interrupt(quick);  // it is not running
    while (!next.jobs[0]->begun) {
    }
    next.let_go(1);
    REQUIRE(here.next_ended() == next.jobs[0].get());
    REQUIRE(next.jobs[0]->result == 1);
  }
}

namespace {

// Now and then: real-time signals that come faster than they are handled would keep it for ever.
const worker_pool::job* run_until_interrupted(pool_and_bell& here, job& j) {
  REQUIRE(here.pool.submit(j, urgency::urgent));
  const worker_pool::job* ended = nullptr;
  wait_until([&] {
    here.pool.interrupt(j);
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
    ended = here.pool.take_ended();
    return ended != nullptr;
  });
  return ended;
}

// Whether an interruption ends a wait, in a child that uses its signals in some way.
template <class Prepare>
int interrupted_after(Prepare&& prepare) {
  return run_apart([&] {
    pool_and_bell here;
    const auto gate = make_pipe(O_CLOEXEC);
    for (int round = 0; round < 3; ++round) {
      job j([&] { return read_once(gate.reader.get()); });
      prepare(round);
      if (run_until_interrupted(here, j) != &j || j.result != -EINTR) {
        return 1;
      }
    }
    return 0;
  });
}

void give_all_signals(void (*handler)(int)) {
  for (int signal = 1; signal < NSIG; ++signal) {
    if (signal != SIGALRM && signal != SIGCHLD) {
      ::signal(signal, handler);
    }
  }
}

}  // namespace

TEST_CASE("a program that resets its signals, or ignores them, goes on, and what waits can be interrupted") {
  CHECK(interrupted_after([](int) { give_all_signals(SIG_DFL); }) == 0);
  CHECK(interrupted_after([](int) { give_all_signals(SIG_IGN); }) == 0);
  CHECK(interrupted_after([](int) {
          sigset_t all;
          sigfillset(&all);
          ::sigprocmask(SIG_BLOCK, &all, nullptr);
        }) == 0);
  // While it waits.
  for (auto* const how : {SIG_DFL, SIG_IGN}) {
    CHECK(run_apart([&] {
            pool_and_bell here;
            crowd one(here.pool, 1, urgency::urgent);
            wait_until([&] { return one.begun() == 1; });
            give_all_signals(how);
            return interrupt_until_one_ends(here.pool, *one.jobs[0]) == one.jobs[0].get() ? 0 : 1;
          }) == 0);
  }
}

TEST_CASE("signals that a program handles, or takes from a descriptor, are not used to interrupt") {
  CHECK(interrupted_after([](int round) {
          const std::array<int, 3> ours{SIGURG, SIGSTKFLT, SIGRTMAX};
          ::signal(ours.at(static_cast<std::size_t>(round)), [](int) { ::_exit(3); });
        }) == 0);
  CHECK(run_apart([] {
          sigset_t urgent;
          sigemptyset(&urgent);
          sigaddset(&urgent, SIGURG);
          ::sigprocmask(SIG_BLOCK, &urgent, nullptr);
          pool_and_bell here;
          const auto gate = make_pipe(O_CLOEXEC);
          job j([&] {
            ::kill(::getpid(), SIGURG);
            return read_once(gate.reader.get());
          });
          if (run_until_interrupted(here, j) != &j) {
            return 1;
          }
          const timespec none{};
          return ::sigtimedwait(&urgent, nullptr, &none) == SIGURG ? 0 : 2;
        }) == 0);
}
