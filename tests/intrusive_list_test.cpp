#include <annulet/runtime/intrusive_list.hpp>

#include <doctest/doctest.h>

#include <array>
#include <cstddef>
#include <iostream>
#include <list>
#include <memory>
#include <random>
#include <type_traits>
#include <vector>

using annulet::detail::intrusive_list;
using annulet::detail::list_hook;

namespace {

struct left;
struct right;

struct item : list_hook<left>, list_hook<right> {
  explicit item(int n) : number(n) {}
  int number;
};
using left_list = intrusive_list<item, left>;
using right_list = intrusive_list<item, right>;

list_hook<left>& on_left(item& i) { return i; }
list_hook<right>& on_right(item& i) { return i; }

template <class List>
std::vector<int> numbers(List& list) {
  std::vector<int> all;
  list.for_each([&](item& i) { all.push_back(i.number); });
  return all;
}

}  // namespace

TEST_CASE("members come out in the order they were put in") {
  left_list list;
  CHECK(list.empty());
  item a(1), b(2), c(3);
  list.push_back(a);
  CHECK(&list.front() == &a);
  list.push_back(b);
  list.push_back(c);
  CHECK(numbers(list) == std::vector{1, 2, 3});
  CHECK(&list.pop_front() == &a);
  CHECK_FALSE(on_left(a).linked());
  CHECK(&list.pop_front() == &b);
  CHECK(&list.pop_front() == &c);
  CHECK(list.empty());
}

TEST_CASE("a member leaves from the front, the middle and the end without knowing its list") {
  item a(1), b(2), c(3), d(4);
  left_list list;
  for (item* i : {&a, &b, &c, &d}) {
    list.push_back(*i);
  }
  on_left(b).unlink();
  CHECK(numbers(list) == std::vector{1, 3, 4});
  on_left(d).unlink();
  CHECK(numbers(list) == std::vector{1, 3});
  on_left(a).unlink();
  CHECK(numbers(list) == std::vector{3});
  on_left(c).unlink();
  CHECK(list.empty());
}

TEST_CASE("to leave twice, or without having been on a list, does nothing") {
  item a(1), b(2);
  on_left(a).unlink();
  left_list list;
  list.push_back(a);
  list.push_back(b);
  on_left(a).unlink();
  on_left(a).unlink();
  CHECK(numbers(list) == std::vector{2});
}

TEST_CASE("a member that left can join again, and another list too") {
  item a(1), b(2);
  left_list first, second;
  first.push_back(a);
  first.push_back(b);
  on_left(a).unlink();
  first.push_back(a);
  CHECK(numbers(first) == std::vector{2, 1});
  on_left(b).unlink();
  second.push_back(b);
  CHECK(numbers(first) == std::vector{1});
  CHECK(numbers(second) == std::vector{2});
}

TEST_CASE("a member that is destroyed leaves its list") {
  item a(1), c(3);
  left_list list;
  list.push_back(a);
  {
    item b(2);
    list.push_back(b);
    list.push_back(c);
    CHECK(numbers(list) == std::vector{1, 2, 3});
  }
  CHECK(numbers(list) == std::vector{1, 3});
}

TEST_CASE("a list that is destroyed lets its members go") {
  item a(1), b(2);
  {
    left_list list;
    list.push_back(a);
    list.push_back(b);
  }
  CHECK_FALSE(on_left(a).linked());
  CHECK_FALSE(on_left(b).linked());
  left_list other;
  other.push_back(b);
  CHECK(numbers(other) == std::vector{2});
}

TEST_CASE("an object is on one list for each of its hooks, and they do not know each other") {
  item a(1), b(2);
  left_list l;
  right_list r;
  l.push_back(a);
  l.push_back(b);
  r.push_back(b);
  r.push_back(a);
  CHECK(numbers(l) == std::vector{1, 2});
  CHECK(numbers(r) == std::vector{2, 1});
  on_left(a).unlink();
  CHECK(on_right(a).linked());
  CHECK(numbers(r) == std::vector{2, 1});
}

TEST_CASE("for_each may unlink the member it is at") {
  item a(1), b(2), c(3);
  left_list list;
  for (item* i : {&a, &b, &c}) {
    list.push_back(*i);
  }
  int seen = 0;
  list.for_each([&](item& i) {
    ++seen;
    on_left(i).unlink();
  });
  CHECK(seen == 3);
  CHECK(list.empty());
}

TEST_CASE("hooks and lists are neither copied nor moved, for others point at them") {
  CHECK_FALSE(std::is_copy_constructible_v<list_hook<>>);
  CHECK_FALSE(std::is_move_constructible_v<list_hook<>>);
  CHECK_FALSE(std::is_move_assignable_v<list_hook<>>);
  CHECK_FALSE(std::is_copy_constructible_v<left_list>);
  CHECK_FALSE(std::is_move_constructible_v<left_list>);
}

TEST_CASE("100,000 random steps leave three lists as the standard's list would be") {
  const unsigned seed = std::random_device{}();
  std::cout << "note: intrusive_list seed " << seed << std::endl;
  std::mt19937 random(seed);
  constexpr std::size_t members = 50, lists = 3;
  std::vector<std::unique_ptr<item>> items;
  for (std::size_t i = 0; i < members; ++i) {
    items.push_back(std::make_unique<item>(static_cast<int>(i)));
  }
  std::array<left_list, lists> ours;
  std::array<std::list<int>, lists> reference;
  bool equal = true;
  for (int step = 0; step < 100'000 && equal; ++step) {
    item& one = *items[random() % members];
    const std::size_t which = random() % lists;
    if (on_left(one).linked()) {
      on_left(one).unlink();
      for (auto& list : reference) {
        list.remove(one.number);
      }
    } else {
      ours[which].push_back(one);
      reference[which].push_back(one.number);
    }
    if (random() % 8 == 0 && !ours[which].empty()) {
      equal = equal && ours[which].pop_front().number == reference[which].front();
      reference[which].pop_front();
    }
    for (std::size_t i = 0; i < lists && equal; ++i) {
      equal = numbers(ours[i]) == std::vector<int>(reference[i].begin(), reference[i].end());
    }
  }
  CHECK(equal);
}
