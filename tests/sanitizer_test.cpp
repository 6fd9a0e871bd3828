// What the sanitizers know of fibers: ./dev tsan sanitizer, and ./dev asan sanitizer. Without one the first
// half is a test like others, and the second is left out.
//
// Each report of a sanitizer makes the program fail, so the cases about what is no error check little
// themselves.
#include "support/child.hpp"

#include <annulet/hub/close.hpp>
#include <annulet/hub/hub.hpp>
#include <annulet/hub/io.hpp>
#include <annulet/runtime/event.hpp>
#include <annulet/runtime/fiber.hpp>
#include <annulet/runtime/sanitizer.hpp>

#include <doctest/doctest.h>

#include <array>
#include <atomic>
#include <cstdio>
#include <functional>
#include <future>
#include <memory>
#include <span>
#include <stdexcept>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

using namespace annulet;
using annulet_test::in_child;
using detail::built_in;
using detail::sanitizer;
using namespace std::chrono_literals;

extern "C" {
void __sanitizer_set_report_path(const char* path);
int __lsan_do_recoverable_leak_check();
}

namespace {

// The second hub, on a thread of its own, which serves until it is told not to.
class neighbour {
 public:
  neighbour() {
    std::promise<hub_handle> ready;
    auto handle = ready.get_future();
    thread_ = std::thread([this, &ready] {
      hub hub;
      ready.set_value(hub.handle());
      (void)over_.wait();
    });
    handle_ = std::make_unique<hub_handle>(handle.get());
  }
  ~neighbour() {
    handle_->post([this] { over_.set(); });
    thread_.join();
  }
  neighbour(const neighbour&) = delete;
  neighbour& operator=(const neighbour&) = delete;

  [[nodiscard]] const hub_handle& handle() const { return *handle_; }

 private:
  event over_;
  std::unique_ptr<hub_handle> handle_;
  std::thread thread_;
};

// In a child whose reports go to its stderr, wherever others go.
template <class Fn>
annulet_test::child_end in_reporting_child(Fn fn) {
  return in_child([&] {
    if constexpr (built_in != sanitizer::none) {
      __sanitizer_set_report_path("stderr");
    }
    return fn();
  });
}

// Touches so many frames, whole. Returns how many.
template <std::size_t Size>
[[gnu::noinline]] std::size_t fill_stack(std::size_t frames) {
  std::array<volatile char, Size> room;
  for (auto& c : room) {
    c = 1;
  }
  return frames == 1 ? 1 : fill_stack<Size>(frames - 1) + static_cast<std::size_t>(room[frames]);
}

bool leaks() {
  if constexpr (built_in == sanitizer::address) {
    return __lsan_do_recoverable_leak_check() != 0;
  }
  return false;
}

bool left_out(sanitizer needed, const char* words) {
  if (built_in != needed) {
    std::printf("note: skipped: built without the %s sanitizer\n", words);
  }
  return built_in != needed;
}

}  // namespace

TEST_CASE("what two hubs hand each other by posts is no race") {
  hub hub;
  constexpr int rounds = 2'000;
  struct ball {
    std::string text;
    int hops = 0;
  };
  std::vector<int> seen;  // of this thread
  event done;
  neighbour other;
  const hub_handle here = hub.handle();
  std::function<void(std::unique_ptr<ball>)> to_here;
  const auto to_there = [&](std::unique_ptr<ball> b) {
    other.handle().post([&, b = std::move(b)]() mutable {
      this_fiber::yield();
      b->text += 'a';
      ++b->hops;
      to_here(std::move(b));
    });
  };
  to_here = [&](std::unique_ptr<ball> b) {
    here.post([&, b = std::move(b)]() mutable {
      seen.push_back(++b->hops);
      if (b->hops == rounds) {
        done.set();
      } else {
        to_there(std::move(b));
      }
    });
  };
  to_there(std::make_unique<ball>());
  REQUIRE(done.wait(60s));
  CHECK(seen.size() == rounds / 2);
}

TEST_CASE("what a write announces to a fiber of another hub's is no race") {
  hub hub;
  std::array<int, 2> ends{};
  REQUIRE(::socketpair(AF_UNIX, SOCK_STREAM, 0, ends.data()) == 0);
  int value = 0;
  neighbour other;
  const auto turn = [&value](int fd, int first) {
    for (int expected = first; expected < 200; expected += 2) {
      char token = 0;
      if (expected != 0 && read_exactly(fd, std::span(&token, 1)) != 1) {
        return;
      }
      value += value == expected ? 1 : 1000;
      write_all(fd, std::span(&token, 1));
    }
  };
  std::atomic<bool> failed{false};
  event done;
  other.handle().post([&, here = hub.handle()] {
    try {
      turn(ends[1], 1);
    } catch (...) {
      failed = true;
    }
    here.post([&] { done.set(); });
  });
  turn(ends[0], 0);
  REQUIRE(done.wait(60s));
  CHECK(!failed);
  CHECK(value == 200);
  ::close(ends[0]);
  ::close(ends[1]);
}

namespace {

// By two threads in turn, and nothing but relaxed atomics in between, which order nothing for the sanitizer.
template <class Fn>
void take_turns(Fn fn) {
  constexpr int turns = 40;
  std::atomic<int> turn{0};
  const auto take = [&](int mine) {
    for (int own = mine; own < turns; own += 2) {
      while (turn.load(std::memory_order_relaxed) != own) {
        std::this_thread::yield();
      }
      fn();
      turn.store(own + 1, std::memory_order_relaxed);
    }
  };
  std::thread other(take, 1);
  take(0);
  other.join();
  CHECK(turn == turns);
}

}  // namespace

TEST_CASE("hubs that come and go on two threads are not held against each other") {
  take_turns([] {
    hub hub;
    spawn([] { this_fiber::sleep_for(1us); }).join();
  });
}

TEST_CASE("nor are two files of one number, of which the first was closed by annulet") {
  take_turns([] {
    const int fd = ::eventfd(0, EFD_CLOEXEC);
    annulet::close(fd);
  });
}

namespace {

// Frames too large for the address sanitizer to keep them elsewhere.
constexpr std::size_t large = 70'000;

[[gnu::noinline]] void throw_past_a_large_frame() {
  std::array<volatile char, large> room;
  room[0] = 1;
  if (room[0] != 0) {
    throw std::runtime_error("thrown");
  }
  room[1] = 1;
}

}  // namespace

TEST_CASE("stacks are used again, and what was thrown or killed on them leaves nothing behind") {
  hub hub;
  std::size_t caught = 0, killed = 0;
  for (int round = 0; round < 50; ++round) {
    auto thrower = spawn([&] {
      try {
        this_fiber::yield();
        throw_past_a_large_frame();
      } catch (const std::exception&) {
        this_fiber::yield();
        ++caught;
      }
      CHECK(fill_stack<large + 10'000>(2) == 2);  // where that frame was
    });
    auto sleeper = spawn([&] {
      struct counter {
        std::size_t& count;
        ~counter() { ++count; }
      } at_end{killed};
      std::array<volatile char, large> room;
      room[0] = 1;
      this_fiber::sleep_for(1h);
      room[1] = 1;
    });
    thrower.join();
    sleeper.kill();
    sleeper.join();
    CHECK(spawn([] { return fill_stack<4096>(20); }).get() == 20);
    CHECK(spawn([] { return fill_stack<large + 10'000>(2); }).get() == 2);
  }
  CHECK(caught == 50);
  CHECK(killed == 50);
}

namespace {

int unguarded = 0;

[[gnu::noinline]] void touch_unguarded() { ++unguarded; }

// By a fiber of each, one after the other, and nothing in between but an atomic. Where that is relaxed it
// orders nothing for the sanitizer. Both hubs are there from the start, or the later one might be made of
// what the other has given back, and that is an order.
void turns_of_two_hubs(std::memory_order order) {
  std::atomic<int> hubs{0}, turn{0};
  const auto run = [&](int mine, const char* name) {
    hub hub;
    ++hubs;
    auto other = spawn([] {  // the racer is left and taken up again, by one as deep as it is
      for (int i = 0; i < 100; ++i) {
        this_fiber::yield();
      }
    });
    spawn({.name = name}, [&] {
      for (int i = 0; i < 100; ++i) {
        this_fiber::yield();
      }
      while (hubs.load(std::memory_order_relaxed) != 2 || turn.load(std::memory_order_relaxed) != mine) {
        this_fiber::yield();
      }
      (void)turn.load(order == std::memory_order_release ? std::memory_order_acquire : order);
      touch_unguarded();
      turn.store(mine + 1, order);
    }).join();
    while (turn.load(std::memory_order_relaxed) != 2) {
      this_fiber::yield();
    }
  };
  std::thread other(run, 1, "second racer");
  run(0, "first racer");
  other.join();
}

}  // namespace

TEST_CASE("fibers of two hubs that hand a variable over do not race for it") {
  turns_of_two_hubs(std::memory_order_release);
  CHECK(std::exchange(unguarded, 0) == 2);
}

TEST_CASE("a race between fibers of two hubs is reported, with the names and the frames of both") {
  if (left_out(sanitizer::thread, "thread")) {
    return;
  }
  const auto end = in_reporting_child([] {
    turns_of_two_hubs(std::memory_order_relaxed);
    return unguarded == 2;
  });
  INFO(end.said);
  CHECK(end.says("data race"));
  CHECK(end.says("touch_unguarded"));
  CHECK(end.says("first racer"));
  CHECK(end.says("second racer"));
}

namespace {

// One byte too many, by whatever the compiler does not see through.
[[gnu::noinline]] void overrun(volatile char* at, std::size_t size) { at[size] = 1; }

[[gnu::noinline]] void overrun_an_array() {
  std::array<volatile char, 40> room{};
  overrun(room.data(), room.size());
}

[[gnu::noinline]] volatile char* pass_through(volatile char* at) { return at; }

[[gnu::noinline]] volatile char* local_of_a_frame_that_ended() {
  volatile char local = 1;
  return pass_through(&local);
}

}  // namespace

TEST_CASE("a write behind an array on a fiber's stack is reported, with the function") {
  if (left_out(sanitizer::address, "address")) {
    return;
  }
  const auto end = in_reporting_child([] {
    hub hub;
    spawn([] {
      this_fiber::yield();
      overrun_an_array();
    }).join();
    return true;
  });
  INFO(end.said);
  CHECK(end.says("stack-buffer-overflow"));
  CHECK(end.says("overrun_an_array"));
}

namespace {

// A fiber's local is read by itself and by another fiber, after both have parked.
void read_across_parks(volatile char* (*local)(volatile char*)) {
  hub hub;
  event known, read;
  volatile char* at = nullptr;
  auto owner = spawn([&] {
    volatile char own = 1;
    this_fiber::yield();
    at = local(&own);
    known.set();
    read.wait();
    *at = 2;
  });
  auto reader = spawn([&] {
    known.wait();
    this_fiber::sleep_for(1ms);
    CHECK(*at == 1);
    read.set();
  });
  reader.join();
  owner.join();
}

}  // namespace

TEST_CASE("what is in a frame that waits may be used by any fiber") { read_across_parks(pass_through); }

TEST_CASE("a use of a frame that has ended is reported, after parks too, whichever fiber it is") {
  if (left_out(sanitizer::address, "address")) {
    return;
  }
  const auto by_another = in_reporting_child([] {
    read_across_parks([](volatile char*) { return local_of_a_frame_that_ended(); });
    return true;
  });
  INFO(by_another.said);
  CHECK(by_another.says("stack-use-after-return"));
  const auto by_itself = in_reporting_child([] {
    hub hub;
    spawn([] {
      this_fiber::yield();
      volatile char* const at = local_of_a_frame_that_ended();
      this_fiber::sleep_for(1ms);
      *at = 2;
    }).join();
    return true;
  });
  INFO(by_itself.said);
  CHECK(by_itself.says("stack-use-after-return"));
}

TEST_CASE("what only a parked fiber refers to is no leak, and what nobody does is one") {
  if (left_out(sanitizer::address, "address")) {
    return;
  }
  hub hub;
  auto owner = spawn([] {
    const auto kept = std::make_unique<std::array<char, 100>>();
    this_fiber::sleep_for(1h);
    (*kept)[0] = 1;
  });
  this_fiber::yield();
  CHECK(!leaks());
  const auto end = in_reporting_child([] {
    annulet::hub own;  // the parent's is dead here
    spawn([] { (void)new volatile int(1); }).join();
    spawn([] { fill_stack<4096>(20); }).join();
    return !leaks();
  });
  INFO(end.said);
  CHECK(end.exit == 1);
  owner.kill();
}
