#include <annulet/hub/run_on_all_cores.hpp>

#include <annulet/hub/hub.hpp>
#include <annulet/runtime/fiber.hpp>
#include <annulet/runtime/this_fiber.hpp>

#include <doctest/doctest.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <mutex>
#include <set>
#include <stdexcept>
#include <string>
#include <thread>

#include <pthread.h>
#include <sched.h>
#include <unistd.h>

using annulet::run_on_all_cores;
namespace this_fiber = annulet::this_fiber;
using namespace std::chrono_literals;

namespace {

cpu_set_t cpus_of_this_thread() {
  cpu_set_t set;
  CHECK(::pthread_getaffinity_np(::pthread_self(), sizeof(set), &set) == 0);
  return set;
}

}  // namespace

TEST_CASE("each call has its own thread, its number and a hub, the first on the calling thread") {
  std::mutex mutex;
  std::set<pid_t> threads;
  std::set<std::size_t> numbers;
  pid_t of_first = 0;
  std::atomic<unsigned> inside{0};
  run_on_all_cores(
      [&](annulet::hub& home, std::size_t core) {
        ++inside;
        while (inside != 3) {  // all at the same time
          this_fiber::yield();
        }
        CHECK(annulet::spawn([] { return 1; }).get() == 1);
        CHECK(home.fiber_count() == 0);
        const std::lock_guard lock(mutex);
        threads.insert(::gettid());
        numbers.insert(core);
        if (core == 0) {
          of_first = ::gettid();
        }
      },
      {.count = 3});
  CHECK(threads.size() == 3);
  CHECK(numbers == std::set<std::size_t>{0, 1, 2});
  CHECK(of_first == ::gettid());
  const annulet::hub again;
}

TEST_CASE("by default there are as many as this thread may use CPUs") {
  const cpu_set_t mine = cpus_of_this_thread();
  std::atomic<int> calls{0};
  run_on_all_cores([&](annulet::hub&, std::size_t) { ++calls; });
  CHECK(calls == CPU_COUNT(&mine));
}

TEST_CASE("pinned ones stay on a CPU each, in turn, and the calling thread gets its CPUs back") {
  const cpu_set_t before = cpus_of_this_thread();
  std::array<cpu_set_t, 4> seen{};
  run_on_all_cores([&](annulet::hub&, std::size_t core) { seen[core] = cpus_of_this_thread(); },
                   {.count = 4, .pinned = true});
  const auto cpus = static_cast<std::size_t>(CPU_COUNT(&before));
  for (std::size_t i = 0; i < seen.size(); ++i) {
    CHECK(CPU_COUNT(&seen[i]) == 1);
    CHECK(CPU_EQUAL(&seen[i], &seen[i % cpus]));
  }
  const cpu_set_t after = cpus_of_this_thread();
  CHECK(CPU_EQUAL(&before, &after));
}

TEST_CASE("the first error in time is thrown when all have ended") {
  std::atomic<unsigned> ended{0};
  CHECK_THROWS_WITH_AS(run_on_all_cores(
                           [&](annulet::hub&, std::size_t core) {
                             if (core == 1) {
                               throw std::runtime_error("the second");
                             }
                             this_fiber::sleep_for(5ms);
                             ++ended;
                           },
                           {.count = 3}),
                       "the second", std::runtime_error);
  CHECK(ended == 2);
}

TEST_CASE("what cannot be begins nothing") {
  bool called = false;
  const auto call = [&](annulet::hub&, std::size_t) { called = true; };
  CHECK_THROWS_AS(run_on_all_cores(call, {.count = 5000}), std::invalid_argument);
  CHECK_THROWS_AS(run_on_all_cores(call, {.count = 3, .hub = {.look_every = 0}}), std::invalid_argument);
  {
    const annulet::hub home;
    CHECK_THROWS_AS(run_on_all_cores(call), std::logic_error);
  }
  CHECK_THROWS_WITH_AS(run_on_all_cores({}), doctest::Contains("no function"), std::invalid_argument);
  CHECK_FALSE(called);
}
