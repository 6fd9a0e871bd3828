// Memory that runs out in a hub's making, and in what fibers do with each other.
#include "support/allocation_sweep.hpp"

#include <annulet/hub/hub.hpp>
#include <annulet/runtime/barrier.hpp>
#include <annulet/runtime/cancellation.hpp>
#include <annulet/runtime/channel.hpp>
#include <annulet/runtime/condition_variable.hpp>
#include <annulet/runtime/dump_fibers.hpp>
#include <annulet/runtime/event.hpp>
#include <annulet/runtime/fiber_local.hpp>
#include <annulet/runtime/future.hpp>
#include <annulet/runtime/latch.hpp>
#include <annulet/runtime/queue.hpp>
#include <annulet/runtime/recursive_mutex.hpp>
#include <annulet/runtime/scope.hpp>
#include <annulet/runtime/semaphore.hpp>
#include <annulet/runtime/shared_mutex.hpp>
#include <annulet/runtime/this_fiber.hpp>
#include <annulet/runtime/wait_any.hpp>

#include <doctest/doctest.h>

#include <array>
#include <chrono>
#include <cstddef>
#include <exception>
#include <mutex>
#include <new>
#include <optional>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

#include <sys/mman.h>

using namespace annulet;
using namespace std::chrono_literals;
using test::failing_memory;
using test::require;
using test::scene;

namespace {

void wait_for_primitives() {
  event go;
  semaphore permits(0);
  latch all(1);
  mutex one_by_one;
  condition_variable changed;
  bool is_changed = false;
  scope([&](fiber_group& others) {
    others.spawn([&] {
      go.set();
      permits.release();
      all.count_down();
      const std::lock_guard<mutex> lock(one_by_one);
      is_changed = true;
      changed.notify_one();
    });
    require(go.wait(10s) && permits.acquire(10s) && all.wait(10s), "what was waited for came");
    std::unique_lock<mutex> lock(one_by_one);
    require(changed.wait(
                lock, [&] { return is_changed; }, 10s),
            "the condition came");
  });
}

void share_a_mutex() {
  shared_mutex books;
  scope([&](fiber_group& readers) {
    books.lock();
    for (int i = 0; i < 3; ++i) {
      readers.spawn([&] {
        require(books.lock_shared(10s), "the writer gave it up");
        this_fiber::yield();
        books.unlock_shared();
      });
    }
    this_fiber::yield();
    books.unlock();
  });
}

// Who gives asks for the memory, so that nobody waits for what will not come.
void hand_over() {
  queue<std::string> items(2);
  channel<int> numbers;
  scope([&](fiber_group& others) {
    others.spawn([&] {
      int count = 0;
      while (const auto item = items.pop(10s)) {
        require(item->size() == 100, "an item came whole");
        ++count;
      }
      require(count == 4 && numbers.pop(10s) == 7, "all came");
    });
    for (int i = 0; i < 4; ++i) {
      require(items.push(std::string(100, 'a'), 10s), "it is open");
    }
    items.close();
    require(numbers.push(7, 10s), "it is open");
  });
}

void keep_promises() {
  promise<std::string> made;
  auto kept = made.get_future();
  promise<int> never;
  auto other = never.get_future();
  std::string value(100, 'b');
  scope([&](fiber_group& others) {
    others.spawn([&] { made.set_value(std::move(value)); });
    require(wait_any(10s, other, kept) == 1, "the one that is kept is told");
    require(kept.get().size() == 100, "its value came");
  });
}

void wait_for_any_of_many() {
  std::vector<fiber<int>> all;
  for (int i = 0; i < 3; ++i) {
    all.push_back(spawn([i] {
      this_fiber::yield();
      return i;
    }));
  }
  require(wait_any(10s, all).has_value(), "one of them ended");
  require(wait_all(10s, all), "and all did");
}

void be_of_a_group() {
  fiber_group members(2);
  event never;
  int begun = 0;
  for (int i = 0; i < 2; ++i) {
    require(members.spawn([&] {
      ++begun;
      never.wait();
    }),
            "there is a place");
  }
  this_fiber::yield();
  require(begun == 2, "both began");
  members.kill_and_join();
  require(members.empty(), "both ended");
}

void choose_a_queue() {
  queue<int> empty(1);
  queue<int> full(1);
  require(full.try_push(1), "there is room");
  popping<int> pop_one(empty);
  int two = 2;
  pushing<int> push_one(full, two);
  scope([&](fiber_group& other) {
    other.spawn([&] { require(full.pop(10s) == 1, "it was there"); });
    require(wait_any(10s, pop_one, push_one) == 1 && push_one.pushed(), "there is room by then");
  });
}

void break_a_promise() {
  promise<int> broken;
  auto other = broken.get_future();
  broken.set_exception(std::make_exception_ptr(7));
  bool told = false;
  try {
    (void)other.get();
  } catch (int seven) {
    told = seven == 7;
  }
  require(told, "what was thrown comes");
}

const std::array of_fibers = {
    scene{"spawn", [] { require(spawn([](int n) { return n + 1; }, 1).get() == 2, "its result came"); }},
    scene{"spawn with a name and a stack",
          [] { spawn({.name = "one", .stack_size = 48 << 10}, [] {}).join(); }},
    scene{"kill",
          [] {
            event never;
            auto victim = spawn([&] { never.wait(); });
            this_fiber::yield();
            victim.kill();
            victim.join();
          }},
    scene{"timeout", [] { const timeout guard(10s); }},
    scene{"sleep_for", [] { this_fiber::sleep_for(1us); }},
    scene{"event, semaphore, latch, mutex, condition_variable", wait_for_primitives},
    scene{"shared_mutex", share_a_mutex},
    scene{"barrier",
          [] {
            bool complete = false;
            barrier both(2, [&, room = std::array<char, 64>()] { complete = room[0] == 0; });
            scope([&](fiber_group& other) {
              other.spawn([&] { require(both.arrive_and_wait(10s), "main came"); });
              require(both.arrive_and_wait(10s), "the other came");
            });
            require(complete, "it was completed");
          }},
    scene{"queue, channel", hand_over},
    scene{"promise, future, wait_any", keep_promises},
    scene{"wait_any, wait_all of a range", wait_for_any_of_many},
    scene{"map_in_fibers",
          [] {
            const std::array numbers = {1, 2, 3};
            const auto doubled = map_in_fibers(2, numbers, [](int n) { return 2 * n; });
            require(doubled == std::vector{2, 4, 6}, "the results are in order");
          }},
    scene{"fiber_local",
          [] {
            fiber_local<std::string> name([] { return std::string(100, 'c'); });
            spawn([&] { require(name->size() == 100, "it was made"); }).get();
          }},
    scene{"dump_fibers", [] { require(!dump_fibers().empty(), "there is one at least"); }},
    scene{"dump_fibers in JSON",
          [] { require(dump_fibers(dump_format::json).front() == '{', "it is an object"); }},
    scene{"recursive_mutex",
          [] {
            recursive_mutex twice;
            const std::lock_guard<recursive_mutex> once(twice);
            const std::lock_guard<recursive_mutex> again(twice);
          }},
    scene{"shield",
          [] {
            const shield held;
            this_fiber::yield();
          }},
    scene{"fiber_group with a limit", be_of_a_group},
    scene{"popping, pushing", choose_a_queue},
    scene{"set_exception", break_a_promise},
    scene{"trim_stacks, counts",
          [] {
            test::hub_of_scene->trim_stacks();
            require(test::hub_of_scene->counts().wakes < 1'000'000, "it counts");
          }},
};

}  // namespace

TEST_CASE("fibers, and what they wait for, where memory runs out") {
  test::sweep_through_all(of_fibers);
  CHECK(failing_memory::mappings_refused > 0);  // for stacks
}

TEST_CASE("what a call leaves where memory runs out is seen") {
  const auto leaks = [] {
    static std::array<void*, 2> lost{};  // from where the address sanitizer sees it
    void*& here = lost[lost[0] == nullptr ? 0 : 1];
    here = ::operator new(1);  // not by `new`, which compilers may leave out
    ::operator delete(::operator new(1));
    ::operator delete(std::exchange(here, nullptr));
  };
  CHECK(test::sweep_through({"leaks", leaks}).wrong ==
        "1 pieces of memory, 0 bytes of mappings and 0 descriptors are left");
  const auto leaks_a_mapping = [] {
    constexpr std::size_t size = 8192;
    void* const lost = ::mmap(nullptr, size, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (lost == MAP_FAILED) {
      throw std::bad_alloc();
    }
    ::operator delete(::operator new(1));
    ::munmap(lost, size);
  };
  CHECK(test::sweep_through({"leaks a mapping", leaks_a_mapping}).wrong ==
        "0 pieces of memory, 8192 bytes of mappings and 0 descriptors are left");
}

TEST_CASE("a hub that is refused memory leaves nothing, and can be made") {
  { const hub warm_up; }
  const test::in_use before = test::now_in_use();
  std::size_t refused = 0;
  for (bool made = false; !made; ++refused) {
    REQUIRE(refused < 1000);
    std::optional<hub> home;
    {
      const failing_memory short_of(refused + 1);
      try {
        home.emplace();
      } catch (const std::bad_alloc&) {
      } catch (const std::system_error& e) {
        CHECK(e.code().value() == ENOMEM);
      }
      made = !failing_memory::has_failed();
    }
    if (home) {
      CHECK(spawn([] { return 7; }).get() == 7);
    }
    home.reset();
    CAPTURE(refused);
    REQUIRE(test::left_since(before) == "");
  }
  CHECK(refused > 3);
}
