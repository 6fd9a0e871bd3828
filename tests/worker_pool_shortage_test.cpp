// What becomes of jobs where threads are not to be had.
#include <annulet/hub/worker_pool.hpp>

#include "support/apart.hpp"
#include "support/child.hpp"
#include "support/pool_jobs.hpp"

#include <doctest/doctest.h>

#include <array>
#include <chrono>
#include <cstdint>
#include <limits>
#include <memory>
#include <thread>

#include <sys/eventfd.h>
#include <sys/resource.h>

using namespace annulet::test;

namespace {

constexpr std::size_t bound = 4;

}  // namespace

// The first of all: the stacks of threads that have ended would serve new ones, whatever the limit.
TEST_CASE("where no thread is to be had a job is refused, or waits for one that is coming") {
  CHECK(run_apart([] {
          pool_and_bell here;
          rlimit before{};
          require_ok(::getrlimit(RLIMIT_AS, &before), "getrlimit");
          const rlimit none{1, before.rlim_max};
          std::array<std::unique_ptr<job>, 3> jobs;
          for (auto& j : jobs) {
            j = std::make_unique<job>([] { return 1; });
          }
          const auto submit_without_memory = [&](job& j, urgency how) {
            require_ok(::setrlimit(RLIMIT_AS, &none), "setrlimit");
            const bool taken = here.pool.submit(j, how);
            require_ok(::setrlimit(RLIMIT_AS, &before), "setrlimit");
            return taken;
          };
          if (submit_without_memory(*jobs[0], urgency::urgent) ||
              submit_without_memory(*jobs[0], urgency::bounded)) {
            return 1;
          }
          // The first thread has hardly begun when the second job comes.
          if (!here.pool.submit(*jobs[0], urgency::bounded) ||
              !submit_without_memory(*jobs[1], urgency::bounded)) {
            return 2;
          }
          return here.next_ended() != nullptr && here.next_ended() != nullptr ? 0 : 3;
        }) == 0);
}

TEST_CASE("a job for which there was no thread gets one later, though those that run do not end") {
  for (const std::size_t running : {std::size_t{1}, bound}) {
    CAPTURE(running);
    CHECK(run_apart([=] {
            pool_and_bell here(std::chrono::milliseconds(1));
            crowd stuck(here.pool, running, urgency::bounded);
            wait_until([&] { return stuck.begun() == running; });
            job queued([] { return 7; });
            rlimit before{};
            require_ok(::getrlimit(RLIMIT_AS, &before), "getrlimit");
            const rlimit none{1, before.rlim_max};
            require_ok(::setrlimit(RLIMIT_AS, &none), "setrlimit");
            const bool taken = here.pool.submit(queued, urgency::bounded);
            const bool staffed = here.pool.tend();
            require_ok(::setrlimit(RLIMIT_AS, &before), "setrlimit");
            if (!taken || staffed || here.next_ended() != &queued) {
              return 1;
            }
            stuck.let_go(running);
            for (std::size_t i = 0; i < running; ++i) {
              if (here.next_ended() == nullptr) {
                return 2;
              }
            }
            return 0;
          }) == 0);
  }
}

TEST_CASE("a job that waits for a thread for long is told of on stderr, once") {
  const auto end = annulet_test::in_child([] {
    pool_and_bell here(std::chrono::milliseconds(1));
    crowd stuck(here.pool, 1, urgency::bounded);
    wait_until([&] { return stuck.begun() == 1; });
    job queued([] { return 7; });
    rlimit before{};
    require_ok(::getrlimit(RLIMIT_AS, &before), "getrlimit");
    const rlimit none{1, before.rlim_max};
    require_ok(::setrlimit(RLIMIT_AS, &none), "setrlimit");
    const bool taken = here.pool.submit(queued, urgency::bounded);
    bool staffed = false;
    for (int i = 0; i < 20; ++i) {
      staffed = here.pool.tend() || staffed;
      std::this_thread::sleep_for(std::chrono::milliseconds(10));
    }
    require_ok(::setrlimit(RLIMIT_AS, &before), "setrlimit");
    const bool ended = here.next_ended() == &queued;
    stuck.let_go(1);
    return taken && !staffed && ended && here.next_ended() != nullptr;
  });
  CAPTURE(end.said);
  CHECK(end.exit == 0);
  constexpr auto words = "waiting for a thread for long";
  REQUIRE(end.says(words));
  CHECK(end.said.find(words) == end.said.rfind(words));
}

TEST_CASE(
    "a thread that is just telling of a job counts as there for the next, where no other is to be had") {
  CHECK(run_apart([] {
          const descriptor bell(require_ok(::eventfd(0, EFD_CLOEXEC), "eventfd"));
          worker_pool pool(bell.get(), std::chrono::hours(1));
          job only([] { return 1; });
          const auto ended = [&] {
            wait_until([&] { return pool.take_ended() == &only; });
            return true;
          };
          const std::uint64_t full = std::numeric_limits<std::uint64_t>::max() - 1;
          std::uint64_t count = 0;
          require_ok(static_cast<int>(::write(bell.get(), &full, sizeof(full))), "write to an eventfd");
          if (!pool.submit(only, urgency::bounded) || !ended()) {
            return 1;
          }
          // Its thread is held up where it rings.
          rlimit limit{};
          require_ok(::getrlimit(RLIMIT_AS, &limit), "getrlimit");
          limit.rlim_cur = 1;
          require_ok(::setrlimit(RLIMIT_AS, &limit), "setrlimit");
          const bool taken = pool.submit(only, urgency::bounded);
          require_ok(static_cast<int>(::read(bell.get(), &count, sizeof(count))), "read from an eventfd");
          return taken && ended() ? 0 : 2;
        }) == 0);
}
