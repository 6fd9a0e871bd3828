// The enter that fails now and then, as it may when the kernel is short of memory or a signal comes: nothing
// is lost, and nothing waits for ever. Each case runs in a child process, whose calls another thread judges.
#include "support/child.hpp"
#include "support/files.hpp"
#include "support/probe_watch.hpp"
#include "support/refused_calls.hpp"

#include <annulet/hub/hub.hpp>
#include <annulet/runtime/fiber.hpp>

#include <doctest/doctest.h>

#include <cstdio>
#include <memory>
#include <vector>

using namespace annulet;
using namespace annulet::test;
using annulet_test::in_child;
using namespace std::chrono_literals;

namespace {

constexpr unsigned getevents = 1;  // a flag of io_uring_enter: the call takes completions in

hub_options narrow(ring_mode mode) {
  hub_options options = options_for(mode);
  options.sq_entries = 1;
  options.cq_entries = 2;
  return options;
}

// From now on an enter that only submits is told EAGAIN: entries go to the kernel with those that also reap.
void refuse_plain_submits() {
  judge_calls({SCMP_SYS(io_uring_enter)}, [](const seccomp_data& call) {
    return call.args[1] != 0 && (call.args[3] & getevents) == 0 ? EAGAIN : 0;
  });
}

int closed_number() {
  auto file = make_eventfd();
  const int number = file.get();
  file.close();
  return number;
}

// Many watches are armed, told and let go, a few at a time.
bool everything_is_told() {
  for (int round = 0; round < 40; ++round) {
    std::vector<descriptor> fds;
    std::vector<std::unique_ptr<probe_watch>> watches;
    for (int i = 0; i < 6; ++i) {
      fds.push_back(make_eventfd(i % 2 == 0 ? 1 : 0));
      watches.push_back(std::make_unique<probe_watch>(fds.back().get()));
      watches.back()->want(POLLIN);
    }
    auto writer = spawn([&] {
      for (std::size_t i = 1; i < fds.size(); i += 2) {
        add_to_eventfd(fds[i].get());
      }
    });
    for (const auto& watch : watches) {
      if (!watch->told(1)) {
        return false;
      }
    }
    writer.join();
    this_fiber::sleep_for(100us);
  }
  return true;
}

}  // namespace

TEST_CASE("an enter that is refused every few calls loses no event") {
  for (const int error : {EINTR, EAGAIN, ENOMEM, EBUSY}) {
    for (const unsigned every : {2U, 3U, 7U}) {
      for (const ring_mode mode : {ring_mode::defer_taskrun, ring_mode::coop_taskrun}) {
        const auto end = in_child(
            [=] {
              judge_calls({SCMP_SYS(io_uring_enter)}, [=, calls = 0U](const seccomp_data&) mutable {
                return ++calls % every == 0 ? error : 0;
              });
              hub hub(narrow(mode));
              return everything_is_told();
            },
            15);
        CAPTURE(error);
        CAPTURE(every);
        CAPTURE(end.said);
        CHECK(end.exit == 0);
      }
    }
  }
}

TEST_CASE("a watch whose request ends while its cancellation waits for room is let go") {
  const auto end = in_child(
      [] {
        refuse_plain_submits();
        hub hub(narrow(ring_mode::defer_taskrun));
        probe_watch watch(closed_number());
        watch.arm_now(POLLIN);  // the entry stays in the full queue
        watch.let_go();         // room is made for the cancellation: the request is submitted, and ends
        return watch.results == std::vector{-EBADF};
      },
      5);
  CAPTURE(end.said);
  CHECK(end.exit == 0);
}

TEST_CASE("a watch whose request ends while its change waits for room is told, and can be armed again") {
  const auto end = in_child(
      [] {
        refuse_plain_submits();
        hub hub(narrow(ring_mode::defer_taskrun));
        probe_watch watch(closed_number());
        watch.arm_now(POLLIN);
        watch.want(POLLIN | POLLOUT);
        if (!watch.told_error(EBADF)) {
          return false;
        }
        watch.forget();
        watch.want(POLLIN);
        return watch.told_error(EBADF);
      },
      15);
  CAPTURE(end.said);
  CHECK(end.exit == 0);
}

TEST_CASE("the hub does not sleep on what it took in while it made room in the submission queue") {
  const auto end = in_child([] {
    refuse_plain_submits();
    hub hub(narrow(ring_mode::defer_taskrun));
    const auto quiet = make_eventfd();
    probe_watch ends_at_once(closed_number());
    probe_watch waits(quiet.get());
    ends_at_once.want(POLLIN);
    waits.want(POLLIN);
    const auto begin = std::chrono::steady_clock::now();
    const bool told = ends_at_once.told(1);
    return told && std::chrono::steady_clock::now() - begin < patience / 2;
  });
  CAPTURE(end.said);
  CHECK(end.exit == 0);
}
