// A duplicate keeps an open file there after its watched number was closed. What was let go is heard of no
// more all the same: the file's events neither wake the hub nor reach anybody, for whichever engine would
// find it in the kernel still.
#include "support/apart.hpp"
#include "support/engine.hpp"
#include "support/files.hpp"
#include "support/probe_watch.hpp"
#include "support/syscalls.hpp"

#include <annulet/hub/close.hpp>
#include <annulet/hub/hub.hpp>
#include <annulet/hub/io.hpp>
#include <annulet/runtime/fiber.hpp>
#include <annulet/selector/selector.hpp>
#include <annulet_plants.hpp>

#include <doctest/doctest.h>

#include <array>
#include <cstdint>
#include <memory>
#include <stdexcept>
#include <utility>
#include <vector>

using namespace annulet;
using namespace annulet::test;
using namespace std::chrono_literals;

namespace {

constexpr unsigned times = 10;

// Ways in which a watched number comes to be closed, and all that watched it is let go. Each is given the
// number, which it owns.
using way = void (*)(int);

int a_file() { return require_ok(::open("/dev/null", O_RDWR | O_CLOEXEC), "open"); }

void unregister_and_close(int fd) {
  selector sel;
  sel.register_(fd, io_event::read);
  (void)sel.select(0ms);
  sel.unregister(fd);
  ::close(fd);
}

void close_through_the_hub(int fd) {
  selector sel;
  sel.register_(fd, io_event::read);
  (void)sel.select(0ms);
  annulet::close(fd);
  sel.unregister(fd);
}

void dup2_over_it(int fd) {
  const annulet::test::descriptor other(a_file());
  selector sel;
  sel.register_(fd, io_event::read);
  (void)sel.select(0ms);
  annulet::dup2(other.get(), fd);
  sel.unregister(fd);
  ::close(fd);
}

void close_the_selector(int fd) {
  {
    selector sel;
    sel.register_(fd, io_event::read);
    (void)sel.select(0ms);
  }
  ::close(fd);
}

void end_a_descriptor_under_a_call(int fd) {
  auto owner = annulet::descriptor::adopt(fd);
  auto reader = spawn([&] {
    char byte = 0;
    (void)owner.read({&byte, 1});
  });
  this_fiber::sleep_for(1ms);
  owner = {};
  reader.join();
}

void kill_a_call_and_close(int fd) {
  auto reader = spawn([fd] {
    char byte = 0;
    (void)annulet::read(fd, {&byte, 1});
  });
  this_fiber::sleep_for(1ms);
  reader.kill();
  reader.join();
  ::close(fd);
}

// Here the number is gone before anybody can say which file was meant.
void close_behind_its_back_and_unregister(int fd) {
  selector sel;
  sel.register_(fd, io_event::read);
  (void)sel.select(0ms);
  ::close(fd);
  sel.unregister(fd);
}

constexpr std::array ways = {unregister_and_close, close_through_the_hub,         dup2_over_it,
                             close_the_selector,   end_a_descriptor_under_a_call, kill_a_call_and_close};

void plant_queued_cancel(unsigned every) {
  detail::plant_every[static_cast<std::size_t>(detail::plant::queued_cancel)] = every;
}

// How often the hub waits while the old file has ten events and this fiber sleeps ten times.
// Where a wake-up is planted, it is long over when the sleep ends: two that come together count as one.
unsigned waits_after(way close, bool planted) {
  const std::uint64_t waits = wait_call();
  const auto pause = planted ? 20ms : 1ms;
  auto parts = count_syscalls([&](auto mark) {
    hub home;
    auto [ours, peer] = make_socket_pair();
    const annulet::test::descriptor duplicate(require_ok(::dup(ours.get()), "dup"));
    plant_queued_cancel(planted ? 1 : 0);
    close(ours.release());
    plant_queued_cancel(0);
    this_fiber::sleep_for(1ms);
    mark();
    for (unsigned i = 0; i < times; ++i) {
      send_byte(peer.get());
      this_fiber::sleep_for(pause);
    }
    mark();
  });
  if (parts.size() != 1) {
    throw std::logic_error("there is one part");
  }
  return parts[0][waits];
}

// A watch on the number of a file that only a duplicate has still: nobody can take it out by its number.
struct unnameable {
  unnameable() {
    auto pair = make_socket_pair();
    kept = annulet::test::descriptor(require_ok(::dup(pair.first.get()), "dup"));
    peer = std::move(pair.second);
    probe_watch watch(pair.first.get());
    watch.arm_now(POLLIN);
    pair.first.close();
  }
  void fire() const { send_byte(peer.get()); }

  annulet::test::descriptor kept;
  annulet::test::descriptor peer;
};

// So many that one call to the kernel does not bring all that has happened to them.
struct many_counters {
  static constexpr std::size_t count = 1'200;
  many_counters() {
    for (std::size_t i = 0; i < count; ++i) {
      files.push_back(make_eventfd());
      watches.push_back(std::make_unique<probe_watch>(files.back().get()));
      watches.back()->want(POLLIN);
    }
    this_hub().io().flush();
  }
  // How many of them a look has told, when all had an event.
  std::size_t told_in_one_look(const unnameable* first = nullptr) {
    for (const auto& watch : watches) {
      watch->forget();
    }
    if (first != nullptr) {
      first->fire();
    }
    for (const auto& file : files) {
      add_to_eventfd(file.get());
    }
    this_hub().io().look();
    std::size_t told = 0;
    for (const auto& watch : watches) {
      told += watch->results.empty() ? 0U : 1U;
    }
    return told;
  }

  std::vector<annulet::test::descriptor> files;
  std::vector<std::unique_ptr<probe_watch>> watches;
};

}  // namespace

TEST_CASE("a file that was let go wakes the hub no more, though a duplicate keeps it") {
  for (std::size_t i = 0; i < ways.size(); ++i) {
    CAPTURE(i);
    CHECK(waits_after(ways[i], false) == times);
  }
}

TEST_CASE(
    "where a bare close has left nothing to name a file by, its first event is the last to wake the hub") {
  CHECK(waits_after(close_behind_its_back_and_unregister, false) <= times + (on_epoll() ? 1 : 0));
}

TEST_CASE("a letting go that leaves an entry in an epoll set shows as wake-ups" *
          doctest::skip(skipped_on_the_ring("an entry of an epoll set that is left behind"))) {
  for (const std::size_t i : {0U, 1U, 3U, 4U, 5U}) {  // the number of dup2's target is taken back before
    CAPTURE(i);
    CHECK(waits_after(ways[i], true) > times);
  }
}

TEST_CASE(
    "the event of a file that nobody can name keeps no other event from being told, nor any later one") {
  hub home;
  many_counters all;
  for (int round = 0; round < 3; ++round) {
    const unnameable lost;
    CHECK(all.told_in_one_look(&lost) == all.count);
    CHECK(all.told_in_one_look() == all.count);
  }
}

TEST_CASE("such an event costs nothing but itself where no descriptor is left to be rid of it with") {
  CHECK(run_apart([] {
          hub home;
          many_counters all;
          const unnameable lost;
          rlimit files{};
          require_ok(::getrlimit(RLIMIT_NOFILE, &files), "getrlimit");
          const rlimit none{0, files.rlim_max};
          require_ok(::setrlimit(RLIMIT_NOFILE, &none), "setrlimit");
          const bool without = all.told_in_one_look(&lost) == all.count;
          require_ok(::setrlimit(RLIMIT_NOFILE, &files), "setrlimit");
          const bool with = all.told_in_one_look(&lost) == all.count;
          return (without ? 0 : 1) + (with ? 0 : 2);
        }) == 0);
}
