#include <annulet/runtime/timer_queue.hpp>

#include <doctest/doctest.h>

#include <algorithm>
#include <cstdint>
#include <iostream>
#include <limits>
#include <memory>
#include <random>
#include <set>
#include <utility>
#include <vector>

using annulet::detail::timer_node;
using annulet::detail::timer_queue;

namespace {

// Writes its number down when it fires, and then does what it was told to.
class alarm_clock : public timer_node {
 public:
  alarm_clock(int number, std::vector<int>& fired) : timer_node(&fire), number_(number), fired_(fired) {}

  timer_queue* queue = nullptr;
  std::vector<alarm_clock*> disarms;                          // when it fires
  std::vector<std::pair<alarm_clock*, std::int64_t>> rearms;  // then

 private:
  static void fire(timer_node& node) noexcept {
    auto& self = static_cast<alarm_clock&>(node);
    self.fired_.push_back(self.number_);
    for (alarm_clock* const other : self.disarms) {
      self.queue->disarm(*other);
    }
    for (const auto& [other, when] : self.rearms) {
      self.queue->arm(*other, when);
    }
  }

  int number_;
  std::vector<int>& fired_;
};

struct fixture {
  timer_queue queue;
  std::vector<int> fired;
  std::vector<std::unique_ptr<alarm_clock>> clocks;

  fixture() { queue.make_room(1000); }

  alarm_clock& make() {
    clocks.push_back(std::make_unique<alarm_clock>(static_cast<int>(clocks.size()), fired));
    clocks.back()->queue = &queue;
    return *clocks.back();
  }
  alarm_clock& armed(std::int64_t when) {
    alarm_clock& made = make();
    queue.arm(made, when);
    return made;
  }
};

}  // namespace

TEST_CASE_FIXTURE(fixture, "timers fire at their time, earliest first, and once") {
  for (const std::int64_t when : {50, 10, 40, 20, 30}) {
    armed(when);
  }
  CHECK(queue.earliest() == 10);
  CHECK(queue.fire_due(9) == 0);
  CHECK(fired.empty());
  CHECK(queue.fire_due(30) == 3);
  CHECK(fired == std::vector{1, 3, 4});
  CHECK(queue.earliest() == 40);
  CHECK(queue.fire_due(1'000) == 2);
  CHECK(fired == std::vector{1, 3, 4, 2, 0});
  CHECK(queue.empty());
  CHECK(queue.fire_due(1'000) == 0);
}

TEST_CASE_FIXTURE(fixture, "equal deadlines fire in the order they were armed") {
  constexpr int many = 1000;
  for (int i = 0; i < many; ++i) {
    armed(7);
    if (i % 3 == 0) {  // others between, some of them taken out again, so that the heap is reshaped
      armed(5);
      queue.disarm(armed(6));
    }
  }
  queue.fire_due(5);
  fired.clear();
  queue.fire_due(7);
  CHECK(fired.size() == many);
  CHECK(std::is_sorted(fired.begin(), fired.end()));
}

TEST_CASE_FIXTURE(fixture, "what is armed again counts as armed last") {
  alarm_clock& a = armed(5);
  armed(5);
  queue.disarm(a);
  queue.arm(a, 5);
  queue.fire_due(5);
  CHECK(fired == std::vector{1, 0});
}

TEST_CASE_FIXTURE(fixture, "the ends of the clock's range are in order too") {
  using limits = std::numeric_limits<std::int64_t>;
  armed(limits::max());
  armed(limits::min());
  armed(0);
  CHECK(queue.earliest() == limits::min());
  CHECK(queue.fire_due(limits::min()) == 1);
  CHECK(queue.fire_due(limits::max() - 1) == 1);
  CHECK(queue.fire_due(limits::max()) == 1);
  CHECK(fired == std::vector{1, 2, 0});
}

TEST_CASE_FIXTURE(fixture, "a disarmed timer does not fire, and to disarm twice does nothing") {
  alarm_clock& a = armed(1);
  alarm_clock& b = armed(2);
  CHECK(a.armed());
  queue.disarm(a);
  CHECK_FALSE(a.armed());
  queue.disarm(a);
  CHECK(queue.earliest() == 2);
  queue.disarm(b);
  CHECK(queue.empty());
  CHECK(queue.fire_due(10) == 0);
}

TEST_CASE_FIXTURE(fixture, "a timer is not armed any more when it fires, and may arm itself for later") {
  alarm_clock& a = armed(1);
  a.rearms.emplace_back(&a, 2);
  CHECK(queue.fire_due(1) == 1);
  CHECK(a.armed());
  CHECK(queue.earliest() == 2);
  a.rearms.clear();
  CHECK(queue.fire_due(2) == 1);
  CHECK(queue.empty());
}

TEST_CASE_FIXTURE(fixture, "a timer that fires may disarm others that are due, which then do not fire") {
  alarm_clock& a = armed(1);
  alarm_clock& b = armed(1);
  alarm_clock& c = armed(2);
  armed(3);
  a.disarms = {&b, &c, &a};
  CHECK(queue.fire_due(10) == 2);
  CHECK(fired == std::vector{0, 3});
}

TEST_CASE_FIXTURE(fixture, "a timer armed by one that fires, and due already, fires in the same go") {
  alarm_clock& a = armed(1);
  armed(5);
  alarm_clock& late = make();
  a.rearms.emplace_back(&late, 4);
  CHECK(queue.fire_due(10) == 3);
  CHECK(fired == std::vector{0, 2, 1});
}

// What the queue is held to: a sorted set.
TEST_CASE_FIXTURE(fixture, "200,000 random steps give what a sorted set gives") {
  const unsigned seed = std::random_device{}();
  std::cout << "note: timer_queue seed " << seed << std::endl;
  std::mt19937_64 random(seed);
  constexpr std::size_t nodes = 400;
  std::vector<std::pair<std::int64_t, std::uint64_t>> key(nodes);  // when, order of arming
  std::set<std::pair<std::pair<std::int64_t, std::uint64_t>, int>> reference;
  for (std::size_t i = 0; i < nodes; ++i) {
    make();
  }
  std::uint64_t order = 0;
  std::int64_t now = 0;
  unsigned wrong = 0;
  std::size_t fired_in_all = 0;
  for (int step = 0; step < 200'000 && wrong == 0; ++step) {
    const auto i = random() % nodes;
    alarm_clock& one = *clocks[i];
    if (one.armed()) {
      queue.disarm(one);
      wrong += reference.erase({key[i], static_cast<int>(i)}) != 1;
    } else {
      const auto span = random() % 4 == 0 ? 4u : 1000u;  // crowds, and far ones
      key[i] = {now + static_cast<std::int64_t>(random() % span), order++};
      queue.arm(one, key[i].first);
      reference.insert({key[i], static_cast<int>(i)});
    }
    if (random() % 16 == 0) {
      now += static_cast<std::int64_t>(random() % 20);
      fired.clear();
      const unsigned count = queue.fire_due(now);
      std::vector<int> expected;
      while (!reference.empty() && reference.begin()->first.first <= now) {
        expected.push_back(reference.begin()->second);
        reference.erase(reference.begin());
      }
      wrong += fired != expected || count != expected.size();
      fired_in_all += count;
    }
    wrong += queue.empty() != reference.empty();
    wrong += !queue.empty() && queue.earliest() != reference.begin()->first.first;
    wrong += one.armed() != (reference.count({key[i], static_cast<int>(i)}) == 1);
  }
  CHECK(wrong == 0);
  CHECK(fired_in_all > 10'000);
}
