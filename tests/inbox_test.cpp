#include <annulet/runtime/inbox.hpp>

#include <doctest/doctest.h>

#include <atomic>
#include <chrono>
#include <cstddef>
#include <memory>
#include <thread>
#include <vector>

using annulet::detail::inbox;
using annulet::detail::posted;

namespace {

std::atomic<int> alive{0};

class letter final : public posted {
 public:
  letter(std::size_t from, int n) : sender(from), number(n) { ++alive; }
  ~letter() override { --alive; }
  void run() override { ++runs; }

  std::size_t sender;
  int number;
  int runs = 0;
};

bool push(inbox& box, std::size_t sender, int number) {
  auto made = std::make_unique<letter>(sender, number);
  if (!box.push(*made)) {
    return false;
  }
  made.release();
  return true;
}

// Takes all there is and gives each to fn.
template <class Fn>
void take(inbox& box, Fn&& fn) {
  for (posted* at = box.take(); at != nullptr;) {
    const std::unique_ptr<letter> owned(static_cast<letter*>(at));
    at = inbox::next(*at);
    fn(*owned);
  }
}

std::vector<int> numbers(inbox& box) {
  std::vector<int> all;
  take(box, [&](letter& l) { all.push_back(l.number); });
  return all;
}

}  // namespace

TEST_CASE("what was pushed is taken whole, oldest first, and once") {
  inbox box;
  CHECK(box.empty());
  CHECK(box.take() == nullptr);
  for (int i = 0; i < 5; ++i) {
    CHECK(push(box, 0, i));
  }
  CHECK_FALSE(box.empty());
  CHECK(numbers(box) == std::vector{0, 1, 2, 3, 4});
  CHECK(box.empty());
  CHECK(box.take() == nullptr);
  CHECK(push(box, 0, 7));
  CHECK(numbers(box) == std::vector{7});
  CHECK(alive == 0);
}

TEST_CASE("a closed inbox takes nothing more in, and what was refused is the caller's still") {
  inbox box;
  box.close();
  letter mine(0, 1);
  CHECK_FALSE(box.push(mine));
  CHECK(mine.number == 1);
  CHECK(box.take() == nullptr);
  box.close();
  CHECK_FALSE(box.push(mine));
}

TEST_CASE("what nobody took when the inbox closes is destroyed without being run") {
  inbox box;
  CHECK(push(box, 0, 1));
  CHECK(push(box, 0, 2));
  CHECK(alive == 2);
  box.close();
  CHECK(alive == 0);
}

TEST_CASE("an inbox that is destroyed destroys what it holds") {
  {
    inbox box;
    CHECK(push(box, 0, 1));
    CHECK(push(box, 0, 2));
  }
  CHECK(alive == 0);
}

TEST_CASE("a closed inbox is empty: nothing in it is worth staying awake for") {
  inbox box;
  CHECK(push(box, 0, 1));
  box.close();
  CHECK(box.empty());
}

TEST_CASE("of many threads that push, all arrives once and each thread's in its order") {
  constexpr std::size_t threads = 8;
  constexpr int each = 20'000;
  inbox box;
  std::vector<std::thread> pushers;
  for (std::size_t t = 0; t < threads; ++t) {
    pushers.emplace_back([&box, t] {
      for (int i = 0; i < each; ++i) {
        if (!push(box, t, i)) {
          return;
        }
      }
    });
  }
  std::vector<int> next(threads, 0);
  std::size_t got = 0, out_of_order = 0;
  const auto limit = std::chrono::steady_clock::now() + std::chrono::seconds(60);
  while (got < threads * each && std::chrono::steady_clock::now() < limit) {
    take(box, [&](const letter& l) {
      out_of_order += next[l.sender]++ != l.number;
      ++got;
    });
    std::this_thread::yield();
  }
  for (std::thread& thread : pushers) {
    thread.join();
  }
  CHECK(got == threads * each);
  CHECK(out_of_order == 0);
  CHECK(box.take() == nullptr);
  CHECK(alive == 0);
}

TEST_CASE(
    "when an inbox closes under threads that push, each item is taken, destroyed or refused: one of them") {
  for (int round = 0; round < 100; ++round) {
    constexpr std::size_t threads = 4;
    inbox box;
    std::atomic<int> pushed{0}, taken{0};
    std::atomic<std::size_t> at_it{0};
    std::vector<std::thread> pushers;
    for (std::size_t t = 0; t < threads; ++t) {
      pushers.emplace_back([&, t] {
        ++at_it;
        for (int i = 0; i < 5'000; ++i) {
          if (!push(box, t, i)) {
            return;
          }
          ++pushed;
        }
      });
    }
    while (at_it < threads || pushed == 0) {
      std::this_thread::yield();
    }
    take(box, [&](const letter&) { ++taken; });
    box.close();
    const int seen = taken;
    for (std::thread& thread : pushers) {
      thread.join();
    }
    REQUIRE(alive == 0);
    REQUIRE(seen >= 1);
    REQUIRE(seen <= pushed);
    CHECK_FALSE(push(box, 0, 0));
  }
}
