// Watches where something is scarce: room in the queues, descriptors' numbers, time between two calls.
#include "support/engine.hpp"
#include "support/files.hpp"
#include "support/probe_watch.hpp"

#include <annulet/hub/hub.hpp>
#include <annulet/runtime/fiber.hpp>

#include <doctest/doctest.h>

#include <algorithm>
#include <atomic>
#include <memory>
#include <thread>
#include <vector>

using namespace annulet;
using namespace annulet::test;
using namespace std::chrono_literals;

namespace {

constexpr auto a_while = 3ms;

// An eventfd and its watch, many times.
struct counters {
  explicit counters(std::size_t count) {
    for (std::size_t i = 0; i < count; ++i) {
      fds.push_back(make_eventfd());
      watches.push_back(std::make_unique<probe_watch>(fds.back().get()));
    }
  }
  ~counters() { detach(); }
  counters(const counters&) = delete;
  counters& operator=(const counters&) = delete;

  void want(int mask) {
    for (const auto& watch : watches) {
      watch->want(mask);
    }
  }
  void fire() {
    for (const auto& fd : fds) {
      add_to_eventfd(fd.get());
    }
  }
  // Parks until each was told at least once. How many were not in time.
  std::size_t untold() {
    return static_cast<std::size_t>(
        std::ranges::count_if(watches, [](const auto& watch) { return !watch->told(1); }));
  }
  // How many were told of something else than data.
  [[nodiscard]] std::size_t odd() const {
    return static_cast<std::size_t>(std::ranges::count_if(watches, [](const auto& watch) {
      return std::ranges::any_of(watch->results, [](int result) { return (result & ~POLLIN) != 0; });
    }));
  }
  // All in one batch.
  void detach() {
    std::vector<detail::watch*> attached;
    for (const auto& watch : watches) {
      if (watch->attached()) {
        attached.push_back(watch.get());
      }
    }
    this_hub().detach(attached);
  }

  std::vector<descriptor> fds;
  std::vector<std::unique_ptr<probe_watch>> watches;
};

hub_options narrow(ring_mode mode, unsigned sq, unsigned cq) {
  hub_options options = options_for(mode);
  options.sq_entries = sq;
  options.cq_entries = cq;
  return options;
}

}  // namespace

TEST_CASE("a completion queue that overflows loses no event") {
  // Each watch does as its owners do: told, it asks the descriptor, and says again what it wants.
  for (const ring_mode mode : all_modes) {
    hub hub(narrow(mode, 4, 8));
    counters all(2'000);
    all.want(POLLIN);
    const int rounds = mode == ring_mode::defer_taskrun ? 100 : 25;
    for (int round = 0; round < rounds; ++round) {
      this_hub().io().flush();
      all.fire();
      REQUIRE(all.untold() == 0);
      REQUIRE(all.odd() == 0);
      for (std::size_t i = 0; i < all.fds.size(); ++i) {
        drain(all.fds[i].get());
        all.watches[i]->forget();
        all.watches[i]->want(POLLIN);
      }
    }
  }
}

TEST_CASE("events of another thread that overflow the completion queue are all told") {
  for (const ring_mode mode : all_modes) {
    hub hub(narrow(mode, 1, 2));
    counters all(500);
    all.want(POLLIN);
    std::atomic<int> asked{0};
    std::atomic<bool> stop{false};
    std::thread writer([&] {
      for (int round = 1; !stop; ++round) {
        while (asked < round && !stop) {
          std::this_thread::yield();
        }
        all.fire();
      }
    });
    std::size_t untold = 0;
    for (int round = 0; round < 50 && untold == 0; ++round) {
      ++asked;
      untold = all.untold();
      for (std::size_t i = 0; i < all.fds.size(); ++i) {
        drain(all.fds[i].get());
        all.watches[i]->forget();
        all.watches[i]->want(POLLIN);
      }
      // A write that came between two reads of this round is the next one's event.
      this_fiber::yield();
    }
    stop = true;
    writer.join();
    CHECK(untold == 0);
  }
}

TEST_CASE("5,000 watches are armed, told, changed and let go through a submission queue of one entry") {
  for (const ring_mode mode : all_modes) {
    hub hub(narrow(mode, 1, 2));
    counters all(5'000);
    for (std::size_t i = 0; i < all.fds.size(); i += 2) {
      add_to_eventfd(all.fds[i].get());  // the level of every second one
    }
    all.want(POLLIN);
    this_hub().io().flush();
    for (std::size_t i = 1; i < all.fds.size(); i += 2) {
      add_to_eventfd(all.fds[i].get());  // and an edge of the others
    }
    CHECK(all.untold() == 0);
    CHECK(all.odd() == 0);
    for (const auto& watch : all.watches) {
      watch->forget();
    }
    all.want(POLLOUT);
    CHECK(all.untold() == 0);
    all.detach();
    for (const auto& watch : all.watches) {
      watch->forget();
    }
    all.fire();
    take_in();
    CHECK(std::ranges::all_of(all.watches, [](const auto& watch) { return watch->results.empty(); }));
  }
}

TEST_CASE("nothing is told after the call that let a watch go, though events arrive all the time") {
  for (const ring_mode mode : all_modes) {
    hub hub(options_for(mode));
    constexpr std::size_t count = 16;
    std::vector<descriptor> fds;
    for (std::size_t i = 0; i < count; ++i) {
      fds.push_back(make_eventfd());
    }
    std::atomic<bool> stop{false};
    std::thread writer([&] {
      while (!stop) {
        for (const auto& fd : fds) {
          add_to_eventfd(fd.get());
        }
      }
    });
    pollfd begun{fds.back().get(), POLLIN, 0};
    REQUIRE(::poll(&begun, 1, 10'000) == 1);
    std::size_t told = 0, late = 0;
    for (int round = 0; round < 1'000; ++round) {
      std::vector<std::unique_ptr<probe_watch>> watches;
      std::vector<detail::watch*> pointers;
      for (const auto& fd : fds) {
        watches.push_back(std::make_unique<probe_watch>(fd.get()));
        watches.back()->want(POLLIN);
        pointers.push_back(watches.back().get());
      }
      if (round % 2 == 0) {
        this_hub().io().flush();
      }
      if (round % 3 == 0) {
        this_fiber::yield();
        this_hub().io().look();
      }
      this_hub().io().let_go(pointers);
      for (const auto& watch : watches) {
        told += watch->results.empty() ? 0U : 1U;
        watch->forget();
      }
      take_in();
      this_hub().detach(pointers);
      take_in();
      for (const auto& watch : watches) {
        late += watch->results.size();
      }
    }
    stop = true;
    writer.join();
    CHECK(late == 0);
    CHECK(told > 0);
  }
}

TEST_CASE("a completion that comes after its watch was let go finds nobody, also in the same slot") {
  for (const ring_mode mode : all_modes) {
    hub hub(options_for(mode));
    std::size_t misled = 0;
    for (int round = 0; round < 2'000; ++round) {
      auto old = make_pipe();
      auto fresh = make_pipe();
      auto first = std::make_unique<probe_watch>(old.reader.get());
      first->arm_now(POLLIN);
      send_byte(old.writer.get());  // on its way
      first.reset();
      probe_watch second(fresh.reader.get());  // has the slot of the first
      second.want(POLLIN);
      take_in();
      misled += second.results.size();
      send_byte(fresh.writer.get());
      REQUIRE(second.told(1));
    }
    CHECK(misled == 0);
  }
}

TEST_CASE("a file closed behind the hub's back tells no watch on the number's next owner") {
  for (const ring_mode mode : all_modes) {
    hub hub(options_for(mode));
    std::size_t misled = 0;
    for (int round = 0; round < 500; ++round) {
      auto old = make_socket_pair();
      auto fresh = make_socket_pair();
      probe_watch first(old.first.get());
      first.arm_now(POLLIN);
      // Keeps the old file there, as a request in the ring does by itself.
      descriptor duplicate(on_epoll() ? require_ok(::dup(old.first.get()), "dup") : -1);
      // The number goes over to the fresh socket, with no word to the hub.
      require_ok(::dup2(fresh.first.get(), old.first.get()), "dup2");
      probe_watch second(old.first.get());
      second.arm_now(POLLIN);
      send_byte(old.second.get());
      take_in();
      misled += second.results.size();
      send_byte(fresh.second.get());
      REQUIRE(second.told(1));
      // Letting the first go works by request, and takes nothing from the second.
      first.detach();
      duplicate.close();
      REQUIRE(try_read(old.second.get()) != -EAGAIN);  // its peer is closed now
      second.forget();
      drain(fresh.first.get());
      send_byte(fresh.second.get());
      REQUIRE(second.told(1));
    }
    CHECK(misled == 0);
  }
}

TEST_CASE("watches come and go on one hub without its slots running out of order") {
  hub hub;
  auto pipe = make_pipe();
  for (int round = 0; round < 3'000; ++round) {
    auto a = std::make_unique<probe_watch>(pipe.reader.get());
    auto b = std::make_unique<probe_watch>(pipe.writer.get());
    a->want(POLLIN);
    b->want(POLLOUT);
    REQUIRE(b->told(1));
    REQUIRE(a->results.empty());
    if (round % 2 == 0) {
      a.reset();
    }
    b.reset();
    probe_watch c(pipe.reader.get());
    c.want(POLLIN);
    send_byte(pipe.writer.get());
    REQUIRE(c.told(1));
    drain(pipe.reader.get());
  }
}
