// Two storms: events that are far more than the completion queue has room for, and signals ten thousand times
// a second.
//
// ANNULET_STORM_ROUNDS says how often all descriptors fire, and ANNULET_STORM_SECONDS how long signals come.

#include "oracle/run.hpp"
#include "support/counted_signal.hpp"
#include "support/descriptor_limit.hpp"
#include "support/files.hpp"
#include "support/numbered_transfers.hpp"
#include "support/planting.hpp"
#include "support/two_ends.hpp"

#include <annulet/hub/hub.hpp>
#include <annulet/hub/io.hpp>
#include <annulet/runtime/errors.hpp>
#include <annulet/runtime/event.hpp>
#include <annulet/runtime/sanitizer.hpp>
#include <annulet/runtime/scope.hpp>
#include <annulet/runtime/this_fiber.hpp>
#include <annulet/selector/selector.hpp>

#include <doctest/doctest.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <csignal>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <random>
#include <stop_token>
#include <thread>
#include <utility>
#include <vector>

#include <pthread.h>
#include <sys/eventfd.h>

using namespace annulet::test;
using namespace std::chrono_literals;
using annulet::hub;
using annulet::io_event;
using annulet::selector;
namespace this_fiber = annulet::this_fiber;
using steady = std::chrono::steady_clock;

namespace {

// --- events ---

// A hub on the smallest ring. On epoll, in its place: on a set that tells of one event at a time.
struct narrow_hub {
  const annulet_test::planting narrow{annulet::detail::plant::narrow_events, 1};
  const hub home{annulet::hub_options{.sq_entries = 1, .cq_entries = 2}};
};

constexpr rlim_t most = 20'000;
constexpr std::size_t for_the_rest = 300;

constexpr std::uint64_t few_rounds = 10;

// As many as are allowed; in a run that asks for more rounds than a test has, all of them or none.
std::size_t how_many(std::uint64_t rounds) {
  const rlim_t allowed = allow_descriptors(most);
  if (allowed < (rounds > few_rounds ? most : 2 * for_the_rest)) {
    std::printf("note: skipped: %llu open files are allowed\n", static_cast<unsigned long long>(allowed));
    return 0;
  }
  return allowed - for_the_rest;
}

std::vector<descriptor> make_eventfds(std::size_t count) {
  std::vector<descriptor> all(count);
  std::ranges::generate(
      all, [] { return descriptor(require_ok(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK), "eventfd")); });
  return all;
}

void fire(const std::vector<descriptor>& all) {
  for (const descriptor& one : all) {
    require_ok(::eventfd_write(one.get(), 1), "eventfd_write");
  }
}

// Here, so that all of it is due at once, or beside the hub, which takes in meanwhile.
class firing {
 public:
  firing(const std::vector<descriptor>& all, bool beside) {
    if (beside) {
      other_ = std::jthread([&all] { fire(all); });
    } else {
      fire(all);
    }
  }

 private:
  std::jthread other_;
};

bool took_one(int fd) {
  eventfd_t value = 0;
  return ::eventfd_read(fd, &value) == 0 && value == 1;
}

// --- signals ---

constexpr int signals_in_a_second = 10'000;

// So many signals to this thread, as many a second as that. Of a kind that queues, so each is handled; what
// could not be sent in time follows at once.
class signal_storm {
 public:
  signal_storm(int signal, std::int64_t count)
      : thread_([this, signal, count, to = ::pthread_self()](const std::stop_token& called_off) {
          send(called_off, signal, count, to);
        }) {}
  [[nodiscard]] bool is_over() const { return over_; }

 private:
  void send(const std::stop_token& called_off, int signal, std::int64_t count, pthread_t to) {
    auto due = steady::now();
    for (std::int64_t sent = 0; sent < count && !called_off.stop_requested();) {
      sent += ::pthread_kill(to, signal) == 0 ? 1 : 0;  // EAGAIN: so many are queued
      due += 1'000'000us / signals_in_a_second;
      std::this_thread::sleep_until(due);
    }
    over_ = true;
  }

  std::atomic<bool> over_{false};
  std::jthread thread_;
};

struct counts {
  std::uint64_t waits = 0;
  std::uint64_t early = 0;
  std::uint64_t bytes = 0;
  std::uint64_t wrong = 0;
};

// In a storm, each time as long as is drawn; wait(length) says whether the time was what ended it.
template <class Wait>
void wait_again_and_again(counts& all, const signal_storm& storm, Wait wait) {
  std::mt19937 random(std::random_device{}());
  std::uniform_int_distribution<int> microseconds(0, 5'000);
  while (!storm.is_over()) {
    const std::chrono::microseconds length(microseconds(random));
    const auto begun = steady::now();
    const bool whole = wait(length);
    ++all.waits;
    all.early += whole && steady::now() - begun >= length ? 0 : 1;
  }
}

bool reads_nothing_until(int fd, annulet::deadline until) {
  char byte = 0;
  try {
    (void)annulet::read(fd, annulet::mutable_buffer(&byte, 1), until);
  } catch (const annulet::deadline_passed&) {
    return true;
  }
  return false;
}

// What goes on in a storm, until it is over.
struct crowd {
  annulet::fiber_group& fibers;
  counts& all;
  const signal_storm& storm;

  template <class Wait>
  void waits(Wait wait) {
    fibers.spawn([&all = all, &storm = storm, wait] { wait_again_and_again(all, storm, wait); });
  }
  // Over blocking descriptors.
  template <class By>
  void transfers() {
    ends both = make_ends(kind::unix_stream);
    fibers.spawn([&storm = storm, to = std::move(both.mine)] {
      (void)send_numbered<By>(to.get(), [&storm] { return !storm.is_over(); });
    });
    fibers.spawn([&all = all, from = std::move(both.peer)] {
      const taken_bytes taken = take_numbered<By>(from.get(), [] {});
      all.bytes += taken.count;
      all.wrong += taken.wrong_calls;
    });
  }
};

void live_in_a_storm(int flags) {
  const std::chrono::seconds length(oracle::from_environment("ANNULET_STORM_SECONDS", 1));
  const int signal = SIGRTMIN;
  const int signals = signals_in_a_second * static_cast<int>(length.count());
  const counted_signal handler(signal, flags);
  const hub home;
  const auto silent = make_socket_pair();
  selector nothing;
  nothing.register_(silent.first.get(), io_event::read);
  annulet::event never;
  counts all;
  const auto begun = steady::now();
  {
    const signal_storm storm(signal, signals);
    annulet::scope([&](annulet::fiber_group& fibers) {
      crowd living{fibers, all, storm};
      for (int i = 0; i < 4; ++i) {
        living.waits([](auto time) {
          this_fiber::sleep_for(time);
          return true;
        });
        living.waits([&](auto time) { return !never.wait(annulet::deadline(time)); });
        living.waits(
            [&](auto time) { return reads_nothing_until(silent.first.get(), annulet::deadline(time)); });
        living.transfers<by_annulet>();
        if ((flags & SA_RESTART) != 0) {
          living.transfers<by_drop_ins>();
        }
      }
      living.waits([&](auto time) { return nothing.select(annulet::deadline(time)).empty(); });
    });
  }
  const std::chrono::duration<double> took = steady::now() - begun;
  std::printf("note: %d signals handled, %.0f a second; %llu waits, %llu bytes\n", handler.times(),
              handler.times() / took.count(), static_cast<unsigned long long>(all.waits),
              static_cast<unsigned long long>(all.bytes));
  CHECK(all.early == 0);
  CHECK(all.wrong == 0);
  CHECK(all.bytes > 0);
  if (annulet::detail::built_in != annulet::detail::sanitizer::thread) {
    CHECK(handler.times() == signals);
  }
  if (annulet::detail::built_in == annulet::detail::sanitizer::none) {
    CHECK(took < length + 1s);
  }
}

}  // namespace

TEST_CASE("thousands of descriptors fire at once, and the least room for events loses none") {
  const auto rounds = oracle::from_environment("ANNULET_STORM_ROUNDS", few_rounds);
  const std::size_t count = how_many(rounds);
  if (count == 0) {
    return;
  }
  const narrow_hub home;
  const auto all = make_eventfds(count);
  selector registered;
  for (const descriptor& one : all) {
    registered.register_(one.get(), io_event::read);
  }
  std::uint64_t wrong = 0;
  for (std::uint64_t round = 0; round < rounds; ++round) {
    const firing storm(all, round % 2 == 0);
    std::size_t told = 0;
    while (told < all.size()) {
      const auto ready = registered.select(10s);
      REQUIRE_FALSE(ready.empty());
      for (const auto& [key, events] : ready) {
        wrong += events == io_event::read && took_one(key->fd) ? 0 : 1;
      }
      told += ready.size();
    }
  }
  CHECK(wrong == 0);
  CHECK(registered.select(0ms).empty());
  std::printf("note: %zu descriptors fired %llu times\n", all.size(),
              static_cast<unsigned long long>(rounds));
}

TEST_CASE("thousands of fibers that wait are woken at once, and the least room for events loses none") {
  const auto rounds = oracle::from_environment("ANNULET_STORM_ROUNDS", few_rounds);
  const std::size_t count = how_many(rounds);
  if (count == 0) {
    return;
  }
  const narrow_hub home;
  const auto all = make_eventfds(count);
  std::vector<std::uint64_t> got(all.size());
  annulet::scope([&](annulet::fiber_group& readers) {
    for (std::size_t i = 0; i < all.size(); ++i) {
      readers.spawn([&, i] {
        for (std::uint64_t round = 0; round < rounds; ++round) {
          std::array<char, sizeof(eventfd_t)> value{};
          REQUIRE(annulet::read(all[i].get(), annulet::mutable_buffer(value.data(), value.size())) ==
                  value.size());
          ++got[i];
        }
      });
    }
    this_fiber::yield();
    for (std::uint64_t round = 1; round <= rounds; ++round) {
      const firing storm(all, round % 2 == 0);
      const auto give_up = steady::now() + 30s;
      while (!std::ranges::all_of(got, [round](std::uint64_t each) { return each == round; })) {
        REQUIRE(steady::now() < give_up);
        this_fiber::sleep_for(1ms);
      }
    }
  });
}

TEST_CASE("ten thousand signals a second end no wait early, and no call by EINTR") { live_in_a_storm(0); }

TEST_CASE("nor calls of ported code, where the handler has them begun anew") { live_in_a_storm(SA_RESTART); }
