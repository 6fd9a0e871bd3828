// A hub on which nothing happens costs nothing, whatever waits on it.

#include "support/cpu_time.hpp"
#include "support/descriptor_limit.hpp"
#include "support/files.hpp"

#include <annulet/hub/hub.hpp>
#include <annulet/runtime/event.hpp>
#include <annulet/runtime/fiber.hpp>
#include <annulet/runtime/this_fiber.hpp>
#include <annulet/selector/selector.hpp>

#include <doctest/doctest.h>

#include <chrono>
#include <cstddef>
#include <cstdio>
#include <utility>
#include <vector>

using namespace annulet::test;
using namespace std::chrono_literals;
using annulet::hub;
using annulet::io_event;
using annulet::selector;
namespace this_fiber = annulet::this_fiber;

namespace {

constexpr std::size_t fibers = 10'000;
constexpr std::size_t hung_up = 1'000;
constexpr auto settles_in = 3s;  // by then idle stacks have been given back
constexpr auto watched_for = 3s;
constexpr auto limit = std::chrono::nanoseconds(watched_for) / 100;  // of CPU time: 1 %

// In all of that time, so that what comes now and then is in it.
template <class Wait>
std::chrono::nanoseconds cpu_in(const Wait& wait) {
  this_fiber::sleep_for(settles_in);
  const auto before = process_cpu();
  wait();
  return process_cpu() - before;
}

// Registered while their peers live, which then go. So all of them are ready for good, and nobody asks.
class hung_up_crowd {
 public:
  hung_up_crowd() {
    allow_descriptors(20'000);
    std::vector<descriptor> peers;
    for (std::size_t i = 0; i < hung_up; ++i) {
      auto [mine, peer] = make_socket_pair();
      registered_.register_(mine.get(), io_event::read | io_event::write);
      mine_.push_back(std::move(mine));
      peers.push_back(std::move(peer));
    }
    CHECK(registered_.select(0ms).size() == hung_up);  // there is room to write
  }

  [[nodiscard]] std::size_t ready() { return registered_.select(1s).size(); }

 private:
  std::vector<descriptor> mine_;
  selector registered_;
};

}  // namespace

TEST_CASE("ten thousand parked fibers, a thousand descriptors in HUP and far timers take no CPU time") {
  hub home;
  hung_up_crowd crowd;
  annulet::event never;
  std::vector<annulet::fiber<void>> parked;
  for (std::size_t i = 0; i < fibers; ++i) {
    parked.push_back(annulet::spawn([&never, i] {
      if (i % 2 == 0) {
        never.wait();
      } else {
        this_fiber::sleep_for(60s + std::chrono::milliseconds(i));
      }
    }));
  }
  this_fiber::yield();
  const auto used = cpu_in([] { this_fiber::sleep_for(watched_for); });
  std::printf("note: idle: %.3f ms of CPU time in %lld s\n",
              std::chrono::duration<double, std::milli>(used).count(),
              static_cast<long long>(watched_for.count()));
  CHECK(used < limit);
  CHECK(crowd.ready() == hung_up);
  for (auto& one : parked) {
    one.kill();
  }
}

TEST_CASE("a select that waits beside a thousand descriptors in HUP on another selector takes no CPU time") {
  hub home;
  hung_up_crowd crowd;
  const auto silent = make_socket_pair();
  selector waiting;
  waiting.register_(silent.first.get(), io_event::read);
  const auto used = cpu_in([&] { CHECK(waiting.select(watched_for).empty()); });
  CHECK(used < limit);
  CHECK(crowd.ready() == hung_up);
}
