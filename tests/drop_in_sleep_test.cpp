// Sleeps, each scene plainly and as a drop-in.

#include "support/page_before_nothing.hpp"
#include "support/plain_and_parked.hpp"

#include <doctest/doctest.h>

#include <atomic>
#include <chrono>
#include <thread>
#include <utility>

using namespace std::chrono_literals;
using annulet::test::note_wait;
using annulet::test::page_before_nothing;
using annulet::test::same_in_both;
using annulet::test::scene_notes;
using annulet::test::wait_calls;

namespace {

timespec time_by(clockid_t clock, std::chrono::nanoseconds later) {
  timespec now{};
  ::clock_gettime(clock, &now);
  const long all = now.tv_nsec + later.count();
  return {now.tv_sec + all / 1'000'000'000, all % 1'000'000'000};
}

}  // namespace

TEST_CASE("sleeps are never too short, and leave errno alone") {
  same_in_both([](const wait_calls& c, scene_notes& notes) {
    errno = 77;
    note_wait(notes, 0ms, [&] { notes.note("sleep", c.sleep(0)); });
    note_wait(notes, 3ms, [&] { notes.note("usleep", c.usleep(3000)); });
    const timespec some{0, 2'000'001};
    timespec left{5, 6};
    note_wait(notes, 2ms, [&] { notes.note("nanosleep", c.nanosleep(&some, &left)); });
    notes.note("untouched", left.tv_sec * 10 + left.tv_nsec);
    notes.note("errno", errno);
  });
}

TEST_CASE("a whole second") {
  same_in_both([](const wait_calls& c, scene_notes& notes) {
    note_wait(notes, 1s, [&] { notes.note("sleep", c.sleep(1)); });
    note_wait(notes, 1001ms, [&] { notes.note("usleep", c.usleep(1'001'000)); });
  });
}

TEST_CASE("clock_nanosleep knows each clock, for a while and until a time") {
  for (const clockid_t clock : {CLOCK_REALTIME, CLOCK_MONOTONIC, CLOCK_BOOTTIME, CLOCK_TAI,
                                CLOCK_PROCESS_CPUTIME_ID, CLOCK_THREAD_CPUTIME_ID, CLOCK_MONOTONIC_COARSE,
                                CLOCK_REALTIME_COARSE, CLOCK_MONOTONIC_RAW, clockid_t{99}, clockid_t{-1}}) {
    CAPTURE(clock);
    same_in_both([&](const wait_calls& c, scene_notes& notes) {
      // Somebody has to use the CPU for a clock of it to go on.
      std::atomic<bool> over{false};
      std::thread busy([&] {
        while (clock == CLOCK_PROCESS_CPUTIME_ID && !over) {
        }
      });
      const timespec some{0, 3'000'000};
      const auto note_sleep = [&](const char* what, int error, timespec until) {
        const timespec now = time_by(clock, 0ms);
        const bool early = std::pair(now.tv_sec, now.tv_nsec) < std::pair(until.tv_sec, until.tv_nsec);
        notes.note(what, error);
        notes.note("early",
                   error == 0 && early);  // a clock that nobody sleeps by is refused, sooner or later
      };
      timespec until = time_by(clock, 3ms);
      note_sleep("for a while", c.clock_nanosleep(clock, 0, &some, nullptr), until);
      until = time_by(clock, 3ms);
      note_sleep("until", c.clock_nanosleep(clock, TIMER_ABSTIME, &until, nullptr), until);
      const timespec long_ago{1, 0};
      notes.note("until long ago", c.clock_nanosleep(clock, TIMER_ABSTIME, &long_ago, nullptr));
      over = true;
      busy.join();
    });
  }
}

TEST_CASE("sleeps refuse what the kernel refuses") {
  same_in_both([](const wait_calls& c, scene_notes& notes) {
    const page_before_nothing page;
    auto* const nowhere = static_cast<timespec*>(page.last(8));
    notes.result("nowhere", c.nanosleep(nowhere, nullptr));
    for (const timespec& bad :
         {timespec{-1, 0}, timespec{0, -1}, timespec{0, 1'000'000'000}, timespec{-1, -1}}) {
      notes.result("a bad time", c.nanosleep(&bad, nullptr));
      notes.note("a bad time", c.clock_nanosleep(CLOCK_MONOTONIC, 0, &bad, nullptr));
      notes.note("a bad time", c.clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &bad, nullptr));
    }
    notes.note("nowhere", c.clock_nanosleep(CLOCK_MONOTONIC, 0, nowhere, nullptr));
    notes.note("nowhere", c.clock_nanosleep(CLOCK_BOOTTIME, TIMER_ABSTIME, nowhere, nullptr));
  });
}

TEST_CASE("a sleep that a kill ends says how much of it is left") {
  annulet::hub home;
  unsigned seconds = 0;
  timespec left{};
  const auto nap = [&] {
    const timespec time{100, 0};
    CHECK(annulet_nanosleep(&time, &left) == -1);
    CHECK(errno == ECANCELED);
  };
  auto first = annulet::spawn([&] { seconds = annulet_sleep(100); });
  auto second = annulet::spawn(nap);
  annulet::this_fiber::sleep_for(1ms);
  first.kill();
  second.kill();
  first.join();
  second.join();
  CHECK(seconds == 99);
  CHECK(left.tv_sec == 99);
  CHECK(left.tv_nsec > 0);
}
