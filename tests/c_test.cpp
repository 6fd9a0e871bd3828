// The C entrance, and the drop-ins as C calls them.

#include "c_scenes.h"

#include <annulet/hub/c.h>
#include <annulet/selector/posix.h>
#include <annulet/hub/hub.hpp>
#include <annulet/runtime/cancellation.hpp>
#include <annulet/runtime/errors.hpp>
#include <annulet/runtime/event.hpp>
#include <annulet/runtime/fiber.hpp>

#include <doctest/doctest.h>

#include <cerrno>
#include <chrono>
#include <thread>

#include <sys/wait.h>
#include <unistd.h>

using namespace std::chrono_literals;

TEST_CASE("without a hub the drop-ins are the plain calls, and the rest says so") {
  CHECK(scene_without_hub() == 0);
}

TEST_CASE("a thread enters and leaves, again and again") {
  CHECK(scene_enter_and_leave() == 0);
  int line = -1;
  std::thread([&] { line = scene_enter_and_leave(); }).join();
  CHECK(line == 0);
}

TEST_CASE("a thread enters with options, also with those of an older or a newer version") {
  CHECK(scene_options() == 0);
}

TEST_CASE("two fibers in C that read and write") { CHECK(scene_two_fibers() == 0); }

TEST_CASE("a kill ends each wait of a fiber in C, and nothing else") {
  CHECK(scene_kill() == 0);
  CHECK(scene_kill_before_begin() == 0);
}

TEST_CASE("what is wrong is refused") { CHECK(scene_misuse() == 0); }

TEST_CASE("one that is joined is joined by one") { CHECK(scene_two_who_join() == 0); }

TEST_CASE("the handles of a hub that is gone are joined and detached") {
  CHECK(scene_handles_of_a_hub_that_is_gone() == 0);
}

TEST_CASE("who joins where all fibers wait for each other is told") {
  annulet::hub home;
  annulet::event never;
  annulet_fiber* fiber = nullptr;
  REQUIRE(annulet_spawn([](void* on) { static_cast<annulet::event*>(on)->wait(); }, &never, &fiber) == 0);
  CHECK(annulet_join(fiber) == -EDEADLK);
  never.set();
  CHECK(annulet_join(fiber) == 0);
}

TEST_CASE("a child of one that had entered has not, also where it makes a hub in C++") {
  REQUIRE(annulet_enter() == 0);
  const pid_t child = ::fork();
  if (child == 0) {
    const annulet::hub own;
    ::_exit(annulet_leave() == -ENOENT ? 0 : 1);
  }
  int status = -1;
  CHECK(::waitpid(child, &status, 0) == child);
  CHECK(status == 0);
  CHECK(annulet_leave() == 0);
}

TEST_CASE("a forked child has no hub, and may enter for itself") { CHECK(scene_in_forked_child() == 0); }

TEST_CASE("what ended a drop-in stays pending, and the next call of C++ that may park throws it") {
  annulet::hub home;
  bool threw = false;
  auto fiber = annulet::spawn([&] {
    CHECK(annulet_sleep(5) == 4);
    CHECK(errno == ECANCELED);
    CHECK(annulet_usleep(500'000) == -1);
    CHECK(errno == ECANCELED);
    try {
      annulet::this_fiber::yield();
    } catch (const annulet::fiber_killed&) {
      threw = true;
      throw;
    }
  });
  annulet::this_fiber::sleep_for(1ms);
  fiber.kill();
  fiber.join();
  CHECK(threw);

  CHECK_THROWS_AS(
      [] {
        const annulet::timeout guard(2ms);
        CHECK(annulet_poll(nullptr, 0, -1) == -1);
        CHECK(errno == ECANCELED);
        CHECK(annulet_poll(nullptr, 0, 5) == -1);
        annulet::this_fiber::sleep_for(1ms);
      }(),
      annulet::timeout_expired);
}

TEST_CASE("a handle of another thread's fiber") {
  annulet::hub home;
  annulet_fiber* fiber = nullptr;
  REQUIRE(annulet_spawn([](void*) { annulet_sleep(1); }, nullptr, &fiber) == 0);
  std::thread([&] {
    CHECK(annulet_join(fiber) == -EPERM);
    CHECK(annulet_kill(fiber) == -EPERM);
  }).join();
  CHECK(annulet_leave() == -ENOENT);  // it was not entered
  CHECK(annulet_kill(fiber) == 0);
  CHECK(annulet_join(fiber) == 0);
}
