// What select returns, held against poll(2) and a model, over every kind of descriptor there is.
//
// ANNULET_ORACLE_OPERATIONS says how many operations, ANNULET_ORACLE_SEED which.

#include "oracle/run.hpp"
#include "support/files.hpp"

#include <annulet/hub/hub.hpp>
#include <annulet/runtime/fiber.hpp>
#include <annulet/selector/selector.hpp>

#include <doctest/doctest.h>

#include <algorithm>
#include <chrono>
#include <iostream>
#include <string>

#include <sys/eventfd.h>
#include <unistd.h>

using namespace std::chrono_literals;
using annulet::io_event;
using annulet::test::descriptor;

namespace {

descriptor make_eventfd() {
  return descriptor(annulet::test::require_ok(::eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC), "eventfd"));
}

void set(const descriptor& event) {
  const std::uint64_t one = 1;
  REQUIRE(::write(event.get(), &one, sizeof(one)) == sizeof(one));
}

void clear(const descriptor& event) {
  std::uint64_t count = 0;
  REQUIRE(::read(event.get(), &count, sizeof(count)) == sizeof(count));
}

bool reports(annulet::selector& sel, const descriptor& event) {
  const auto ready = sel.select(0ms);
  return std::ranges::any_of(ready, [&](const auto& one) { return one.key->fd == event.get(); });
}

}  // namespace

TEST_CASE("what select returns is what poll(2) says, whatever is done to the descriptors") {
  const std::uint64_t seed = oracle::from_environment("ANNULET_ORACLE_SEED", oracle::fresh_seed());
  const std::uint64_t operations = oracle::from_environment("ANNULET_ORACLE_OPERATIONS", 200'000);
  std::cout << "note: seed " << seed << std::endl;
  const oracle::verdict result = oracle::run(seed, operations);
  std::cout << oracle::figures(result.counts) << std::flush;
  CHECK_MESSAGE(result.mismatch.empty(), result.mismatch);
  if (!result.mismatch.empty()) {
    return;
  }
  const oracle::tally& counts = result.counts;
  CHECK(counts.operations >= operations);
  CHECK(counts.judged * 100 >= counts.selects * 99);
  CHECK(counts.late * 1000 <= counts.selects);
  // And the run was no empty one.
  CHECK(counts.selects * 20 >= counts.operations);
  CHECK(counts.parked * 10 >= counts.selects * 3);
  if (operations >= 100'000) {
    CHECK(counts.woken_by_fiber >= 100);
    CHECK(counts.woken_by_thread >= 100);
    CHECK(counts.woken_by_post >= 100);
    CHECK(counts.timed_out >= 100);
    CHECK(counts.closed_under >= 1);
    CHECK(counts.closed_keys >= 500);
    CHECK(counts.behind_keys >= 100);
    CHECK(counts.ends_seen >= 500);
    CHECK(std::ranges::all_of(counts.ready, [](std::uint64_t times) { return times >= 20; }));
  }
}

// What the machine has found so far, each by itself.

TEST_CASE("a key that is about to be armed when another is unregistered is armed all the same") {
  annulet::hub hub;
  const descriptor quiet = make_eventfd();
  const descriptor always = make_eventfd();
  const descriptor other = make_eventfd();
  annulet::selector sel;
  annulet::selector second;
  sel.register_(quiet, io_event::read);
  second.register_(other, io_event::read);
  auto changer = annulet::spawn([&] {
    second.unregister(other);  // had nothing in the kernel
    sel.register_(always, io_event::write);
  });
  CHECK(sel.select(10s).size() == 1);
  changer.join();
  set(quiet);
  CHECK(reports(sel, quiet));
}

TEST_CASE("a poll request that fails at once keeps none of those behind it from being armed") {
  for (const auto mode : {annulet::ring_mode::defer_taskrun, annulet::ring_mode::coop_taskrun,
                          annulet::ring_mode::submit_all, annulet::ring_mode::plain}) {
    annulet::hub_options options;
    options.mode = mode;
    annulet::hub hub(options);
    descriptor gone = make_eventfd();
    const descriptor quiet = make_eventfd();
    annulet::selector sel;
    sel.register_(gone, io_event::read);
    sel.register_(quiet, io_event::read);
    const int number = gone.get();
    auto closer = annulet::spawn([&] { gone.close(); });
    (void)sel.select(100ms);
    closer.join();
    set(quiet);
    CHECK(reports(sel, quiet));
    sel.unregister(number);
  }
}

TEST_CASE("what happens between the end of one poll request and the next is not missed") {
  annulet::hub_options options;
  options.mode = annulet::ring_mode::submit_all;  // where each write posts an event at once
  annulet::hub hub(options);
  const descriptor busy = make_eventfd();
  const descriptor other = make_eventfd();
  annulet::selector sel;
  annulet::selector second;
  sel.register_(busy, io_event::read);
  second.register_(other, io_event::read);
  CHECK(sel.select(0ms).empty());
  CHECK(second.select(0ms).empty());
  // So many events that nobody asks about that the request is taken back, and none of it is there any more.
  for (int i = 0; i < 8; ++i) {
    set(busy);
    clear(busy);
  }
  second.unregister(other);
  CHECK(sel.select(0ms).empty());  // it is wanted again
  set(busy);
  CHECK(reports(sel, busy));
}

TEST_CASE("a parked select that was woken, and whose selector is closed before it runs, says so") {
  annulet::hub hub;
  const descriptor quiet = make_eventfd();
  const descriptor always = make_eventfd();
  annulet::selector sel;
  sel.register_(quiet, io_event::read);
  auto closer = annulet::spawn([&] {
    sel.register_(always, io_event::write);
    sel.close();
  });
  CHECK_THROWS_WITH_AS((void)sel.select(5s), doctest::Contains("selector is closed"), std::runtime_error);
  closer.join();
}
