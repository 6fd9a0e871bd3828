// What callers do wrong with fibers, and what becomes of errors that nobody collects.
#include <annulet/runtime/fiber.hpp>

#include <annulet/runtime/cancellation.hpp>
#include <annulet/runtime/errors.hpp>
#include <annulet/runtime/event.hpp>
#include <annulet/runtime/this_fiber.hpp>

#include "support/child.hpp"
#include "support/driven_clock.hpp"

#include <doctest/doctest.h>

#include <array>
#include <csignal>
#include <cstddef>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

using annulet::event;
using annulet::fiber;
using annulet::spawn;
using annulet_test::child_end;
using annulet_test::driven;
using annulet_test::in_child;
using annulet_test::stderr_capture;
namespace this_fiber = annulet::this_fiber;
using namespace std::chrono_literals;

namespace {

bool has(const std::string& text, const std::string& words) { return text.find(words) != std::string::npos; }

std::size_t stacks_in_use(driven&) {
  return spawn([] { return annulet::detail::scheduler::current()->running().memory.pool->in_use(); }).get();
}

struct throws_when_copied {
  explicit throws_when_copied(int& n) : alive(&n) { ++*alive; }
  throws_when_copied(const throws_when_copied& other) : alive(other.alive) { throw 5; }
  throws_when_copied& operator=(const throws_when_copied&) = delete;
  ~throws_when_copied() { --*alive; }
  int* alive;
};

}  // namespace

TEST_CASE("an error that nobody collects is told on stderr, with the fiber's name and where it was spawned") {
  driven world;
  const stderr_capture capture;
  spawn([] { throw std::runtime_error("what it said"); }).detach();
  const std::string line = std::to_string(__LINE__ - 1);
  this_fiber::yield();
  CHECK(capture.text() == "annulet: fiber 2 (spawned at " + std::string(__FILE__) + ":" + line +
                              ") ended by an error that nobody collected: what it said\n");
}

TEST_CASE("it is told when the last one who could collect it has gone, also if it was joined") {
  driven world;
  const stderr_capture capture;
  {
    auto f = spawn({.name = "joined"}, [] { throw std::runtime_error("never asked for"); });
    const std::string line = std::to_string(__LINE__ - 1);
    f.join();
    CHECK(capture.text().empty());
    f = {};
    CHECK(has(capture.text(), "\"joined\""));
    CHECK(has(capture.text(), "fiber_misuse_test.cpp:" + line + ")"));
    CHECK(has(capture.text(), "never asked for"));
  }
  const std::string once = capture.text();
  spawn([] { throw 1; }).detach();
  spawn({.name = "late"}, [] {
    const annulet::timeout guard(1ms);
    this_fiber::sleep_for(1s);
  }).detach();
  this_fiber::sleep_for(1s);
  const std::string later = capture.text().substr(once.size());
  CHECK(has(later, "an object of type i"));
  CHECK(has(later, "\"late\""));
  CHECK(has(later, "timeout"));
}

TEST_CASE("values, kills and collected errors are not told on stderr") {
  driven world;
  const stderr_capture capture;
  spawn([] { return 1; }).detach();
  auto killed = spawn([] { this_fiber::sleep_for(1h); });
  auto failed = spawn([] { throw 1; });
  this_fiber::yield();
  killed.kill();
  CHECK_THROWS_AS(failed.get(), int);
  failed = {};
  killed = {};
  this_fiber::yield();
  CHECK(capture.text().empty());
}

TEST_CASE("a fiber that is killed before it began never runs, and its callable is destroyed at its turn") {
  driven world;
  auto token = std::make_shared<int>();
  bool ran = false;
  auto f = spawn([&ran, token] { ran = true; });
  f.kill();
  f.kill();
  CHECK(token.use_count() == 2);
  f.join();
  CHECK_FALSE(ran);
  CHECK(token.use_count() == 1);
  CHECK_THROWS_AS(f.get(), annulet::fiber_failed);
}

TEST_CASE("the callable of a fiber killed before it began may wait in its destructor") {
  const child_end end = in_child([] {
    driven world;
    bool waited = false;
    struct waits {
      explicit waits(bool& w) : waited(&w) {}
      waits(waits&& other) noexcept : waited(std::exchange(other.waited, nullptr)) {}
      waits& operator=(waits&&) = delete;
      ~waits() {
        if (waited != nullptr) {
          this_fiber::sleep_for(1ms);  // as one that joins a fiber of its own does
          *waited = true;
        }
      }
      bool* waited;
    };
    auto f = spawn([w = waits(waited)] {});
    f.kill();
    f.join();
    return waited;
  });
  CAPTURE(end.said);
  CHECK(end.signal == 0);
  CHECK(end.exit == 0);
}

TEST_CASE("the result of a fiber without a handle may wait in its destructor although a kill came too late") {
  const child_end end = in_child([] {
    driven world;
    event go;
    struct waits {
      bool mine = true;
      waits() = default;
      waits(waits&& other) noexcept : mine(std::exchange(other.mine, false)) {}
      waits& operator=(waits&&) = delete;
      ~waits() {
        if (mine) {
          this_fiber::sleep_for(1ms);
        }
      }
    };
    std::optional<fiber<waits>> f;
    f = spawn([&] {
      go.wait();
      f->kill();  // itself; it parks no more
      f.reset();
      return waits();
    });
    this_fiber::yield();
    go.set();
    this_fiber::sleep_for(1s);
    return world.fibers.fibers() == 0;
  });
  CAPTURE(end.said);
  CHECK(end.signal == 0);
  CHECK(end.exit == 0);
}

TEST_CASE("a fiber that kills itself ends at its next park, one that is done is not disturbed") {
  driven world;
  bool went_on = false, came_too_far = false;
  fiber<void> f;
  f = spawn([&] {
    f.kill();
    went_on = true;
    this_fiber::yield();
    came_too_far = true;
  });
  CHECK_THROWS_AS(f.get(), annulet::fiber_failed);
  CHECK(went_on);
  CHECK_FALSE(came_too_far);
  auto done = spawn([] { return 4; });
  done.join();
  done.kill();
  CHECK(done.get() == 4);
}

TEST_CASE("a fiber that would join itself gets std::logic_error") {
  driven world;
  fiber<void> f;
  f = spawn([&] { f.join(); });
  CHECK_THROWS_AS(f.get(), std::logic_error);
}

TEST_CASE("a handle that outlives its scheduler says hub_gone, and the result is destroyed with the handle") {
  std::vector<int> destroyed;
  const auto at_end = [&](int* p) {
    destroyed.push_back(*p);
    delete p;
  };
  using value = std::unique_ptr<int, decltype(at_end)>;
  std::optional<fiber<value>> done, killed;
  {
    driven world;
    done = spawn([&] { return value(new int(7), at_end); });
    done->join();
    killed = spawn([&]() -> value {
      this_fiber::sleep_for(1h);
      return value(nullptr, at_end);
    });
    this_fiber::yield();
  }
  for (auto* const f : {&done, &killed}) {
    CHECK(static_cast<bool>(**f));
    CHECK_THROWS_AS((*f)->join(), annulet::hub_gone);
    CHECK_THROWS_AS((*f)->join(0ms), annulet::hub_gone);
    CHECK_THROWS_AS((void)(*f)->get(), annulet::hub_gone);
    CHECK_THROWS_AS((*f)->kill(), annulet::hub_gone);
    CHECK_THROWS_AS((void)(*f)->done(), annulet::hub_gone);
    CHECK_THROWS_AS((void)(*f)->id(), annulet::hub_gone);
    CHECK_THROWS_AS((void)(*f)->name(), annulet::hub_gone);
    CHECK_THROWS_AS((*f)->detach(), annulet::hub_gone);
  }
  {
    const driven another;
    CHECK_THROWS_AS(done->join(), annulet::hub_gone);
    CHECK(destroyed.empty());
    done.reset();
    CHECK(destroyed == std::vector{7});
  }
  killed.reset();
  CHECK(destroyed == std::vector{7});
}

TEST_CASE("an error in a handle that outlives its scheduler is told when the handle goes") {
  std::optional<fiber<void>> f;
  {
    driven world;
    f = spawn({.name = "outlived"}, [] { throw std::runtime_error("unheard"); });
    f->join();
  }
  const stderr_capture capture;
  f.reset();
  CHECK(has(capture.text(), "\"outlived\""));
  CHECK(has(capture.text(), "unheard"));
}

TEST_CASE("a handle used on another thread says wrong_thread, with a scheduler there or without") {
  driven here;
  auto f = spawn([] { return 6; });
  const auto refused = [&] {
    int count = 0;
    const auto tried = [&](auto&& fn) {
      try {
        fn();
      } catch (const annulet::wrong_thread&) {
        ++count;
      }
    };
    tried([&] { f.join(); });
    tried([&] { (void)f.get(0ms); });
    tried([&] { f.kill(); });
    tried([&] { f.detach(); });
    tried([&] { (void)f.done(); });
    tried([&] { (void)f.id(); });
    tried([&] { (void)f.name(); });
    return count;
  };
  int without = 0, with = 0;
  std::thread other([&] {
    without = refused();
    const driven there;
    with = refused();
  });
  other.join();
  CHECK(without == 7);
  CHECK(with == 7);
  CHECK(f.get() == 6);
}

TEST_CASE("a handle dropped on another thread while its hub lives ends the process with a message") {
  const child_end end = in_child([] {
    driven world;
    auto f = spawn([] {});
    std::thread([&] { const auto mine = std::move(f); }).join();
    return true;
  });
  CHECK(end.signal == SIGABRT);
  CHECK(end.says("another thread"));
}

TEST_CASE("a handle detached while another fiber waits in its get is that fiber's std::logic_error") {
  const child_end end = in_child([] {
    driven world;
    event go;
    auto f = spawn([&] {
      go.wait();
      return std::string("nobody's");
    });
    auto reader = spawn([&] {
      try {
        (void)f.get();
      } catch (const std::logic_error&) {
        return true;
      }
      return false;
    });
    this_fiber::yield();
    f.detach();
    go.set();
    return reader.get();
  });
  CAPTURE(end.said);
  CHECK(end.signal == 0);
  CHECK(end.exit == 0);
}

TEST_CASE("spawn with a stack size out of bounds spawns nothing, and moves nothing out of the arguments") {
  driven world;
  const std::size_t before = stacks_in_use(world);
  for (const std::size_t size :
       {std::size_t{0}, annulet::smallest_stack_size() - 1, annulet::largest_stack_size + 1}) {
    auto kept = std::make_unique<int>(1);
    CHECK_THROWS_AS(spawn(
                        {.stack_size = size}, [](std::unique_ptr<int>) {}, std::move(kept)),
                    std::invalid_argument);
    CHECK(kept != nullptr);
  }
  CHECK(world.fibers.fibers() == 0);
  CHECK(stacks_in_use(world) == before);
}

TEST_CASE(
    "a callable, or a result, too large for the stack is std::invalid_argument, and nothing is leaked") {
  driven world;
  const std::size_t before = stacks_in_use(world);
  using large = std::array<char, 300'000>;
  const auto given = std::make_unique<large>();
  for (int i = 0; i < 3; ++i) {
    CHECK_THROWS_AS(spawn([copy = *given] { return copy[0]; }), std::invalid_argument);
    CHECK_THROWS_AS(spawn([]() -> large { return {}; }), std::invalid_argument);
  }
  CHECK(world.fibers.fibers() == 0);
  CHECK(stacks_in_use(world) == before);
  CHECK(spawn({.stack_size = 2 << 20}, [copy = *given] { return copy[0]; }).get() == 0);
}

TEST_CASE(
    "an argument or callable whose copy throws: it is thrown, nothing was spawned and nothing is leaked") {
  driven world;
  const std::size_t before = stacks_in_use(world);
  int alive = 0;
  auto token = std::make_shared<int>();
  {
    const throws_when_copied bad(alive);
    for (int i = 0; i < 3; ++i) {
      CHECK_THROWS_AS(spawn([token](const throws_when_copied&) {}, bad), int);
      CHECK_THROWS_AS(spawn([](const auto&, const auto&) {}, token, bad), int);
      CHECK_THROWS_AS(spawn([](const auto&, const auto&) {}, bad, token), int);
      CHECK(alive == 1);
    }
  }
  CHECK(token.use_count() == 1);
  CHECK(alive == 0);
  CHECK(world.fibers.fibers() == 0);
  CHECK(stacks_in_use(world) == before);
}

TEST_CASE("a kill does not end the destructor of a callable that has returned") {
  const child_end end = in_child([] {
    driven world;
    bool waited = false;
    struct waits {
      explicit waits(bool& w) : waited(&w) {}
      waits(waits&& other) noexcept : waited(std::exchange(other.waited, nullptr)) {}
      waits& operator=(waits&&) = delete;
      ~waits() {
        if (waited != nullptr) {
          this_fiber::sleep_for(1ms);
          *waited = true;
        }
      }
      bool* waited;
    };
    auto f = spawn([w = waits(waited)] {});
    this_fiber::yield();  // it has returned, and its callable's destructor sleeps
    f.kill();
    f.join();
    return waited;
  });
  CAPTURE(end.said);
  CHECK(end.signal == 0);
  CHECK(end.exit == 0);
}
