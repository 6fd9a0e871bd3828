// What stacks keep of memory, and what they give back.
#include <annulet/hub/hub.hpp>
#include <annulet/runtime/event.hpp>
#include <annulet/runtime/fiber.hpp>

#include "oracle/run.hpp"
#include "support/child.hpp"
#include "support/driven_clock.hpp"
#include "support/own_memory.hpp"

#include <doctest/doctest.h>

#include <alloca.h>

#include <cstddef>
#include <cstdio>
#include <fstream>
#include <iostream>
#include <span>
#include <stdexcept>
#include <string>
#include <vector>

#include <sys/uio.h>
#include <unistd.h>

using annulet::default_stack_size;
using annulet::spawn;
using annulet::detail::stack_pool;
using annulet_test::child_end;
using annulet_test::driven;
using annulet_test::in_child;
using annulet_test::mappings;
using annulet_test::page;
using annulet_test::resident_bytes;
using namespace std::chrono_literals;

namespace {

constexpr std::size_t kib = 1024, mib = 1024 * kib;

[[gnu::noinline]] void touch(std::size_t bytes) {
  auto* const room = static_cast<volatile char*>(alloca(bytes));
  for (std::size_t at = 0; at < bytes; at += 1024) {
    room[at] = 1;
  }
}

// So many fibers at once, each of which touches so much of its stack.
void burst(std::size_t fibers, std::size_t touched, std::size_t stack_size = default_stack_size) {
  annulet::event go;
  std::vector<annulet::fiber<void>> all;
  all.reserve(fibers);
  for (std::size_t i = 0; i < fibers; ++i) {
    all.push_back(spawn({.stack_size = stack_size}, [&] {
      touch(touched);
      go.wait();
    }));
  }
  annulet::this_fiber::yield();
  go.set();
  for (auto& f : all) {
    f.join();
  }
}

bool can_be_read(std::byte* address) {
  std::byte copy{};
  const iovec to{&copy, 1}, from{address, 1};
  return ::process_vm_readv(::getpid(), &to, 1, &from, 1, 0) == 1;
}

}  // namespace

TEST_CASE("after a burst of 100,000 fibers the memory goes back once it was idle, and not before") {
  driven world;
  burst(1, 8 * kib);
  const std::size_t before = resident_bytes();
  burst(100'000, 1 * kib);
  const std::size_t full = resident_bytes();
  CHECK(full > before + 350 * mib);
  annulet::this_fiber::sleep_for(990ms);  // too short to tell
  CHECK(resident_bytes() > full - mib);
  annulet::this_fiber::sleep_for(3s);
  const std::size_t after = resident_bytes();
  std::cout << "note: resident: " << before / mib << " MiB, after the burst " << full / mib << ", later "
            << after / mib << std::endl;
  CHECK(after < before + 12 * mib);  // an address for each stack, and what is kept warm
  burst(100'000, 1 * kib);           // and all are as good as new
  CHECK(resident_bytes() > before + 350 * mib);
}

TEST_CASE("one deep recursion does not keep its memory") {
  driven world;
  const std::size_t before = resident_bytes();
  burst(1, 200 * mib, 256 * mib);
  CHECK(resident_bytes() > before + 199 * mib);
  annulet::this_fiber::sleep_for(3s);
  CHECK(resident_bytes() < before + mib);
}

TEST_CASE("stacks that are in use again and again keep their memory, and so do few of them") {
  driven world;
  burst(1'000, 16 * kib);
  const std::size_t full = resident_bytes();
  for (int i = 0; i < 20; ++i) {
    annulet::this_fiber::sleep_for(500ms);
    burst(1'000, 1 * kib);
  }
  CHECK(resident_bytes() > full - mib);
}

TEST_CASE("what waits meanwhile is in time, however much is given back") {
  driven world;
  burst(20'000, 1 * kib);
  unsigned looks = 0, in_time = 0;
  world.clock.on_look = [&] {
    ++looks;
    world.clock.advance(20us);  // so long a few stacks take
  };
  for (int i = 0; i < 100; ++i) {
    const auto due = world.clock.since_start() + 20ms;
    annulet::this_fiber::sleep_for(20ms);
    in_time += world.clock.since_start() - due < 50us;
  }
  CHECK(looks > 1'000);
  CHECK(in_time == 100);
}

TEST_CASE("an idle hub is woken for what is to be given back, and then no more") {
  driven world;
  burst(10'000, 1 * kib);
  const unsigned before = world.clock.waits;
  annulet::this_fiber::sleep_for(1h);
  CHECK(world.clock.waits - before <= 4);
}

TEST_CASE("trim_stacks gives back all memory of stacks that nobody uses, and of no others") {
  const child_end end = in_child([] {
    annulet::hub home;
    annulet::event go;
    const std::size_t before = resident_bytes();
    bool kept = false;
    auto lives = spawn([&] {
      volatile char mine[64 * 1024];
      for (std::size_t at = 0; at < sizeof mine; ++at) {
        mine[at] = static_cast<char>(at);
      }
      go.wait();
      kept = true;
      for (std::size_t at = 0; at < sizeof mine; ++at) {
        kept = kept && mine[at] == static_cast<char>(at);
      }
    });
    burst(1'000, 100 * kib);
    const bool grew = resident_bytes() > before + 100 * mib;
    home.trim_stacks();
    const bool shrank = resident_bytes() < before + 2 * mib;
    burst(1'000, 100 * kib);
    home.trim_stacks();
    home.trim_stacks();
    const bool again = resident_bytes() < before + 2 * mib;
    go.set();
    lives.join();
    return grew && shrank && again && kept;
  });
  CAPTURE(end.said);
  CHECK(end.exit == 0);
}

TEST_CASE("how far a stack was used can be read, of a fiber that lives and of one that has ended") {
  driven world;
  CHECK(annulet::this_fiber::stack_used() == 0);  // main's is not ours
  annulet::event go;
  std::size_t by_itself = 0;
  auto f = spawn([&] {
    const std::size_t at_first = annulet::this_fiber::stack_used();
    CHECK(at_first >= page);
    CHECK(at_first <= 4 * page);
    touch(100 * kib);
    by_itself = annulet::this_fiber::stack_used();
    go.wait();
  });
  CHECK(f.stack_used() <= page);  // it has not begun
  annulet::this_fiber::yield();
  CHECK(by_itself >= 100 * kib);
  CHECK(by_itself < 100 * kib + 4 * page);
  CHECK(f.stack_used() == by_itself);
  go.set();
  f.join();
  CHECK(f.stack_used() == by_itself);
  CHECK(f.stack_used() % page == 0);
  annulet::fiber<void> none;
  CHECK_THROWS_AS((void)none.stack_used(), std::logic_error);
}

TEST_CASE("a stack that another fiber had is used as far as that went, until it is trimmed") {
  driven world;
  spawn([] { touch(100 * kib); }).join();
  CHECK(spawn([] { return annulet::this_fiber::stack_used(); }).get() >= 100 * kib);
  world.fibers.trim_stacks();
  CHECK(spawn([] { return annulet::this_fiber::stack_used(); }).get() <= 4 * page);
  // Of one that is larger than what one system call tells.
  CHECK(spawn({.stack_size = 64 * mib}, [] { return annulet::this_fiber::stack_used(); }).get() <= 4 * page);
  CHECK(spawn({.stack_size = 64 * mib}, [] {
          touch(20 * mib);
          return annulet::this_fiber::stack_used() / mib;
        }).get() == 20);
}

TEST_CASE("crowds of fibers live at once, guarded, in 5 KiB each, page tables and all, and few mappings") {
  const std::size_t fibers = oracle::from_environment("ANNULET_FIBERS", 200'000);
  std::size_t available = 0;
  std::ifstream meminfo("/proc/meminfo");
  for (std::string word; meminfo >> word;) {
    if (word == "MemAvailable:") {
      meminfo >> available;
    }
  }
  if (available < fibers * 7) {
    std::cout << "note: skipped: of memory there are " << available / 1024 << " MiB" << std::endl;
    return;
  }
  const auto in_page_tables = [] {
    std::ifstream status("/proc/self/status");
    std::size_t kibs = 0;
    for (std::string word; status >> word;) {
      if (word == "VmPTE:") {
        status >> kibs;
      }
    }
    return kibs * kib;
  };
  const child_end end = in_child(
      [&] {
        driven world;
        annulet::event go;
        std::size_t woken = 0, guarded = 0;
        const std::size_t mapped = mappings();
        const std::size_t resident = resident_bytes(), tables = in_page_tables();
        for (std::size_t i = 0; i < fibers; ++i) {
          spawn([&] {
            const std::span<std::byte> stack = world.fibers.running().memory.memory;
            guarded += can_be_read(&stack.back()) && !can_be_read(stack.data() - 1) ? 1 : 0;
            go.wait();
            ++woken;
          }).detach();
        }
        annulet::this_fiber::yield();
        const std::size_t grown = resident_bytes() - resident, in_tables = in_page_tables() - tables;
        std::printf("note: a parked fiber takes %zu bytes, and %zu in page tables; %zu mappings more\n",
                    grown / fibers, in_tables / fibers, mappings() - mapped);
        const bool small = grown + in_tables <= fibers * 5 * kib;
        const bool all_live = world.fibers.fibers() == fibers && grown > fibers * 4096;
        // Where guards split mappings so many stacks are not to be had.
        const bool flat = mappings() - mapped < 100;
        go.set();
        while (world.fibers.fibers() != 0) {
          annulet::this_fiber::yield();
        }
        std::fflush(stdout);
        return small && all_live && flat && guarded == fibers && woken == fibers;
      },
      300);
  CAPTURE(end.said);
  CHECK(end.exit == 0);
}
