#include "support/child.hpp"
#include "support/files.hpp"
#include "support/probe_watch.hpp"
#include "support/signals.hpp"

#include <annulet/hub/hub.hpp>
#include <annulet/hub/signal_set.hpp>
#include <annulet/runtime/cancellation.hpp>
#include <annulet/runtime/fiber.hpp>

#include <doctest/doctest.h>

#include <algorithm>
#include <csignal>
#include <optional>
#include <set>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include <sys/resource.h>

using namespace annulet;
using namespace annulet::test;
using annulet_test::in_child;
using namespace std::chrono_literals;

namespace {

template <class Body>
void in_each_mode(Body&& body) {
  for (const ring_mode mode : all_modes) {
    CAPTURE(static_cast<int>(mode));
    hub hub(options_for(mode));
    body();
  }
}

std::set<int> blocked() {
  sigset_t mask;
  ::pthread_sigmask(SIG_BLOCK, nullptr, &mask);
  std::set<int> numbers;
  for (int number = 1; number < NSIG; ++number) {
    if (sigismember(&mask, number) == 1) {
      numbers.insert(number);
    }
  }
  return numbers;
}

volatile std::sig_atomic_t handled = 0;
void count_signal(int) { handled = handled + 1; }

}  // namespace

TEST_CASE("a fiber waits for a signal while others run, and learns who sent it") {
  in_each_mode([] {
    signal_set signals{SIGUSR1, SIGUSR2};
    auto waiting = spawn([&] { return signals.wait(); });
    for (int i = 0; i < 10; ++i) {
      this_fiber::sleep_for(100us);
    }
    REQUIRE_FALSE(waiting.done());
    ::kill(::getpid(), SIGUSR2);
    const auto got = waiting.get(patience);
    REQUIRE(got.has_value());
    CHECK(got->number == SIGUSR2);
    CHECK(got->code == SI_USER);
    CHECK(got->pid == ::getpid());
    CHECK(got->uid == ::getuid());
  });
}

TEST_CASE("a signal that comes while the hub sleeps wakes it, each time") {
  in_each_mode([] {
    signal_set signals{SIGUSR1};
    const pid_t self = ::getpid();
    std::thread sender([&] {
      for (int i = 0; i < 200; ++i) {
        ::kill(self, SIGUSR1);
        std::this_thread::sleep_for(100us);
      }
    });
    const auto first = signals.wait(patience);
    CHECK(first.has_value());
    sender.join();
    while (signals.wait(0ms)) {
    }
    for (int i = 0; i < 100; ++i) {
      auto raiser = spawn([&] { ::kill(self, SIGUSR1); });
      REQUIRE(signals.wait(patience).has_value());
      raiser.join();
      REQUIRE_FALSE(signals.wait(0ms).has_value());
    }
  });
}

TEST_CASE("a signal that is pending before the wait ends it at once") {
  in_each_mode([] {
    signal_set signals{SIGUSR1};
    ::raise(SIGUSR1);
    const auto got = signals.wait(0ms);
    REQUIRE(got.has_value());
    CHECK(got->number == SIGUSR1);
    CHECK_FALSE(signals.wait(0ms).has_value());
  });
}

TEST_CASE("a wait without a signal ends at its deadline, and not before") {
  in_each_mode([] {
    signal_set signals{SIGUSR1};
    const auto begin = std::chrono::steady_clock::now();
    CHECK_FALSE(signals.wait(20ms).has_value());
    CHECK(std::chrono::steady_clock::now() - begin >= 20ms);
    ::raise(SIGUSR1);
    CHECK(signals.wait(20ms).has_value());
  });
}

TEST_CASE("of several fibers that wait each signal is told to one") {
  in_each_mode([] {
    signal_set signals{SIGUSR1, SIGUSR2, SIGRTMIN};
    constexpr int each = 5;
    std::vector<fiber<std::optional<received_signal>>> waiting;
    for (int i = 0; i < each + 2; ++i) {
      waiting.push_back(spawn([&] { return signals.wait(patience); }));
    }
    this_fiber::sleep_for(1ms);
    for (int i = 0; i < each; ++i) {
      ::raise(SIGRTMIN);  // queued, each of them
    }
    ::raise(SIGUSR1);
    ::raise(SIGUSR2);
    std::vector<int> numbers;
    for (auto& w : waiting) {
      const auto got = w.get();
      numbers.push_back(got ? got->number : 0);
    }
    CHECK(std::ranges::count(numbers, SIGRTMIN) == each);
    CHECK(std::ranges::count(numbers, SIGUSR1) == 1);
    CHECK(std::ranges::count(numbers, SIGUSR2) == 1);
    CHECK_FALSE(signals.wait(0ms).has_value());
  });
}

TEST_CASE("several sets with different signals each get their own") {
  in_each_mode([] {
    signal_set one{SIGUSR1};
    signal_set other{SIGUSR2};
    auto first = spawn([&] { return one.wait(patience)->number; });
    auto second = spawn([&] { return other.wait(patience)->number; });
    this_fiber::sleep_for(1ms);
    ::raise(SIGUSR2);
    ::raise(SIGUSR1);
    CHECK(first.get() == SIGUSR1);
    CHECK(second.get() == SIGUSR2);
  });
}

TEST_CASE("the mask is as before when the set is gone, also for what was blocked before") {
  hub hub;
  sigset_t hup;
  sigemptyset(&hup);
  sigaddset(&hup, SIGHUP);
  ::pthread_sigmask(SIG_BLOCK, &hup, nullptr);
  const auto before = blocked();
  {
    signal_set signals{SIGUSR1, SIGHUP};
    auto during = before;
    during.insert(SIGUSR1);
    CHECK(blocked() == during);
  }
  CHECK(blocked() == before);
  CHECK(before.contains(SIGHUP));
  ::pthread_sigmask(SIG_UNBLOCK, &hup, nullptr);
}

TEST_CASE("a signal that nobody waited for is delivered as usual when the set is gone") {
  hub hub;
  const handler_scope handler(SIGUSR1, count_signal);
  handled = 0;
  {
    signal_set signals{SIGUSR1};
    ::raise(SIGUSR1);
    this_fiber::sleep_for(1ms);
    CHECK(handled == 0);
  }
  CHECK(handled == 1);
  ::raise(SIGUSR1);
  CHECK(handled == 2);
}

TEST_CASE("a set of none, of unknown and of unstoppable signals is refused, and the mask stays") {
  hub hub;
  const auto before = blocked();
  const std::size_t descriptors = open_descriptors();
  CHECK_THROWS_AS(signal_set({}), std::invalid_argument);
  for (const int number : {SIGKILL, SIGSTOP, 0, -1, 65, 1'000'000}) {
    CAPTURE(number);
    CHECK_THROWS_AS(signal_set({SIGUSR1, number}), std::invalid_argument);
    CHECK_THROWS_WITH(signal_set({SIGUSR1, number}),
                      doctest::Contains(("signal " + std::to_string(number)).c_str()));
  }
  CHECK(blocked() == before);
  CHECK(open_descriptors() == descriptors);
}

TEST_CASE("a set needs a hub, and says so") {
  const auto before = blocked();
  CHECK_THROWS_AS(signal_set({SIGUSR1}), no_hub);
  CHECK_THROWS_WITH(signal_set({SIGUSR1}), doctest::Contains("signal_set"));
  CHECK(blocked() == before);
}

TEST_CASE("a set that finds no descriptor says so, and the mask stays") {
  const auto end = in_child([] {
    hub hub;
    const auto before = blocked();
    rlimit limit{};
    ::getrlimit(RLIMIT_NOFILE, &limit);
    limit.rlim_cur = 0;
    ::setrlimit(RLIMIT_NOFILE, &limit);
    try {
      signal_set signals{SIGUSR1};
    } catch (const std::system_error& e) {
      return e.code() == std::errc::too_many_files_open && blocked() == before;
    }
    return false;
  });
  CAPTURE(end.said);
  CHECK(end.exit == 0);
}

TEST_CASE("a wait on another thread is refused") {
  hub mine;
  signal_set signals{SIGUSR1};
  std::thread([&] {
    CHECK_THROWS_AS((void)signals.wait(0ms), wrong_thread);
    hub own;
    CHECK_THROWS_AS((void)signals.wait(0ms), wrong_thread);
  }).join();
}

TEST_CASE("a fiber that waits can be killed and timed out, and loses no signal by it") {
  in_each_mode([] {
    signal_set signals{SIGUSR1};
    bool killed = false;
    auto victim = spawn([&] {
      try {
        signals.wait();
      } catch (const fiber_killed&) {
        killed = true;
        throw;
      }
    });
    this_fiber::sleep_for(1ms);
    victim.kill();
    ::raise(SIGUSR1);
    victim.join();
    CHECK(killed);
    CHECK(signals.wait(patience).has_value());
    timeout guard(1ms);
    CHECK_THROWS_AS(signals.wait(), timeout_expired);
    ::raise(SIGUSR1);
    CHECK(signals.wait(patience).has_value());
  });
}

TEST_CASE("a signal that comes together with a kill is told to the fiber that was woken for it, or kept") {
  in_each_mode([] {
    for (int round = 0; round < 200; ++round) {
      signal_set signals{SIGUSR1};
      std::optional<received_signal> got;
      auto victim = spawn([&] { got = signals.wait(); });
      this_fiber::yield();
      take_in();
      ::raise(SIGUSR1);
      if (round % 2 == 0) {
        take_in();  // woken for the signal, and killed before it runs
      }
      victim.kill();
      victim.join();
      REQUIRE((got.has_value() || signals.wait(0ms).has_value()));
    }
  });
}

TEST_CASE("the hub's end ends a wait, and a set destroyed under a wait says so") {
  for (const ring_mode mode : all_modes) {
    bool unwound = false;
    const auto before = blocked();
    {
      hub hub(options_for(mode));
      spawn([&] {
        signal_set signals{SIGUSR1};
        try {
          signals.wait();
        } catch (const fiber_killed&) {
          unwound = true;
          throw;
        }
      });
      std::optional<signal_set> gone(std::initializer_list<int>{SIGUSR2});
      auto waiting = spawn([&] { gone->wait(); });
      this_fiber::sleep_for(1ms);
      gone.reset();
      CHECK_THROWS_AS(waiting.get(), std::logic_error);
    }
    CHECK(unwound);
    CHECK(blocked() == before);
  }
}

TEST_CASE("a set destroyed while a fiber waits is that fiber's std::logic_error") {
  annulet::hub home;
  auto set = std::make_unique<annulet::signal_set>(std::initializer_list<int>{SIGUSR1});
  bool told = false;
  auto waiting = annulet::spawn([&] {
    try {
      (void)set->wait();
    } catch (const std::logic_error&) {
      told = true;
    }
  });
  annulet::this_fiber::yield();  // it waits
  set.reset();
  waiting.join();
  CHECK(told);
}

TEST_CASE("of two sets with the same signal the last one lets it in again") {
  annulet::hub home;
  auto first = std::make_unique<annulet::signal_set>(std::initializer_list<int>{SIGUSR2});
  annulet::signal_set second{SIGUSR2};
  first.reset();
  sigset_t blocked;
  ::pthread_sigmask(SIG_BLOCK, nullptr, &blocked);
  CHECK(sigismember(&blocked, SIGUSR2) == 1);
}
