// Spawning, joining, results, handles.
#include <annulet/runtime/fiber.hpp>

#include <annulet/runtime/cancellation.hpp>
#include <annulet/runtime/errors.hpp>
#include <annulet/runtime/event.hpp>
#include <annulet/runtime/this_fiber.hpp>

#include "support/driven_clock.hpp"

#include <doctest/doctest.h>

#include <array>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <system_error>
#include <tuple>
#include <type_traits>
#include <utility>
#include <vector>

using annulet::event;
using annulet::fiber;
using annulet::fiber_failed;
using annulet::spawn;
using annulet_test::driven;
namespace this_fiber = annulet::this_fiber;
using namespace std::chrono_literals;

namespace {

int add(int a, int b) { return a + b; }

struct counted {
  explicit counted(int& n) : alive(&n) { ++*alive; }
  counted(const counted& other) : alive(other.alive) { ++*alive; }
  counted(counted&& other) noexcept : alive(other.alive) { ++*alive; }
  counted& operator=(const counted&) = delete;
  ~counted() { --*alive; }
  int* alive;
};

// Writes down which fiber destroyed it, unless it was moved from.
struct teller {
  explicit teller(std::vector<std::uint64_t>& l) : list(&l) {}
  teller(teller&& other) noexcept : list(std::exchange(other.list, nullptr)) {}
  teller& operator=(teller&&) = delete;
  ~teller() {
    if (list != nullptr) {
      list->push_back(this_fiber::id());
    }
  }
  std::vector<std::uint64_t>* list;
};

}  // namespace

TEST_CASE("who joins fibers that have ended again and again lets others run, and can be killed") {
  driven world;
  auto ended = spawn([] {});
  ended.join();
  bool ran = false;
  auto joins = spawn([&] {
    spawn([&] { ran = true; }).detach();
    for (int i = 0; i < 1'000'000 && !ran; ++i) {
      ended.join();
    }
    CHECK(ran);
    this_fiber::yield();
    for (;;) {
      ended.join();
    }
  });
  this_fiber::yield();
  this_fiber::yield();
  joins.kill();
  CHECK(joins.join(1h));
}

TEST_CASE("spawn takes functions, lambdas, members and arguments, and get gives the value back") {
  driven world;
  CHECK(spawn(add, 2, 3).get() == 5);
  CHECK(spawn(&add, 2, 3).get() == 5);
  CHECK(spawn([](const std::string& s) { return s + "!"; }, "text").get() == "text!");
  const std::string text = "four";
  CHECK(spawn(&std::string::size, text).get() == 4);
  CHECK(spawn(&std::string::size, &text).get() == 4);
  CHECK(spawn([](int a, int b, int c, int d) { return a + b + c + d; }, 1, 2, 3, 4).get() == 10);
  CHECK(spawn(
            {.name = "six"}, [](auto... n) { return (n + ...); }, 1, 2, 3, 4, 5, 6)
            .get() == 21);
  CHECK(spawn([](std::tuple<int> t) { return std::get<0>(t); }, std::tuple<int>(9)).get() == 9);
  const std::function<int()> function = [] { return 8; };
  CHECK(spawn(function).get() == 8);
  const annulet::spawn_options options{.name = "kept"};
  CHECK(spawn(options, [] { return this_fiber::name() == "kept"; }).get());
}

TEST_CASE("arguments are copied or moved in when spawn is called, and std::ref passes them by reference") {
  driven world;
  int number = 1;
  auto copied = spawn([](int n) { return n; }, number);
  auto referred = spawn([](int& n) { return ++n; }, std::ref(number));
  number = 10;
  CHECK(copied.get() == 1);
  CHECK(referred.get() == 11);
  CHECK(number == 11);
}

TEST_CASE("callables, arguments and results may be move-only") {
  driven world;
  auto held = std::make_unique<int>(4);
  auto f = spawn([mine = std::make_unique<int>(3)](
                     std::unique_ptr<int> given) { return std::make_unique<int>(*mine + *given); },
                 std::move(held));
  CHECK(held == nullptr);
  const std::unique_ptr<int> result = f.get();
  CHECK(*result == 7);
}

TEST_CASE("a result may be a reference, void, or a type without default constructor or assignment") {
  driven world;
  static int there = 5;
  auto reference = spawn([]() -> int& { return there; });
  static_assert(std::is_same_v<decltype(reference), fiber<int&>>);
  CHECK(&reference.get() == &there);
  auto constant = spawn([]() -> const int& { return there; });
  CHECK(&constant.get() == &there);
  auto nothing = spawn([] {});
  static_assert(std::is_void_v<decltype(nothing.get())>);
  nothing.get();
  struct awkward {
    explicit awkward(int n) : number(n) {}
    const int number;
  };
  CHECK(spawn([] { return awkward(6); }).get().number == 6);
}

TEST_CASE("a callable and a result that ask for more alignment than usual get it") {
  driven world;
  struct alignas(256) wide {
    std::array<char, 300> bytes{};
  };
  const wide given;
  auto f = spawn([given] {
    const bool right = reinterpret_cast<std::uintptr_t>(&given) % 256 == 0;
    return std::pair(right, wide{});
  });
  CHECK(f.get().first);
}

TEST_CASE("an rvalue callable is called as one") {
  driven world;
  struct once {
    int operator()() && { return 1; }
    int operator()() & { return 2; }
  };
  CHECK(spawn(once{}).get() == 1);
}

TEST_CASE("join waits for the end, gives its verdict at the deadline, and throws nothing of the body's") {
  driven world;
  auto f = spawn([] {
    this_fiber::sleep_for(10ms);
    throw 1;
  });
  CHECK_FALSE(f.join(0ms));
  CHECK_FALSE(f.join(4ms));
  CHECK(world.clock.since_start() == 4ms);
  CHECK_FALSE(f.done());
  CHECK(f.join(10ms));
  CHECK(world.clock.since_start() == 10ms);
  CHECK(f.done());
  f.join();
  CHECK(f.join(0ms));
  CHECK_THROWS_AS(f.get(), int);
}

TEST_CASE("a join that the end has answered is true though its deadline passes before it runs") {
  driven world;
  auto f = spawn([&] { world.clock.advance(1h); });
  CHECK(f.join(1ms));
}

TEST_CASE("many fibers may join one, and wake in the order they came") {
  driven world;
  auto one = spawn([] { this_fiber::sleep_for(1ms); });
  std::string woken;
  std::vector<fiber<void>> all;
  for (const char name : {'a', 'b', 'c'}) {
    all.push_back(spawn([&, name] {
      one.join();
      woken += name;
    }));
  }
  for (auto& f : all) {
    f.join();
  }
  CHECK(woken == "abc");
}

TEST_CASE("get with a deadline that comes first is std::system_error timed_out, and can be tried again") {
  driven world;
  auto f = spawn([] {
    this_fiber::sleep_for(10ms);
    return 3;
  });
  for (const annulet::deadline until : {annulet::deadline(0ms), annulet::deadline(1ms)}) {
    try {
      (void)f.get(until);
      FAIL("it was not done");
    } catch (const std::system_error& e) {
      CHECK(e.code() == std::errc::timed_out);
    }
  }
  CHECK(f.get(1h) == 3);
}

TEST_CASE("a value can be got once, an error as often as one likes") {
  driven world;
  auto value = spawn([] { return std::string("once"); });
  CHECK(value.get() == "once");
  CHECK_THROWS_AS((void)value.get(), std::logic_error);
  CHECK(value.done());
  auto error = spawn([]() -> int { throw std::runtime_error("again"); });
  for (int i = 0; i < 3; ++i) {
    CHECK_THROWS_WITH_AS((void)error.get(), "again", std::runtime_error);
  }
}

TEST_CASE("of a fiber that was killed, or let a timeout escape, get throws fiber_failed that names it") {
  driven world;
  const auto failure = [](auto& f) -> std::string {
    try {
      f.get();
    } catch (const fiber_failed& e) {
      return e.what();
    }
    return "";
  };
  auto killed = spawn({.name = "victim"}, [] { this_fiber::sleep_for(1h); });
  auto late = spawn({.name = "latecomer"}, [] {
    const annulet::timeout guard(1ms);
    this_fiber::sleep_for(1h);
  });
  this_fiber::yield();
  killed.kill();
  for (int i = 0; i < 2; ++i) {
    CHECK(failure(killed).find("\"victim\"") != std::string::npos);
    CHECK(failure(killed).find("killed") != std::string::npos);
    CHECK(failure(late).find("\"latecomer\"") != std::string::npos);
    CHECK(failure(late).find("timeout") != std::string::npos);
  }
}

TEST_CASE("a child that lets the failure of its own child pass has an error of its own") {
  driven world;
  auto parent = spawn([] {
    auto child = spawn([] { this_fiber::sleep_for(1h); });
    this_fiber::yield();
    child.kill();
    child.get();
  });
  CHECK_THROWS_AS(parent.get(), fiber_failed);
}

TEST_CASE("fibers are numbered in order of spawning and know their number and name") {
  driven world;
  auto a = spawn({.name = "a"}, [] { return std::pair(this_fiber::id(), std::string(this_fiber::name())); });
  auto b = spawn([] { return this_fiber::name().empty(); });
  CHECK(a.id() == 2);
  CHECK(b.id() == 3);
  CHECK(a.name() == "a");
  CHECK(b.name().empty());
  CHECK(a.get() == std::pair(std::uint64_t{2}, std::string("a")));
  CHECK(b.get());
  CHECK(a.id() == 2);
  auto longer = spawn({.name = "0123456789012345678901234567890123"}, [] {});
  CHECK(longer.name() == "0123456789012345678901234567890");
}

TEST_CASE("a name is copied: what spawn was given may go") {
  driven world;
  auto name = std::make_unique<std::string>("short-lived");
  auto f = spawn({.name = *name}, [] {});
  name.reset();
  CHECK(f.name() == "short-lived");
}

TEST_CASE("a dropped handle, a detached fiber and an overwritten handle leave the fiber running") {
  driven world;
  int ran = 0;
  {
    const auto dropped = spawn([&] { ++ran; });
    auto detached = spawn([&] { ++ran; });
    detached.detach();
    CHECK_FALSE(static_cast<bool>(detached));
    auto overwritten = spawn([&] { ++ran; });
    overwritten = spawn([&] { ++ran; });
  }
  CHECK(world.fibers.fibers() == 4);
  this_fiber::yield();
  CHECK(ran == 4);
  CHECK(world.fibers.fibers() == 0);
}

TEST_CASE("a handle is moved, not copied, and an empty one says so at each call") {
  driven world;
  static_assert(!std::is_copy_constructible_v<fiber<int>> && !std::is_copy_assignable_v<fiber<int>>);
  static_assert(std::is_nothrow_move_constructible_v<fiber<int>>);
  auto f = spawn([] { return 1; });
  auto g = std::move(f);
  fiber<int> none;
  for (fiber<int>* const empty : {&f, &none}) {
    CHECK_FALSE(static_cast<bool>(*empty));
    CHECK_THROWS_AS(empty->join(), std::logic_error);
    CHECK_THROWS_AS(empty->join(1ms), std::logic_error);
    CHECK_THROWS_AS((void)empty->get(), std::logic_error);
    CHECK_THROWS_AS(empty->kill(), std::logic_error);
    CHECK_THROWS_AS(empty->detach(), std::logic_error);
    CHECK_THROWS_AS((void)empty->done(), std::logic_error);
    CHECK_THROWS_AS((void)empty->id(), std::logic_error);
    CHECK_THROWS_AS((void)empty->name(), std::logic_error);
  }
  auto& same = g;
  g = std::move(same);
  CHECK(g.get() == 1);
}

TEST_CASE("a callable is destroyed when its fiber ends, on that fiber, and not when the handle goes") {
  driven world;
  std::vector<std::uint64_t> destroyed;
  auto f = spawn([tells = teller(destroyed)] { this_fiber::yield(); });
  this_fiber::yield();
  CHECK(destroyed.empty());
  f.join();
  CHECK(destroyed == std::vector{f.id()});
}

TEST_CASE("a result is destroyed once: by its fiber where nobody holds a handle, else when the handle goes") {
  driven world;
  std::vector<std::uint64_t> destroyed;
  const auto body = [&] { return teller(destroyed); };
  {
    auto dropped = spawn(body);
    const auto id = dropped.id();
    dropped.detach();
    this_fiber::yield();
    CHECK(destroyed == std::vector{id});
  }
  destroyed.clear();
  {
    auto kept = spawn(body);
    kept.join();
    CHECK(destroyed.empty());
  }
  CHECK(destroyed == std::vector<std::uint64_t>{1});
  destroyed.clear();
  {
    auto got = spawn(body);
    const teller mine = got.get();
    CHECK(destroyed.empty());
  }
  CHECK(destroyed == std::vector<std::uint64_t>{1});
}

TEST_CASE("callable, arguments and result: what is made is destroyed, however the fiber ends") {
  driven world;
  int alive = 0;
  {
    auto value = spawn([c = counted(alive)](counted given) { return given; }, counted(alive));
    value.join();
    auto error = spawn([c = counted(alive)](const counted&) -> counted { throw 1; }, counted(alive));
    error.join();
    CHECK_THROWS_AS((void)error.get(), int);
    auto killed = spawn([c = counted(alive)](const counted&) { this_fiber::sleep_for(1h); }, counted(alive));
    this_fiber::yield();
    killed.kill();
    killed.join();
    auto never_ran = spawn([c = counted(alive)](const counted&) {}, counted(alive));
    never_ran.kill();
    never_ran.join();
    CHECK(alive == 1);  // the value
  }
  CHECK(alive == 0);
}
