// What a hub tells of its fibers by itself: on a signal, of slow slices, in its counts.

#include <annulet/selector/posix.h>
#include <annulet/hub/descriptor.hpp>
#include <annulet/hub/hub.hpp>
#include <annulet/hub/io.hpp>
#include <annulet/runtime/dump_fibers.hpp>
#include <annulet/runtime/fiber.hpp>
#include <annulet/runtime/this_fiber.hpp>

#include "support/apart.hpp"
#include "support/child.hpp"
#include "support/files.hpp"
#include "support/overflowing.hpp"
#include "support/signals.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <csignal>
#include <future>
#include <string>
#include <string_view>
#include <thread>
#include <utility>

using annulet::spawn;
using annulet::test::handler_scope;
using annulet_test::stderr_capture;
namespace this_fiber = annulet::this_fiber;
using namespace std::chrono_literals;

namespace {

bool has(const std::string& text, const std::string& words) { return text.find(words) != std::string::npos; }

std::size_t times(const std::string& text, const std::string& words) {
  std::size_t count = 0;
  for (std::size_t at = text.find(words); at != std::string::npos; at = text.find(words, at + 1)) {
    ++count;
  }
  return count;
}

// Parks until stderr says it so many times.
void await_words(const stderr_capture& capture, const std::string& words, std::size_t count) {
  for (int i = 0; i < 5000 && times(capture.text(), words) < count; ++i) {
    this_fiber::sleep_for(1ms);
  }
  CHECK(times(capture.text(), words) == count);
}

volatile std::sig_atomic_t handled = 0;

// In a report of a slice that was too long, before how long it was.
constexpr std::string_view kept = " kept its thread for ";

}  // namespace

TEST_CASE("a dump names the descriptor that a fiber waits for") {
  annulet::hub hub;
  auto [mine, its] = annulet::test::make_pipe();
  const int fd = mine.get();
  auto reader = spawn({.name = "reader"}, [fd] {
    std::array<std::byte, 8> bytes{};
    (void)annulet::read(fd, bytes);
  });
  this_fiber::yield();
  CHECK(has(annulet::dump_fibers(), "parked in read, descriptor " + std::to_string(fd) + ", for "));
  CHECK(has(annulet::dump_fibers(annulet::dump_format::json),
            "\"waits_in\": \"read\", \"descriptor\": " + std::to_string(fd)));
}

TEST_CASE("the signal that was asked for makes a hub list its fibers, asleep or busy, and no other signal") {
  const stderr_capture capture;
  {
    annulet::hub hub({.dump_signal = SIGUSR2});
    auto sleeper = spawn({.name = "sleeper"}, [] { this_fiber::sleep_for(1h); });
    // Asleep: another thread sends it, and the hub has nothing else to wake for.
    std::thread sender([] {
      std::this_thread::sleep_for(20ms);
      ::kill(::getpid(), SIGUSR2);
    });
    const auto before = std::chrono::steady_clock::now();
    this_fiber::sleep_for(200ms);
    CHECK(std::chrono::steady_clock::now() - before >= 200ms);
    sender.join();
    CHECK(times(capture.text(), "\"sleeper\"") == 1);
    CHECK(has(capture.text(), "annulet: 2 fibers, 0 of them running, 0 ready, 2 parked"));
    // Busy.
    ::raise(SIGUSR2);
    for (int i = 0; i < 1000; ++i) {
      this_fiber::yield();
    }
    CHECK(times(capture.text(), "\"sleeper\"") == 2);
    sleeper.kill();
  }
}

TEST_CASE("hubs of several threads that want the same signal all answer; afterwards it is whose it was") {
  const stderr_capture capture;
  const handler_scope own(SIGUSR2, [](int) { handled = handled + 1; });
  handled = 0;
  {
    annulet::hub hub({.dump_signal = SIGUSR2});
    std::promise<void> made;
    std::atomic<bool> over = false;
    std::thread other([&] {
      annulet::hub its({.dump_signal = SIGUSR2});
      auto fiber = spawn({.name = "over there"}, [] { this_fiber::sleep_for(1h); });
      made.set_value();
      while (!over) {
        this_fiber::sleep_for(1ms);
      }
      fiber.kill();
    });
    made.get_future().get();
    auto fiber = spawn({.name = "over here"}, [] { this_fiber::sleep_for(1h); });
    this_fiber::yield();
    ::raise(SIGUSR2);
    await_words(capture, "\"over here\"", 1);
    await_words(capture, "\"over there\"", 1);
    over = true;
    other.join();
    ::raise(SIGUSR2);
    await_words(capture, "\"over here\"", 2);
    CHECK(times(capture.text(), "\"over there\"") == 1);
    fiber.kill();
  }
  CHECK(handled == 0);
  ::raise(SIGUSR2);
  CHECK(handled == 1);
}

TEST_CASE("hubs come and go while the signal comes again and again") {
  const stderr_capture capture;
  annulet::hub keeps({.dump_signal = SIGUSR2});
  std::atomic<bool> over = false;
  std::thread storm([&] {
    while (!over) {
      ::kill(::getpid(), SIGUSR2);
      std::this_thread::sleep_for(100us);
    }
  });
  std::thread others([&] {
    for (int i = 0; i < 100; ++i) {
      annulet::hub hub({.dump_signal = SIGUSR2});
      auto fiber = spawn([] { this_fiber::sleep_for(1ms); });
      fiber.join();
    }
    over = true;
  });
  while (!over) {
    this_fiber::sleep_for(1ms);
  }
  storm.join();
  others.join();
  CHECK(times(capture.text(), "annulet: ") > 10);
}

TEST_CASE("a handler that the program installs later stands when the hub ends, and in a forked child") {
  const handler_scope before(SIGUSR2, SIG_IGN);
  handled = 0;
  {
    annulet::hub hub({.dump_signal = SIGUSR2});
    std::signal(SIGUSR2, [](int) { handled = handled + 1; });
    CHECK(annulet::test::run_apart([] {
            ::raise(SIGUSR2);
            return handled == 1 ? 0 : 1;
          }) == 0);
  }
  ::raise(SIGUSR2);
  CHECK(handled == 1);
}

TEST_CASE("the signal may come while hardly anything is left of a stack, and on the smallest ones") {
  const annulet_test::child_end end = annulet_test::in_child([] {
    annulet::hub hub({.dump_signal = SIGUSR2});
    ::raise(SIGUSR2);  // to find the function takes more of a stack than to call it
    this_fiber::sleep_for(1ms);
    spawn({.name = "deep"}, [] {
      annulet_test::use_all_but(1024, [] { ::raise(SIGUSR2); });
      this_fiber::sleep_for(1ms);
    }).join();
    // All are parked, and the last of them waits for all.
    auto small = [](const char* name) {
      return spawn({.name = name, .stack_size = annulet::smallest_stack_size()}, [] {
        ::raise(SIGUSR2);
        this_fiber::sleep_for(10ms);
        ::kill(::getpid(), SIGUSR2);
        this_fiber::sleep_for(10ms);
      });
    };
    auto first = small("first"), second = small("second");
    first.join();
    second.join();
    return true;
  });
  CAPTURE(end.said);
  CHECK(end.exit == 0);
  CHECK(has(end.said, "\"deep\""));
  CHECK(has(end.said, "\"second\""));
  CHECK_FALSE(has(end.said, "\n\n"));
}

TEST_CASE("a signal that cannot be handled, that faults raise, or is none, makes no hub") {
  for (const int signal : {-1, SIGKILL, SIGSTOP, NSIG, 1000, SIGSEGV, SIGBUS, SIGFPE, SIGILL}) {
    CAPTURE(signal);
    CHECK_THROWS_AS(annulet::hub({.dump_signal = signal}), std::invalid_argument);
  }
  const annulet::hub hub;
  CHECK_THROWS_AS(annulet::hub({.slow_slice = -1ns}), std::exception);
}

TEST_CASE("a fiber that computes for longer than the limit is reported with its name and place") {
  const stderr_capture capture;
  {
    const annulet::hub hub({.slow_slice = 20ms});
    spawn({.name = "computes"}, [] {
      const auto until = std::chrono::steady_clock::now() + 30ms;
      while (std::chrono::steady_clock::now() < until) {
      }
    }).join();
  }
  const std::string told = capture.text();
  CHECK(has(told, "\"computes\" (spawned at "));
  CHECK(has(told, "hub_dump_test.cpp:"));
  // Longer where the machine has had others run.
  const std::size_t at = told.find(kept, told.find("\"computes\""));
  REQUIRE(at != std::string::npos);
  CHECK(std::stod(told.substr(at + kept.size())) >= 0.030);
}

TEST_CASE("a fiber that looks again and again does not keep its thread, though nobody else is there to run") {
  using clock = std::chrono::steady_clock;
  const stderr_capture capture;
  auto before_last = clock::now(), last = before_last;
  clock::duration longest{};  // from one look to the next but one: a slice lies within
  {
    const annulet::hub hub({.slow_slice = 100ms});
    spawn([&] {
      const auto until = clock::now() + 300ms;
      while (last < until) {
        CHECK(annulet_poll(nullptr, 0, 0) == 0);
        const auto now = clock::now();
        longest = std::max(longest, now - std::exchange(before_last, std::exchange(last, now)));
      }
    }).join();
  }
  longest = std::max(longest, clock::now() - before_last);
  const std::string told = capture.text();
  const double seconds = std::chrono::duration<double>(longest).count();
  for (std::size_t at = 0; (at = told.find(kept, at)) != std::string::npos; at += kept.size()) {
    CHECK(std::stod(told.substr(at + kept.size())) <= seconds + 0.001);  // the machine had others run
  }
}

TEST_CASE("a hub counts what it does, and only on its own thread") {
  annulet::hub hub;
  const annulet::hub_counts before = hub.counts();
  auto [mine, its] = annulet::test::make_pipe();
  const int from = mine.get(), to = its.get();
  auto reader = spawn([from] {
    std::array<std::byte, 1> byte{};
    return annulet::read(from, byte);
  });
  this_fiber::yield();
  const std::array<std::byte, 1> byte{};
  CHECK(annulet::write(to, byte) == 1);
  CHECK(reader.get() == 1);
  const annulet::hub_counts after = hub.counts();
  CHECK(after.spawned - before.spawned == 1);
  CHECK(after.parks - before.parks == 2);
  CHECK(after.wakes - before.wakes == 2);
  CHECK(after.switches - before.switches >= 2);
  CHECK(after.enters - before.enters >= 1);
  CHECK(after.requests - before.requests >= 1);
  std::thread([&] { CHECK_THROWS_AS((void)hub.counts(), annulet::wrong_thread); }).join();
}
