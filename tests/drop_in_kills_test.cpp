// Kills and timeout guards against every drop-in that can park, at moments near those at which it finds what
// it waits for; from C and from C++.
//
// ANNULET_DROP_IN_KILLS says how often for each call, each language and each of the two.

#include "drop_in_calls.h"
#include "oracle/run.hpp"
#include "support/drop_in_stages.hpp"
#include "support/files.hpp"

#include <annulet/hub/c.h>
#include <annulet/selector/posix.h>
#include <annulet/hub/hub.hpp>
#include <annulet/runtime/cancellation.hpp>
#include <annulet/runtime/errors.hpp>
#include <annulet/runtime/fiber.hpp>

#include <doctest/doctest.h>

#include <cerrno>
#include <chrono>
#include <cstdlib>
#include <optional>
#include <random>
#include <span>
#include <string>

using namespace std::chrono_literals;
using annulet::test::drop_in_stage;
using annulet::test::require_ok;

namespace {

struct tally {
  unsigned found = 0;
  unsigned cancelled = 0;
};

enum class ending { kill, guard };

// One call, which is killed or meets its guard about when what it waits for comes.
class race {
 public:
  race(const drop_in_call& call, drop_in_stage& stage, std::mt19937& random)
      : call_(call), stage_(stage), random_(random) {}

  void run(ending how, bool c_fiber, tally& counts) {
    const auto moment = [&] { return std::chrono::microseconds(random_() % 60); };
    const bool comes = call_.event != EVENT_NONE && random_() % 4 != 0;
    const auto it_comes = moment();
    end_comes_ = moment();
    stage_.prepare(random_() % 2 == 0);
    auto provoker = annulet::spawn([&] {
      if (comes) {
        annulet::this_fiber::sleep_for(it_comes);
        stage_.provoke();
      }
    });
    if (c_fiber) {
      be_killed_in_c();
    } else if (how == ending::kill) {
      auto victim = annulet::spawn([&] { wait(); });
      annulet::this_fiber::sleep_for(end_comes_);
      victim.kill();
      victim.join();
    } else {
      annulet::spawn([&] { wait_under_guard(); }).join();
    }
    provoker.join();
    stage_.settle(result_);
    ++(result_ >= 0 ? counts.found : counts.cancelled);
  }

 private:
  void be_killed_in_c() {
    annulet_fiber* victim = nullptr;
    REQUIRE(annulet_spawn([](void* self) { static_cast<race*>(self)->wait(); }, this, &victim) == 0);
    REQUIRE(annulet_usleep(static_cast<unsigned>(end_comes_.count())) == 0);
    REQUIRE(annulet_kill(victim) == 0);
    REQUIRE(annulet_join(victim) == 0);
  }
  void wait_under_guard() {
    try {
      const annulet::timeout guard(end_comes_);
      wait();
      annulet::this_fiber::sleep_for(1s);  // what has not come yet comes here
    } catch (const annulet::timeout_expired&) {
    }
  }
  void wait() {
    errno = 0;
    result_ = call_.make(&stage_.ends());
    if (result_ >= 0) {
      CHECK(call_.event != EVENT_NONE);
      return;
    }
    CHECK(result_ == -1);
    CHECK(errno == ECANCELED);
    clean_up();
  }
  // The interruption is still pending.
  void clean_up() {
    if (stage_.would_wait()) {
      const long again = call_.make(&stage_.ends());
      const bool tried_by_kernel = call_.event == EVENT_CONNECTION || call_.event == EVENT_ACCEPTANCE;
      if (tried_by_kernel && again >= 0) {
        result_ = again;  // it came just then
      } else {
        CHECK(again == -1);
        CHECK(errno == ECANCELED);
      }
    }
    CHECK(annulet_poll(nullptr, 0, 1000) == -1);
    CHECK(errno == ECANCELED);
    pollfd one{stage_.ends().fd, POLLIN, 0};
    CHECK(annulet_poll(&one, 1, 0) >= 0);
    const int duplicate = require_ok(::dup(stage_.ends().fd), "dup");
    CHECK(annulet_close(duplicate) == 0);
  }

  const drop_in_call& call_;
  drop_in_stage& stage_;
  std::mt19937& random_;
  std::chrono::microseconds end_comes_{};
  long result_ = -1;
};

void race_all(const drop_in_call* calls, bool from_c) {
  const auto rounds = static_cast<unsigned>(oracle::from_environment("ANNULET_DROP_IN_KILLS", 150));
  const auto seed = std::random_device{}();
  MESSAGE("seed ", seed);
  std::mt19937 random(seed);
  annulet::hub home;
  CHECK(annulet_usleep(100'000) == 0);  // a signalfd comes with the first wait in which a drop-in is parked
  for (const drop_in_call& call : std::span(calls, drop_in_call_count)) {
    CAPTURE(std::string(call.name));
    const auto stage = annulet::test::stage_for(call.event);
    const std::size_t open_before = annulet::test::open_descriptors();
    tally counts;
    for (const ending how : {ending::kill, ending::guard}) {
      CAPTURE(static_cast<int>(how));
      for (unsigned i = 0; i < rounds; ++i) {
        race(call, *stage, random).run(how, from_c && how == ending::kill, counts);
      }
    }
    CHECK(counts.cancelled > 0);
    // One in some tens, and in a single short run on a busy machine maybe none: of many some.
    CHECK((counts.found > 0 || rounds < 1000 || call.event == EVENT_NONE));
    CHECK(annulet::test::open_descriptors() == open_before);
  }
}

// What need not wait is done by a fiber that was killed.
void work_though_killed(const drop_in_call* calls) {
  annulet::hub home;
  for (const drop_in_call& call : std::span(calls, drop_in_call_count)) {
    if (call.event == EVENT_NONE) {
      continue;
    }
    CAPTURE(std::string(call.name));
    const auto stage = annulet::test::stage_for(call.event);
    stage->prepare(false);
    long result = -1;
    auto victim = annulet::spawn([&] {
      CHECK(annulet_usleep(500'000) == -1);
      CHECK(annulet_usleep(0) == 0);
      result = call.make(&stage->ends());
      CHECK(annulet_usleep(500'000) == -1);
    });
    annulet::this_fiber::yield();
    stage->provoke();
    victim.kill();
    victim.join();
    CHECK(result >= (call.event == EVENT_CONNECTION ? 0 : 1));
    stage->settle(result);
  }
}

}  // namespace

TEST_CASE("a kill, or a guard, ends each drop-in once and for all, and nothing is lost: from C++") {
  race_all(drop_in_calls_in_cpp, false);
}

TEST_CASE("a kill, or a guard, ends each drop-in once and for all, and nothing is lost: from C") {
  race_all(drop_in_calls_in_c, true);
}

TEST_CASE("what need not wait is done after a kill, too") {
  work_though_killed(drop_in_calls_in_cpp);
  work_though_killed(drop_in_calls_in_c);
}
