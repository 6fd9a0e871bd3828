// Hubs on several threads, and what passes between their fibers.
//
// ANNULET_MESSAGES says how many messages there are in all.

#include "oracle/run.hpp"

#include <annulet/hub/hub.hpp>
#include <annulet/hub/run_on_all_cores.hpp>
#include <annulet/runtime/fiber_group.hpp>
#include <annulet/runtime/future.hpp>
#include <annulet/runtime/queue.hpp>
#include <annulet/runtime/this_fiber.hpp>

#include <doctest/doctest.h>

#include <array>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <utility>
#include <vector>

using annulet::future;
using annulet::hub_handle;
using annulet::promise;

namespace {

constexpr std::size_t threads = 4;
constexpr std::uint64_t unanswered = 1000;  // a sender waits for an answer to every so manieth message

struct message {
  std::size_t from;
  std::uint64_t number;
  std::optional<promise<std::uint64_t>> answer;
};

// What a thread has for the others: its address, once it is there.
struct station {
  std::optional<hub_handle> address;
  annulet::queue<message> mail;
};

std::array<station, threads> stations;

void send(std::size_t to, message&& m) {
  stations[to].address->post([to, m = std::move(m)]() mutable { stations[to].mail.push(std::move(m)); });
}

// In order, and not faster than they are taken.
void send_all(std::size_t from, std::size_t to, std::uint64_t count) {
  for (std::uint64_t i = 0; i < count; ++i) {
    message m{from, i, std::nullopt};
    future<std::uint64_t> answer;
    if (i % unanswered == 0) {
      answer = m.answer.emplace().get_future();
    }
    send(to, std::move(m));
    if (answer) {
      CHECK(answer.get() == i);
    }
  }
}

void receive_all(std::size_t self, std::uint64_t count) {
  std::array<std::uint64_t, threads> next{};
  for (std::uint64_t left = count * (threads - 1); left != 0; --left) {
    std::optional<message> m = stations[self].mail.pop();
    REQUIRE(m.has_value());
    REQUIRE(m->number == next[m->from]++);
    if (m->answer) {
      m->answer->set_value(m->number);
    }
  }
}

}  // namespace

TEST_CASE("messages between the fibers of four threads, in all directions, come all and in order") {
  const std::uint64_t all = oracle::from_environment("ANNULET_MESSAGES", 100'000);
  const std::uint64_t count = all / (threads * (threads - 1));
  std::atomic<std::size_t> there{0};
  std::atomic<std::size_t> done{0};
  annulet::run_on_all_cores(
      [&](annulet::hub& home, std::size_t self) {
        stations[self].address = home.handle();
        for (++there; there != threads;) {
          annulet::this_fiber::yield();
        }
        annulet::fiber_group fibers;
        for (std::size_t to = 0; to < threads; ++to) {
          if (to != self) {
            fibers.spawn([=] { send_all(self, to, count); });
          }
        }
        receive_all(self, count);
        fibers.get();
        fibers.join();
        CHECK(stations[self].mail.empty());
        for (++done; done != threads;) {  // the others may still post answers
          annulet::this_fiber::sleep_for(std::chrono::milliseconds(1));
        }
      },
      {.count = threads});
  for (station& s : stations) {
    s.address.reset();
  }
}
