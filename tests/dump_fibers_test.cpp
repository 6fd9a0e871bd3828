#include <annulet/runtime/check.hpp>
#include <annulet/runtime/dump_fibers.hpp>
#include <annulet/runtime/errors.hpp>
#include <annulet/runtime/event.hpp>
#include <annulet/runtime/fiber.hpp>
#include <annulet/runtime/mutex.hpp>
#include <annulet/runtime/queue.hpp>
#include <annulet/runtime/sanitizer.hpp>
#include <annulet/runtime/this_fiber.hpp>

#include "support/child.hpp"
#include "support/decimal_comma.hpp"
#include "support/driven_clock.hpp"
#include "support/overflowing.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <chrono>
#include <clocale>
#include <iostream>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

using annulet::dump_fibers;
using annulet::dump_format;
using annulet::spawn;
using annulet_test::driven;
using annulet_test::stderr_capture;
namespace this_fiber = annulet::this_fiber;
using namespace std::chrono_literals;

namespace {

bool has(const std::string& text, const std::string& words) { return text.find(words) != std::string::npos; }

// The line that begins with this fiber.
std::string line_of(const std::string& list, const std::string& fiber) {
  const std::size_t begin = list.find(fiber);
  return begin == std::string::npos ? "" : list.substr(begin, list.find('\n', begin) - begin);
}
// But for its stack.
std::string doing(const std::string& list, const std::string& fiber) {
  const std::string line = line_of(list, fiber);
  return line.substr(0, line.find("; stack used: "));
}

}  // namespace

TEST_CASE("a dump says of each fiber what it does, and in which call it waits, and for how long") {
  annulet::mutex mutex;
  annulet::queue<int> queue(1);
  driven world;  // at whose end there are fibers that use both
  const std::unique_lock held(mutex);
  auto locks = spawn({.name = "locks"}, [&] { const std::lock_guard lock(mutex); });
  auto pops = spawn({.name = "pops"}, [&] { (void)queue.pop(); });
  this_fiber::yield();
  this_fiber::sleep_for(1500ms);
  auto sleeps = spawn({.name = "sleeps"}, [] { this_fiber::sleep_for(1h); });
  this_fiber::yield();
  this_fiber::sleep_for(250ms);
  auto waits = spawn({.name = "waits"}, [] {});
  const std::string list = dump_fibers();
  CHECK(list.starts_with("5 fibers, 1 of them running, 1 ready, 3 parked\nfiber 1 \"main\": running\n"));
  CHECK(doing(list, "fiber 2 \"locks\"").ends_with(": parked in mutex::lock for 1.750 s"));
  CHECK(doing(list, "fiber 3 \"pops\"").ends_with(": parked in queue::pop for 1.750 s"));
  CHECK(doing(list, "fiber 4 \"sleeps\"").ends_with(": parked in this_fiber::sleep_until for 0.250 s"));
  CHECK(doing(list, "fiber 5 \"waits\"").ends_with(": ready"));
  CHECK(has(line_of(list, "fiber 3"), "(spawned at "));
  CHECK(has(line_of(list, "fiber 3"), "dump_fibers_test.cpp:"));
  CHECK(std::ranges::count(list, '\n') == 6);
  queue.close();
}

TEST_CASE("a park counts from the first one since the last look, also where the hub does not wait") {
  annulet::event never;
  driven world;
  auto first = spawn({.name = "first"}, [&] { never.wait(); });
  this_fiber::yield();
  world.clock.advance(1s);
  const unsigned looks = world.clock.looks;
  for (int i = 0; i < 1000 && world.clock.looks == looks; ++i) {
    this_fiber::yield();
  }
  REQUIRE(world.clock.looks > looks);
  auto second = spawn({.name = "second"}, [&] { never.wait(); });
  this_fiber::yield();
  world.clock.advance(1s);
  auto third = spawn({.name = "third"}, [&] { never.wait(); });
  this_fiber::yield();
  const std::string list = dump_fibers();
  CHECK(doing(list, "fiber 2 \"first\"").ends_with(": parked in event::wait for 2.000 s"));
  CHECK(doing(list, "fiber 3 \"second\"").ends_with(": parked in event::wait for 1.000 s"));
  CHECK(doing(list, "fiber 4 \"third\"").ends_with(": parked in event::wait for 1.000 s"));
  never.set();
}

TEST_CASE("what is computed between a wait and the first park is no part of the park") {
  annulet::event never;
  driven world;
  this_fiber::sleep_for(10ms);
  world.clock.advance(500ms);
  auto waits = spawn({.name = "waits"}, [&] { never.wait(); });
  this_fiber::yield();
  CHECK(doing(dump_fibers(), "fiber 2 \"waits\"").ends_with(": parked in event::wait for 0.000 s"));
  never.set();
}

TEST_CASE("the time of parks is read once from look to look, and not where all only yield") {
  annulet::event never;
  driven world;
  std::vector<annulet::fiber<void>> parked(10);
  std::ranges::generate(parked, [&] { return spawn([&] { never.wait(); }); });
  const unsigned before = world.clock.coarse_reads;
  this_fiber::yield();
  CHECK(world.clock.coarse_reads == before + 1);
  const unsigned looks = world.clock.looks;
  for (int i = 0; i < 1000; ++i) {
    this_fiber::yield();
  }
  CHECK(world.clock.looks > looks);
  CHECK(world.clock.coarse_reads == before + 1);
  never.set();
}

TEST_CASE("a fiber that has ended is in no dump, also while its handle is there") {
  driven world;
  auto gone = spawn({.name = "gone"}, [] { return 1; });
  gone.join();
  CHECK_FALSE(has(dump_fibers(), "gone"));
  CHECK(gone.get() == 1);
}

TEST_CASE("a dump as JSON has the same in fields, and any name is quoted") {
  driven world;
  annulet::event never;
  auto odd = spawn({.name = "a \"b\" \\ \n"}, [&] { never.wait(); });
  this_fiber::yield();
  const std::string list = dump_fibers(dump_format::json);
  CHECK(list.starts_with(
      "{\"fibers\": [\n{\"id\": 1, \"name\": \"main\", \"state\": \"running\"},\n{\"id\": 2, "
      "\"name\": \"a \\\"b\\\" \\\\ \\u000a\", \"state\": \"parked\", "
      "\"waits_in\": \"event::wait\", \"seconds\": 0.000, \"file\": \""));
  CHECK(list.ends_with("}\n]}\n"));
  never.set();
  odd.join();
}

TEST_CASE("a dump as JSON is UTF-8 whatever the names are, and a long name is not cut inside a character") {
  driven world;
  // A lone byte of each kind, what is too long for its number, half a pair, beyond the last, and cut off.
  auto odd = spawn({.name = "a\x80\xc0\xaf\xed\xa0\x80\xf4\x90\x80\x80\xff\xe2\x82"}, [] {});
  auto fine = spawn({.name = "\u00e9\u20ac\U0001f600\x7f"}, [] {});
  auto cut = spawn({.name = "123456789 123456789 123456789\u20ac"}, [] {});
  const std::string list = dump_fibers(dump_format::json);
  std::string replaced = "\"a";
  for (int i = 0; i < 13; ++i) {
    replaced += "\\ufffd";
  }
  CHECK(has(list, replaced + "\""));
  CHECK(has(list, "\"\u00e9\u20ac\U0001f600\x7f\""));
  CHECK(has(list, "\"123456789 123456789 123456789\""));
}

TEST_CASE("a fiber takes one line of a dump, whatever its name") {
  driven world;
  auto odd = spawn({.name = "a\nfiber 9 \x1b[2J\x7f\t\u00e9"}, [] {});
  const std::string list = dump_fibers();
  CHECK(std::ranges::count(list, '\n') == 3);
  CHECK(has(list, "fiber 2 \"a\\x0afiber 9 \\x1b[2J\\x7f\\x09\u00e9\" (spawned at "));
}

TEST_CASE("seconds have a point, wherever the program says that it runs") {
  if (!annulet_test::use_decimal_comma()) {
    FAIL("the C library does not take this locale");
  }
  driven world;
  auto sleeps = spawn([] { this_fiber::sleep_for(1h); });
  this_fiber::yield();
  this_fiber::sleep_for(1062ms);
  CHECK(has(dump_fibers(), " for 1.062 s"));
  CHECK(has(dump_fibers(dump_format::json), "\"seconds\": 1.062,"));
  std::setlocale(LC_NUMERIC, "C");
}

TEST_CASE("a dump tells how much of its stack each fiber has used, main's is not ours") {
  if constexpr (annulet::detail::built_in != annulet::detail::sanitizer::none) {
    return;  // a sanitizer writes to each stack
  }
  driven world;
  auto deep = spawn({.name = "deep", .stack_size = std::size_t{512} << 10}, [] {
    annulet_test::use_all_but(std::size_t{400} << 10, [] {});
    this_fiber::sleep_for(1h);
  });
  auto young = spawn({.name = "young", .stack_size = std::size_t{64} << 10}, [] {});
  this_fiber::sleep_for(1s);
  auto begins = spawn({.name = "begins", .stack_size = std::size_t{128} << 10}, [] {});
  const std::string list = dump_fibers();
  CHECK(line_of(list, "fiber 1").ends_with(": running"));
  CHECK(line_of(list, "fiber 4 \"begins\"").ends_with(": ready; stack used: 4 of 128 KiB"));
  CHECK(line_of(list, "fiber 2 \"deep\"").ends_with("for 1.000 s; stack used: 116 of 512 KiB"));
  const std::string fields = dump_fibers(dump_format::json);
  CHECK(has(line_of(fields, "\"id\": 2,"), "\"stack_used\": 118784, \"stack_size\": 524288"));
  CHECK_FALSE(has(line_of(fields, "\"id\": 1,"), "stack"));
}

TEST_CASE("a list that is reported has no empty line behind it") {
  const stderr_capture capture;
  annulet::detail::report("one\ntwo\n");
  annulet::detail::report("three");
  CHECK(capture.text() == "annulet: one\ntwo\nannulet: three\n");
}

TEST_CASE("40,000 fibers are listed, a line each") {
  driven world;
  for (int i = 0; i < 40'000; ++i) {
    spawn([] { this_fiber::sleep_for(1h); }).detach();
  }
  this_fiber::yield();
  const auto begin = std::chrono::steady_clock::now();
  const std::string list = dump_fibers();
  const auto took = std::chrono::steady_clock::now() - begin;
  std::cout << "note: 40,000 fibers listed in " << took / 1ms << " ms" << std::endl;
  CHECK(std::ranges::count(list, '\n') == 40'002);
}

TEST_CASE("a deadlock is told on the smallest stack, too") {
  const annulet_test::child_end end = annulet_test::in_child([] {
    driven world;
    annulet::event never;
    auto last = spawn({.name = "last", .stack_size = annulet::smallest_stack_size()}, [&] { never.wait(); });
    try {
      last.join();
    } catch (const annulet::deadlock& error) {
      never.set();
      return has(error.what(), "\"last\"");
    }
    return false;
  });
  CAPTURE(end.said);
  CHECK(end.exit == 0);
}

TEST_CASE("a fiber may dump all while others start and end") {
  driven world;
  std::vector<annulet::fiber<void>> fibers;
  std::size_t seen = 0;
  for (int i = 0; i < 200; ++i) {
    fibers.push_back(spawn([i, &seen] {
      for (int turn = 0; turn < i % 7; ++turn) {
        spawn([] { this_fiber::yield(); }).detach();
        this_fiber::yield();
        seen += dump_fibers().size();
      }
    }));
  }
  for (auto& each : fibers) {
    each.join();
  }
  CHECK(seen > 200 * 3 * 40);
}

TEST_CASE("a dump on a thread without a hub says so") {
  CHECK_THROWS_WITH_AS((void)dump_fibers(), "annulet: dump_fibers needs a hub, and this thread has none",
                       annulet::no_hub);
}

TEST_CASE("a fiber that keeps its thread for longer than the limit is reported, and no other") {
  const stderr_capture capture;
  driven world({.slow_slice = 10'000'000});
  auto quick = spawn({.name = "quick"}, [&] {
    for (int i = 0; i < 100; ++i) {
      world.clock.advance(10ms);
      this_fiber::yield();
    }
  });
  auto slow = spawn({.name = "slow"}, [&] {
    this_fiber::sleep_for(1s);
    world.clock.advance(11ms);
    this_fiber::yield();
  });
  auto last = spawn({.name = "last"}, [&] { world.clock.advance(12ms); });
  quick.join();
  slow.join();
  last.join();
  const std::string told = capture.text();
  CHECK(std::ranges::count(told, '\n') == 2);
  CHECK(has(told, "annulet: fiber 3 \"slow\" (spawned at "));
  CHECK(has(told, ") kept its thread for 0.011 s without parking or yielding\n"));
  CHECK(has(told, "fiber 4 \"last\""));
  CHECK(has(told, "kept its thread for 0.012 s"));
}

TEST_CASE("who has kept the thread and then takes what is there, and lets others run, is reported") {
  const stderr_capture capture;
  driven world({.slow_slice = 10'000'000});
  annulet::queue<int> queue(100);
  for (int i = 0; i < 100; ++i) {
    queue.push(i);
  }
  auto slow = spawn({.name = "slow"}, [&] {
    for (int i = 0; i < 3; ++i) {
      (void)queue.pop();
    }
    world.clock.advance(50ms);
    world.fibers.breathe(1000);
  });
  slow.join();
  CHECK(has(capture.text(), "\"slow\""));
  CHECK(has(capture.text(), "kept its thread for 0.050 s"));
  CHECK(std::ranges::count(capture.text(), '\n') == 1);
}

TEST_CASE("the time that is spent waiting, and looking outside, is nobody's slice") {
  const stderr_capture capture;
  driven world({.look_every = 3, .slow_slice = 10'000'000});
  world.clock.on_look = [&] { world.clock.advance(1s); };
  auto other = spawn([] {
    for (int i = 0; i < 20; ++i) {
      this_fiber::yield();
    }
  });
  this_fiber::sleep_for(1h);
  other.join();
  CHECK(world.clock.looks > 3);
  CHECK(capture.text().empty());
}

TEST_CASE("spawns, switches, parks and wakes are counted") {
  driven world;
  const annulet::detail::scheduler_counts before = world.fibers.counts();
  auto f = spawn([] {
    this_fiber::yield();
    this_fiber::sleep_for(1s);
  });
  f.join();
  const annulet::detail::scheduler_counts after = world.fibers.counts();
  CHECK(after.spawned - before.spawned == 1);
  // To the fiber when main parks; its yield finds nobody else, and it sleeps in place; back to main.
  CHECK(after.switches - before.switches == 2);
  CHECK(after.parks - before.parks == 2);
  CHECK(after.wakes - before.wakes == 2);
}
