// A fiber whose descriptors are always ready, and that never parks, leaves room for all the others.
#include "support/files.hpp"

#include <annulet/hub/hub.hpp>
#include <annulet/runtime/cancellation.hpp>
#include <annulet/runtime/fiber.hpp>
#include <annulet/selector/selector.hpp>

#include <doctest/doctest.h>

#include <chrono>
#include <thread>

namespace {

using namespace annulet::test;
using namespace std::chrono_literals;
using steady = std::chrono::steady_clock;

constexpr int most_selects = 64;  // between what is due and its fiber's turn
constexpr int give_up = 4000;

// What a busy server does with what it has been given.
void work_for(std::chrono::microseconds time) {
  for (const auto until = steady::now() + time; steady::now() < until;) {
  }
}

// A selector that always has something to report.
struct busy {
  busy() { selector.register_(ready.get(), annulet::io_event::read); }

  // Serves until `done`, and returns how many selects were made after `due` had come.
  template <class Due, class Done>
  int serve(Due due, Done done) {
    int late = 0;
    while (!done() && late < give_up) {
      REQUIRE(selector.select().size() == 1);
      work_for(100us);
      late += due() ? 1 : 0;
    }
    return late;
  }

  descriptor ready = make_eventfd(1);
  annulet::selector selector;
};

}  // namespace

TEST_CASE("a sleeping fiber wakes while a selector always has something to report") {
  annulet::hub hub;
  busy server;
  bool awake = false;
  const auto until = steady::now() + 20ms;
  auto sleeper = annulet::spawn([&] {
    annulet::this_fiber::sleep_until(until);
    awake = true;
  });
  annulet::this_fiber::yield();
  CHECK(server.serve([&] { return steady::now() >= until; }, [&] { return awake; }) <= most_selects);
}

TEST_CASE("a timeout guard ends a wait while a selector always has something to report") {
  annulet::hub hub;
  busy server;
  bool ended = false;
  const auto until = steady::now() + 20ms;
  auto waiting = annulet::spawn([&] {
    const annulet::timeout guard(until);
    annulet::selector nothing;
    try {
      (void)nothing.select();
    } catch (const annulet::timeout_expired& e) {
      ended = e.is(guard);
    }
  });
  annulet::this_fiber::yield();
  CHECK(server.serve([&] { return steady::now() >= until; }, [&] { return ended; }) <= most_selects);
}

TEST_CASE("a posted function runs while a selector always has something to report") {
  annulet::hub hub;
  busy server;
  bool ran = false;
  const annulet::hub_handle handle = hub.handle();
  std::thread([&] { handle.post([&] { ran = true; }); }).join();
  CHECK(server.serve([] { return true; }, [&] { return ran; }) <= most_selects);
}

TEST_CASE("another fiber's descriptor is served while a selector always has something to report") {
  annulet::hub hub;
  busy server;
  bool served = false;
  const descriptor quiet = make_eventfd();
  auto other = annulet::spawn([&] {
    annulet::selector its_own;
    its_own.register_(quiet.get(), annulet::io_event::read);
    CHECK(its_own.select().size() == 1);
    served = true;
  });
  annulet::this_fiber::yield();
  add_to_eventfd(quiet.get());
  CHECK(server.serve([] { return true; }, [&] { return served; }) <= most_selects);
}
