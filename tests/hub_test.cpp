#include "support/child.hpp"
#include "support/cpu_time.hpp"
#include "support/descriptor_limit.hpp"
#include "support/files.hpp"
#include "support/probe_watch.hpp"
#include "support/signals.hpp"
#include "support/whole_hub.hpp"

#include <annulet/hub/hub.hpp>
#include <annulet/runtime/event.hpp>
#include <annulet/runtime/fiber.hpp>
#include <annulet/selector/selector.hpp>

#include <doctest/doctest.h>

#include <algorithm>
#include <atomic>
#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <limits>
#include <string>
#include <system_error>
#include <thread>

#include <pthread.h>

using namespace annulet;
using namespace annulet::test;
using annulet_test::in_child;
using namespace std::chrono_literals;

namespace {

using names = std::vector<std::string>;
using steady = std::chrono::steady_clock;

// What a hub with these options says when it is refused; empty where it is not.
std::string refusal(const hub_options& options) {
  try {
    hub hub(options);
  } catch (const std::invalid_argument& e) {
    return e.what();
  }
  return {};
}

bool contains(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

std::atomic<int> handled{0};

void note_signal(int) { ++handled; }

}  // namespace

TEST_CASE("each ring mode comes up on this kernel, and the report says with which flags") {
  if (!has_io_uring()) {
    return;
  }
  const std::array<names, 4> flags = {names{"SINGLE_ISSUER", "DEFER_TASKRUN", "TASKRUN_FLAG", "SUBMIT_ALL"},
                                      names{"COOP_TASKRUN", "TASKRUN_FLAG", "SUBMIT_ALL"},
                                      names{"SUBMIT_ALL"}, names{}};
  ::unsetenv("ANNULET_RING_MODE");  // which would be in the default's place
  for (std::size_t i = 0; i < all_modes.size(); ++i) {
    hub_options options = options_for(all_modes[i]);
    options.engine = engine_choice::uring;
    options.sq_entries = 100;
    options.cq_entries = 1000;
    hub hub(options);
    const engine_info& report = hub.engine_report();
    CHECK(report.name == "io_uring");
    CHECK(report.flags == flags[i]);
    CHECK(report.refused.empty());
    CHECK(report.sq_entries == 128);
    CHECK(report.cq_entries == 1024);
  }
}

TEST_CASE("the largest and the smallest queues are accepted") {
  if (!has_io_uring()) {
    return;
  }
  for (const auto& [sq, cq] : {std::pair{1U, 2U}, std::pair{32768U, 65536U}}) {
    hub_options options;
    options.engine = engine_choice::uring;
    options.sq_entries = sq;
    options.cq_entries = cq;
    hub hub(options);
    CHECK(hub.engine_report().sq_entries == sq);
    CHECK(hub.engine_report().cq_entries == cq);
  }
}

// So that a program that has closed it and opens files of its own is not written to.
TEST_CASE("what wakes a hub has a number that a program reaches late") {
  if (allow_descriptors(20'000) < 1024) {
    return;
  }
  const hub home;
  std::size_t far = 0;
  for (const auto& entry : std::filesystem::directory_iterator("/proc/self/fd")) {
    std::error_code gone;
    if (std::filesystem::read_symlink(entry.path(), gone) == "anon_inode:[eventfd]") {
      CHECK(std::stoi(entry.path().filename()) >= 768);
      ++far;
    }
  }
  CHECK(far >= 2);  // the hub's, and that of its handles
}

TEST_CASE("an option out of its range is refused by name, and a hub can be made afterwards") {
  const std::size_t before = open_descriptors();
  hub_options options;
  options.sq_entries = 0;
  CHECK(contains(refusal(options), "sq_entries is 0"));
  options.sq_entries = 32769;
  CHECK(contains(refusal(options), "sq_entries is 32769"));
  options = {};
  options.cq_entries = 511;  // less than twice the submission queue
  CHECK(contains(refusal(options), "cq_entries is 511"));
  options.cq_entries = 65537;
  CHECK(contains(refusal(options), "cq_entries is 65537"));
  options = {};
  options.look_every = 0;
  CHECK(contains(refusal(options), "look_every is 0"));
  options = {};
  options.stack_size = 0;
  CHECK(contains(refusal(options), "stack of 0 bytes"));
  options.stack_size = largest_stack_size + 1;
  CHECK(contains(refusal(options), "stack of " + std::to_string(largest_stack_size + 1) + " bytes"));
  options.stack_size = std::numeric_limits<std::size_t>::max();
  CHECK(contains(refusal(options), "stack of "));
  CHECK(open_descriptors() == before);
  hub hub;
  CHECK(spawn([] { return 7; }).get() == 7);
}

TEST_CASE("a ring mode that does not exist is refused by name") {
  hub_options options;
  options.mode = static_cast<ring_mode>(17);
  CHECK(contains(refusal(options), "mode"));
}

TEST_CASE("a second hub on one thread is refused, and the first goes on") {
  hub first;
  auto fiber = spawn([] {
    this_fiber::sleep_for(1ms);
    return 1;
  });
  const std::size_t before = open_descriptors();
  CHECK_THROWS_AS(hub{}, std::logic_error);
  CHECK_THROWS_WITH(hub{}, doctest::Contains("has a hub already"));
  CHECK(open_descriptors() == before);
  CHECK(fiber.get() == 1);
  auto pipe = make_pipe();
  probe_watch watch(pipe.reader.get());
  watch.arm_now(POLLIN);
  send_byte(pipe.writer.get());
  CHECK(watch.told(1));
}

TEST_CASE("one hub after another works on the same thread, and nothing adds up") {
  { hub warm_up; }
  const std::size_t before = open_descriptors();
  for (int round = 0; round < 200; ++round) {
    hub hub(options_for(all_modes[static_cast<std::size_t>(round) % all_modes.size()]));
    auto pipe = make_pipe();
    probe_watch watch(pipe.reader.get());
    watch.arm_now(POLLIN);
    auto writer = spawn([&] { send_byte(pipe.writer.get()); });
    REQUIRE(watch.told(1));
    REQUIRE(writer.join(patience));
  }
  CHECK(open_descriptors() == before);
}

TEST_CASE("two threads have a hub each, and neither hears of the other") {
  const auto work = [](std::atomic<int>& done) {
    for (int round = 0; round < 50; ++round) {
      hub hub;
      auto pipe = make_pipe();
      probe_watch watch(pipe.reader.get());
      watch.arm_now(POLLIN);
      auto writer = spawn([&] { send_byte(pipe.writer.get()); });
      done += watch.told(1) && watch.results.size() == 1 ? 1 : 0;
      writer.join();
    }
  };
  std::atomic<int> first{0}, second{0};
  std::thread one(work, std::ref(first));
  std::thread other(work, std::ref(second));
  one.join();
  other.join();
  CHECK(first == 50);
  CHECK(second == 50);
}

TEST_CASE("what belongs to a hub says so on another thread, and where there is no hub") {
  hub hub;
  selector selector;
  auto fiber = spawn([] {});
  const auto all_refused = [&] {
    CHECK_THROWS_AS((void)hub.handle(), wrong_thread);
    CHECK_THROWS_AS((void)hub.engine_report(), wrong_thread);
    CHECK_THROWS_AS((void)hub.fiber_count(), wrong_thread);
    CHECK_THROWS_AS((void)selector.select(0ms), wrong_thread);
    CHECK_THROWS_AS(fiber.join(), wrong_thread);
  };
  std::thread without_hub([&] {
    all_refused();
    CHECK_THROWS_AS((void)spawn([] {}), no_hub);
    CHECK_THROWS_AS(this_fiber::sleep_for(1ms), no_hub);
    CHECK_THROWS_AS(annulet::selector{}, no_hub);
  });
  without_hub.join();
  std::thread with_its_own([&] {
    annulet::hub own;
    all_refused();
    CHECK_THROWS_AS(annulet::selector{hub}, wrong_thread);
  });
  with_its_own.join();
  CHECK(hub.fiber_count() == 1);
  fiber.join();
  CHECK(hub.fiber_count() == 0);
}

TEST_CASE("a hub destroyed on another thread, or by another fiber than main, ends the process in words") {
  const auto elsewhere = in_child([] {
    auto* const lost = new hub;
    std::thread([&] { delete lost; }).join();
    return true;
  });
  CHECK(elsewhere.signal == SIGABRT);
  CHECK(elsewhere.says("destroyed on another thread"));
  const auto by_a_fiber = in_child([] {
    auto* const lost = new hub;
    spawn([&] { delete lost; }).join();
    return true;
  });
  CHECK(by_a_fiber.signal == SIGABRT);
  CHECK(by_a_fiber.says("another fiber than its thread's main one"));
}

TEST_CASE("a signal handler that returns does not cut a wait short, and runs during it") {
  for (const ring_mode mode : all_modes) {
    hub hub(options_for(mode));
    const handler_scope handler(SIGUSR1, note_signal);
    handled = 0;
    const pthread_t self = ::pthread_self();
    annulet::event over;
    std::thread sender([&, handle = hub.handle()] {
      std::this_thread::sleep_for(20ms);
      for (int sent = 1; sent <= 10; ++sent) {
        ::pthread_kill(self, SIGUSR1);
        for (const auto late = steady::now() + 10s; handled < sent && steady::now() < late;) {
          std::this_thread::sleep_for(1ms);
        }
      }
      handle.post([&] { over.set(); });
    });
    const auto begin = steady::now();
    this_fiber::sleep_for(40ms);
    CHECK(steady::now() - begin >= 40ms);
    CHECK(over.wait(30s));
    CHECK(handled == 10);  // each when it came, for the next was sent after that
    sender.join();
  }
}

TEST_CASE("a signal does not end a wait for a descriptor, and the event after it does") {
  for (const ring_mode mode : all_modes) {
    hub hub(options_for(mode));
    const handler_scope handler(SIGUSR1, note_signal);
    handled = 0;
    auto pipe = make_pipe();
    probe_watch watch(pipe.reader.get());
    watch.arm_now(POLLIN);
    const pthread_t self = ::pthread_self();
    std::thread sender([&] {
      for (int i = 0; i < 10; ++i) {
        ::pthread_kill(self, SIGUSR1);
        std::this_thread::sleep_for(1ms);
      }
      send_byte(pipe.writer.get());
    });
    CHECK(watch.told(1));
    CHECK(watch.results == std::vector{POLLIN});
    CHECK(handled >= 1);
    sender.join();
  }
}

TEST_CASE("fibers that only yield do not keep a watch from being told") {
  for (const ring_mode mode : all_modes) {
    hub hub(options_for(mode));
    auto pipe = make_pipe();
    probe_watch watch(pipe.reader.get());
    watch.want(POLLIN);
    bool stop = false;
    std::size_t yields = 0;
    auto busy = spawn([&] {
      for (; !stop; ++yields) {
        this_fiber::yield();
      }
    });
    auto writer = spawn([&] { send_byte(pipe.writer.get()); });
    CHECK(watch.told(1));
    stop = true;
    busy.join();
    writer.join();
    CHECK(yields < 1'000'000);
  }
}

TEST_CASE("an idle hub with a sleeping fiber uses no CPU") {
  hub hub;
  auto pipe = make_pipe();
  probe_watch watch(pipe.reader.get());
  watch.arm_now(POLLIN);
  send_byte(pipe.writer.get());
  CHECK(watch.told(1));  // and not drained: the level stays
  CHECK(least_cpu(1ms, thread_cpu, [] { this_fiber::sleep_for(60ms); }) < 1ms);
  CHECK(watch.results.size() == 1);
}

TEST_CASE("a sleep until the first nanoseconds of the clock is over at once") {
  annulet::hub home;
  const auto begun = std::chrono::steady_clock::now();
  annulet::this_fiber::sleep_until(std::chrono::steady_clock::time_point::min() +
                                   std::chrono::nanoseconds(1));
  CHECK(std::chrono::steady_clock::now() - begun < std::chrono::seconds(5));
}
