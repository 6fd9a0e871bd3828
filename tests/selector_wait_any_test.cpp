// A selector as one of several things that a fiber waits for.
#include "support/cancelled.hpp"
#include "support/selecting.hpp"
#include "support/texts.hpp"

#include <annulet/hub/hub.hpp>
#include <annulet/runtime/event.hpp>
#include <annulet/runtime/fiber.hpp>
#include <annulet/runtime/queue.hpp>
#include <annulet/runtime/wait_any.hpp>
#include <annulet/selector/selector.hpp>

#include <doctest/doctest.h>

#include <functional>
#include <optional>
#include <thread>
#include <utility>

using namespace annulet::test;
using namespace std::chrono_literals;
using annulet::event;
using annulet::hub;
using annulet::io_event;
using annulet::selector;
using annulet::spawn;
using annulet::wait_any;
using annulet_test::killed_in;

namespace {

// Stands between two others and never has anything; what it does when it is asked happens between their
// looks.
class between final : public annulet::detail::wait_case {
 public:
  std::function<void()> when_taken = [] {};
  std::function<void()> when_told = [] {};

  bool take() override {
    return std::exchange(when_taken, [] {})(), false;
  }
  void enlist(annulet::detail::waiter&) override {}
  [[nodiscard]] const annulet::detail::wait_place* place() const noexcept override { return nullptr; }
  [[nodiscard]] bool hears_hints() const noexcept override { return true; }
  bool was_told() override {
    return std::exchange(when_told, [] {})(), false;
  }
  void leave() noexcept override {}
};

}  // namespace

TEST_CASE("what one selector's look takes in for another, that was asked before, is not missed") {
  hub home;
  selector a, b;
  const socket_pair first = make_socket_pair(), second = make_socket_pair();
  const int fd_a = first.first.get(), fd_b = second.first.get();
  a.register_(fd_a, io_event::read);
  b.register_(fd_b, io_event::read);
  CHECK_FALSE(wait_any(2ms, a, b).has_value());  // both are armed
  between asked;
  SUBCASE("before it parks") {
    asked.when_taken = [&] { send_byte(first.second.get()); };
    CHECK(wait_any(limit, a, asked, b) == 0u);
  }
  SUBCASE("when it looks after a hint") {
    asked.when_told = [&] { send_byte(first.second.get()); };
    auto waits = spawn([&] { return wait_any(limit, a, asked, b); });
    annulet::this_fiber::yield();
    b.modify(fd_b, both), b.modify(fd_b, io_event::read);  // a hint
    CHECK(waits.get() == 0u);
  }
  CHECK(look(a).size() == 1);
}

namespace {

// Hints again and again, as a descriptor does on which much happens that others have consumed by then.
class restless final : public annulet::detail::wait_case {
 public:
  unsigned looks = 0;

  bool take() override { return false; }
  void enlist(annulet::detail::waiter& w) override {
    w.stand_in(place_.emplace(w, true));
    hint();
  }
  [[nodiscard]] const annulet::detail::wait_place* place() const noexcept override {
    return place_ ? &*place_ : nullptr;
  }
  [[nodiscard]] bool hears_hints() const noexcept override { return true; }
  bool was_told() override {
    ++looks;
    hint();
    return false;
  }
  void leave() noexcept override { place_.reset(); }
  [[nodiscard]] bool is_outside() const noexcept override { return true; }

 private:
  void hint() noexcept { place_->wake(annulet::detail::wake_reason::ready); }

  std::optional<annulet::detail::wait_place> place_;
};

}  // namespace

TEST_CASE("hints that never cease and come to nothing hold up neither others, nor a kill, nor the deadline") {
  annulet::queue<int> items(1);
  annulet::popping item(items);
  restless hints;
  hub home;  // at whose end there is one that waits for them
  auto waits = spawn([&] { return wait_any(annulet::deadline::never(), hints, item); });
  annulet::this_fiber::sleep_for(2ms);  // and main's turn comes
  CHECK_FALSE(waits.done());
  CHECK(hints.looks > 0);
  SUBCASE("what it waits for") {
    items.push(1);
    CHECK(waits.get() == 1u);
  }
  SUBCASE("a kill") {
    auto killed = spawn([&] {
      restless others;
      return killed_in([&] { (void)wait_any(annulet::deadline::never(), others); });
    });
    annulet::this_fiber::yield();
    killed.kill();
    CHECK(killed.get());
    waits.kill();
    CHECK(waits.join(limit));
  }
  SUBCASE("the deadline") {
    restless others;
    CHECK_FALSE(wait_any(3ms, others).has_value());
    waits.kill();
  }
}

TEST_CASE("a selector with something to report is chosen, and reports it when it is asked") {
  hub home;
  selector sel;
  event flag;
  const socket_pair pair = make_socket_pair();
  const int fd = pair.first.get();
  sel.register_(fd, io_event::read);
  CHECK_FALSE(wait_any(0ms, flag, sel).has_value());
  CHECK_FALSE(wait_any(2ms, flag, sel).has_value());
  send_byte(pair.second.get());
  CHECK(wait_any(0ms, flag, sel) == 1u);
  CHECK(wait_any(limit, flag, sel) == 1u);
  CHECK(look(sel).size() == 1);
  drain(fd);
  auto waits = spawn([&] { return wait_any(limit, flag, sel); });
  annulet::this_fiber::sleep_for(1ms);
  CHECK_FALSE(waits.done());
  send_byte(pair.second.get());
  CHECK(waits.get() == 1u);
  CHECK(look(sel).size() == 1);
}

TEST_CASE("two selectors and a queue: who is first, and the others stay as they were") {
  hub home;
  selector a;
  selector b;
  annulet::queue<int> items(1);
  annulet::popping item(items);
  const socket_pair of_a = make_socket_pair();
  const socket_pair of_b = make_socket_pair();
  a.register_(of_a.first.get(), io_event::read);
  b.register_(of_b.first.get(), io_event::read);
  auto waits = spawn([&] { return wait_any(limit, a, item, b); });
  annulet::this_fiber::sleep_for(1ms);
  send_byte(of_b.second.get());
  CHECK(waits.get() == 2u);
  items.push(5);
  CHECK(wait_any(limit, a, item) == 1u);
  CHECK(item.item() == 5);
  CHECK(look(a).empty());
  CHECK(look(b).size() == 1);
}

TEST_CASE("a readiness that was consumed before the fiber runs is no choice") {
  hub home;
  selector sel;
  event flag;
  const socket_pair pair = make_socket_pair();
  const int fd = pair.first.get();
  sel.register_(fd, io_event::read);
  auto waits = spawn([&] { return wait_any(limit, sel, flag); });
  annulet::this_fiber::yield();
  for (int i = 0; i < 20; ++i) {
    send_byte(pair.second.get());
    if (i % 2 == 0) {
      sel.modify(fd, both), sel.modify(fd, io_event::read);  // wakes it without a word from the kernel
    } else {
      annulet::this_fiber::sleep_for(100us);
      break;  // it may have been chosen
    }
    drain(fd);
    annulet::this_fiber::yield();
    CHECK_FALSE(waits.done());
  }
  CHECK(waits.get() == 0u);
}

TEST_CASE(
    "a wait on a selector can be killed, and ends where that is closed; the selector is whole after it") {
  hub home;
  std::optional<selector> sel(std::in_place);
  event flag;
  const socket_pair pair = make_socket_pair();
  sel->register_(pair.first.get(), io_event::read);
  auto killed = spawn([&] { return killed_in([&] { (void)wait_any(limit, flag, *sel); }); });
  annulet::this_fiber::yield();
  CHECK_THROWS_AS((void)sel->select(limit), std::logic_error);
  CHECK_THROWS_AS((void)wait_any(limit, *sel), std::logic_error);
  killed.kill();
  CHECK(killed.get());
  send_byte(pair.second.get());
  CHECK(sel->select(limit).size() == 1);
  drain(pair.first.get());
  auto closed = spawn(
      [&] { CHECK_THROWS_WITH((void)wait_any(limit, flag, *sel), doctest::Contains("selector is closed")); });
  annulet::this_fiber::yield();
  sel.reset();
  closed.get();
}

TEST_CASE("a fiber that waits for a selector can be woken from outside, so it is no deadlock") {
  hub home;
  selector sel;
  event flag;
  const socket_pair pair = make_socket_pair();
  sel.register_(pair.first.get(), io_event::read);
  std::thread other([&] { send_byte(pair.second.get()); });
  CHECK(wait_any(annulet::deadline::never(), flag, sel) == 1u);
  other.join();
}

TEST_CASE("a hint that comes to nothing leaves the fiber in its lines, in its place") {
  hub home;
  selector sel;
  annulet::queue<int> items(1);
  const socket_pair pair = make_socket_pair();
  const int fd = pair.first.get();
  sel.register_(fd, io_event::read);
  annulet::popping item(items);
  auto first = spawn([&] { return wait_any(limit, sel, item); });
  annulet::this_fiber::yield();
  auto second = spawn([&] { return items.pop(); });
  annulet::this_fiber::yield();
  sel.modify(fd, both), sel.modify(fd, io_event::read);  // a hint
  annulet::this_fiber::yield();
  CHECK_FALSE(first.done());
  items.push(1);
  CHECK(first.get() == 1u);
  CHECK(item.item() == 1);
  items.push(2);
  CHECK(second.get() == 2);
}

TEST_CASE("between a hint and the fiber's run it is woken, killed, late and closed on as ever") {
  hub home;
  selector sel;
  const socket_pair pair = make_socket_pair();
  const int fd = pair.first.get();
  sel.register_(fd, io_event::read);
  const auto hint = [&] { sel.modify(fd, both), sel.modify(fd, io_event::read); };
  std::optional<event> flag(std::in_place);
  auto destroyed = spawn([&] { CHECK_THROWS_AS((void)wait_any(limit, sel, *flag), std::logic_error); });
  annulet::this_fiber::yield();
  hint();
  flag.reset();
  destroyed.get();
  flag.emplace();
  auto woken = spawn([&] { return wait_any(limit, sel, *flag); });
  annulet::this_fiber::yield();
  hint();
  flag->set();
  hint();
  CHECK(woken.get() == 1u);
  flag->clear();
  auto killed = spawn([&] { return killed_in([&] { (void)wait_any(limit, sel, *flag); }); });
  annulet::this_fiber::yield();
  hint();
  killed.kill();
  CHECK(killed.get());
  auto late = spawn([&] { return wait_any(2ms, sel, *flag); });
  annulet::this_fiber::yield();
  hint();
  annulet::this_fiber::yield();
  CHECK_FALSE(late.get().has_value());
  CHECK(look(sel).empty());
}

TEST_CASE("only what lasts can be waited for with others") {
  static_assert(!annulet::detail::can_be_waited_for_with_others<selector>);
  static_assert(!annulet::detail::can_be_waited_for_with_others<annulet::semaphore>);
  static_assert(annulet::detail::can_be_waited_for_with_others<event>);
  CHECK(annulet::detail::can_be_waited_for<selector>);
}
