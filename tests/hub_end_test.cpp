#include "support/child.hpp"
#include "support/cpu_time.hpp"
#include "support/files.hpp"
#include "support/probe_watch.hpp"
#include "support/signals.hpp"

#include <annulet/hub/hub.hpp>
#include <annulet/hub/signal_set.hpp>
#include <annulet/runtime/cancellation.hpp>
#include <annulet/runtime/fiber.hpp>
#include <annulet/selector/selector.hpp>

#include <doctest/doctest.h>

#include <csignal>
#include <ctime>
#include <memory>
#include <optional>
#include <stdexcept>
#include <thread>
#include <vector>

using namespace annulet;
using namespace annulet::test;
using annulet_test::in_child;
using namespace std::chrono_literals;

namespace {

using steady = std::chrono::steady_clock;

// Counts the frames that have been left.
struct frame {
  explicit frame(int& left) : left_(left) {}
  ~frame() { ++left_; }
  frame(const frame&) = delete;
  frame& operator=(const frame&) = delete;

 private:
  int& left_;
};

// A fiber that does not end when it is killed: it parks again.
void stay() {
  for (;;) {
    try {
      this_fiber::sleep_for(1h);
    } catch (const fiber_killed&) {
    }
  }
}

}  // namespace

TEST_CASE("the end of a hub unwinds fibers parked in sleep, event, join, select, signal_set and a watch") {
  for (const ring_mode mode : all_modes) {
    int left = 0;
    auto pipe = make_pipe();
    {
      event never_set;
      hub hub(options_for(mode));
      spawn([&] {
        const frame f(left);
        this_fiber::sleep_for(1h);
      });
      spawn([&] {
        const frame f(left);
        never_set.wait();
      });
      spawn([&] {
        const frame f(left);
        spawn([] { this_fiber::sleep_until(deadline::never()); }).join();
      });
      spawn([&] {
        const frame f(left);
        selector selector;
        selector.register_(pipe.reader.get(), io_event::read);
        (void)selector.select();
      });
      spawn([&] {
        const frame f(left);
        signal_set signals{SIGUSR2};
        signals.wait();
      });
      spawn([&] {
        const frame f(left);
        probe_watch watch(pipe.reader.get());
        watch.want(POLLIN);
        (void)watch.told(1);
      });
      this_fiber::sleep_for(2ms);
      CHECK(hub.fiber_count() == 7);
      CHECK(left == 0);
    }
    CHECK(left == 6);
  }
}

TEST_CASE("a fiber that never began when the hub ends never runs, and its function is destroyed") {
  auto token = std::make_shared<int>(0);
  {
    hub hub;
    for (int i = 0; i < 5; ++i) {
      spawn([token] { ++*token; });
    }
    CHECK(token.use_count() == 6);
  }
  CHECK(*token == 0);
  CHECK(token.use_count() == 1);
}

TEST_CASE("a fiber that is killed by the hub's end may spawn, and what it spawns never runs") {
  int left = 0, ran = 0;
  {
    hub hub;
    spawn([&] {
      const frame f(left);
      try {
        this_fiber::sleep_for(1h);
      } catch (...) {
        spawn([&] { ++ran; });
        throw;
      }
    });
    this_fiber::yield();
  }
  CHECK(left == 1);
  CHECK(ran == 0);
}

TEST_CASE("a fiber may clean up with sleeps and yields while the hub ends, and that costs no CPU") {
  for (const ring_mode mode : all_modes) {
    bool cleaned_up = false;
    std::optional<hub> hub(std::in_place, options_for(mode));
    spawn([&] {
      try {
        this_fiber::sleep_for(1h);
      } catch (const fiber_killed&) {
        this_fiber::yield();
        this_fiber::sleep_for(200ms);
        cleaned_up = true;
        throw;
      }
    });
    this_fiber::yield();
    const auto begin = steady::now();
    const auto cpu = thread_cpu();
    hub.reset();
    CHECK(cleaned_up);
    CHECK(steady::now() - begin >= 200ms);
    CHECK(thread_cpu() - cpu < 50ms);
  }
}

TEST_CASE("a fiber may wait for a descriptor in its clean-up while the hub ends") {
  for (const ring_mode mode : all_modes) {
    bool cleaned_up = false;
    auto pipe = make_pipe();
    std::thread writer;
    {
      hub_options options = options_for(mode);
      options.shutdown_limit = 30s;
      hub hub(options);
      spawn([&] {
        probe_watch watch(pipe.reader.get());
        try {
          this_fiber::sleep_for(1h);
        } catch (const fiber_killed&) {
          watch.want(POLLIN);
          writer = std::thread([&] {
            std::this_thread::sleep_for(20ms);
            send_byte(pipe.writer.get());
          });
          cleaned_up = watch.told(1);
          throw;
        }
      });
      this_fiber::yield();
    }
    writer.join();
    CHECK(cleaned_up);
  }
}

TEST_CASE("fibers that do not end within the shutdown limit are named, and the process aborts") {
  const auto begin = steady::now();
  const auto end = in_child([] {
    hub_options options;
    options.shutdown_limit = 50ms;
    hub hub(options);
    spawn({.name = "stubborn"}, stay);
    spawn({.name = "obedient"}, [] { this_fiber::sleep_for(1h); });
    this_fiber::yield();
    return true;
  });
  CHECK(steady::now() - begin >= 50ms);
  CHECK(end.signal == SIGABRT);
  CHECK(end.says("\"stubborn\" (spawned at "));
  CHECK(end.says("shutdown limit"));
  CHECK_FALSE(end.says("obedient"));
}

TEST_CASE("a fiber that yields for ever does not get around the shutdown limit") {
  const auto end = in_child([] {
    hub_options options;
    options.shutdown_limit = 50ms;
    hub hub(options);
    spawn({.name = "restless"}, [] {
      for (;;) {
        try {
          this_fiber::yield();
        } catch (const fiber_killed&) {
        }
      }
    });
    this_fiber::yield();
    return true;
  });
  CHECK(end.signal == SIGABRT);
  CHECK(end.says("restless"));
}

TEST_CASE("an error that a fiber throws while the hub ends is reported on stderr") {
  const auto end = in_child([] {
    {
      hub hub;
      spawn({.name = "sore loser"}, [] {
        try {
          this_fiber::sleep_for(1h);
        } catch (const fiber_killed&) {
          throw std::runtime_error("not yet");
        }
      });
      this_fiber::yield();
    }
    return true;
  });
  CHECK(end.exit == 0);
  CHECK(end.says("sore loser"));
  CHECK(end.says("not yet"));
}

TEST_CASE("selectors, fiber handles, watches and signal sets may outlive their hub, and say so when called") {
  for (const ring_mode mode : all_modes) {
    auto pipe = make_pipe();
    probe_watch watch;
    std::optional<selector> kept_selector;
    std::optional<signal_set> kept_signals;
    fiber<int> done, parked;
    {
      hub hub(options_for(mode));
      kept_selector.emplace();
      kept_selector->register_(pipe.reader.get(), io_event::read);
      kept_signals.emplace(std::initializer_list<int>{SIGUSR2});
      watch.attach(pipe.reader.get());
      watch.arm_now(POLLIN);
      done = spawn([] { return 1; });
      parked = spawn([] {
        this_fiber::sleep_for(1h);
        return 2;
      });
      this_fiber::yield();
    }
    CHECK(watch.hub_ends == 1);
    CHECK_FALSE(watch.attached());
    CHECK_THROWS_AS((void)kept_selector->select(0ms), hub_gone);
    CHECK_THROWS_AS((void)kept_signals->wait(0ms), hub_gone);
    CHECK_THROWS_AS((void)done.get(), hub_gone);
    CHECK_THROWS_AS(parked.kill(), hub_gone);
    kept_selector->close();
    // The kernel holds nothing: a bare close of the reader is seen by the writer.
    pipe.reader.close();
    const handler_scope ignore(SIGPIPE, SIG_IGN);
    CHECK(::write(pipe.writer.get(), "x", 1) == -1);
    CHECK(errno == EPIPE);
    hub another(options_for(mode));  // what is left over does not disturb it
    CHECK_THROWS_AS((void)kept_signals->wait(0ms), hub_gone);
    kept_signals.reset();
    done = {};
    CHECK(spawn([] { return 3; }).get() == 3);
  }
}

TEST_CASE("a hub that has ended leaves no descriptor and no mapping behind") {
  auto pipe = make_pipe();
  const auto use_one = [&](int round) {
    hub hub(options_for(all_modes[static_cast<std::size_t>(round) % all_modes.size()]));
    const hub_handle handle = hub.handle();
    selector selector;
    selector.register_(pipe.reader.get(), io_event::read);
    signal_set signals{SIGUSR2};
    spawn([] { this_fiber::sleep_for(1h); });
    int ran = 0;
    handle.post([&] { ++ran; });
    this_fiber::sleep_for(1ms);
    CHECK(ran == 1);
  };
  for (int round = 0; round < 8; ++round) {
    use_one(round);
  }
  const std::size_t descriptors = open_descriptors();
  const auto kilobytes = proc_value("/proc/self/status", "VmSize");
  for (int round = 0; round < 60; ++round) {
    use_one(round);
  }
  CHECK(open_descriptors() == descriptors);
  CHECK(lines_with("/proc/self/maps", "io_uring") == 0);
  // One slab of stacks that stayed each time would be 960 MiB, one ring each time 18 MiB.
  CHECK(proc_value("/proc/self/status", "VmSize") < kilobytes + 4'096);
}
