#include "oracle/run.hpp"
#include "support/child.hpp"
#include "support/files.hpp"
#include "support/probe_watch.hpp"

#include <annulet/hub/hub.hpp>
#include <annulet/runtime/fiber.hpp>

#include <doctest/doctest.h>

#include <algorithm>
#include <atomic>
#include <functional>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

using namespace annulet;
using namespace annulet::test;
using annulet_test::in_child;
using namespace std::chrono_literals;

namespace {

// What the kernel says is waiting in the hub's eventfd. Nobody reads it before the hub has first slept.
std::uint64_t wake_writes() {
  const std::string info = "/proc/self/fdinfo/" + std::to_string(this_hub().io().wake_fd());
  return proc_value(info, "eventfd-count", 16);
}

// Each is a fiber, and some tools take a millisecond for that.
std::size_t usual_posts() { return oracle::from_environment("ANNULET_POSTS", 100'000); }

}  // namespace

TEST_CASE("posts of many threads all run, those of one thread in their order") {
  constexpr std::size_t threads = 8;
  const std::size_t posts_each = usual_posts() / threads;
  for (const ring_mode mode : all_modes) {
    hub hub(options_for(mode));
    std::array<std::size_t, threads> next{};
    std::size_t ran = 0, out_of_order = 0;
    event all_ran;
    std::vector<std::thread> posters;
    for (std::size_t id = 0; id < threads; ++id) {
      posters.emplace_back([&, id, handle = hub.handle()] {
        for (std::size_t i = 0; i < posts_each; ++i) {
          handle.post([&, id, i] {
            out_of_order += next[id]++ == i ? 0U : 1U;
            if (++ran == threads * posts_each) {
              all_ran.set();
            }
          });
        }
      });
    }
    CHECK(all_ran.wait(60s));
    for (auto& poster : posters) {
      poster.join();
    }
    CHECK(ran == threads * posts_each);
    CHECK(out_of_order == 0);
  }
}

TEST_CASE("a post wakes a hub that sleeps, each time") {
  for (const ring_mode mode : all_modes) {
    hub hub(options_for(mode));
    constexpr int rounds = 5'000;
    std::atomic<int> answered{0};
    event done;
    std::thread poster([&, handle = hub.handle()] {
      for (int i = 0; i < rounds; ++i) {
        handle.post([&] { ++answered; });
        const auto limit = std::chrono::steady_clock::now() + 10s;
        while (answered == i && std::chrono::steady_clock::now() < limit) {
          if (i % 2 == 0) {
            std::this_thread::yield();
          }
        }
        if (answered == i) {
          break;
        }
      }
      handle.post([&] { done.set(); });
    });
    CHECK(done.wait(60s));
    poster.join();
    CHECK(answered == rounds);
  }
}

TEST_CASE("a hub that is awake is posted to without a write to its eventfd") {
  for (const ring_mode mode : all_modes) {
    hub hub(options_for(mode));
    REQUIRE(wake_writes() == 0);
    int ran = 0;
    event done;
    std::thread poster([&, handle = hub.handle()] {
      for (int i = 0; i < 1'000; ++i) {
        handle.post([&] { ++ran; });
      }
      handle.post([&] { done.set(); });
    });
    poster.join();  // this fiber has not parked meanwhile
    CHECK(wake_writes() == 0);
    add_to_eventfd(this_hub().io().wake_fd());
    CHECK(wake_writes() == 1);  // so a write would have shown
    CHECK(done.wait(10s));
    CHECK(ran == 1'000);
  }
}

TEST_CASE("a posted function runs as a fiber, so it may park, spawn and post again") {
  hub hub;
  std::vector<std::string> log;
  event done;
  const hub_handle handle = hub.handle();
  handle.post([&] {
    log.emplace_back(this_fiber::name());
    this_fiber::sleep_for(5ms);
    log.emplace_back("after the sleep");
    spawn([&] { log.emplace_back("child"); }).join();
    handle.post([&] {
      log.emplace_back("posted by a post");
      done.set();
    });
  });
  handle.post([&] { log.emplace_back("second"); });
  REQUIRE(done.wait(patience));
  CHECK(log == std::vector<std::string>{"posted", "second", "after the sleep", "child", "posted by a post"});
}

TEST_CASE("what a posted function throws is reported on stderr, and the hub goes on") {
  const auto end = in_child([] {
    hub hub;
    const hub_handle handle = hub.handle();
    event done;
    handle.post([] { throw std::runtime_error("spilt milk"); });
    handle.post([] { throw 3; });
    handle.post([&] { done.set(); });
    return done.wait(patience);
  });
  CHECK(end.exit == 0);
  CHECK(end.says("spilt milk"));
  CHECK(end.says("posted"));
  CHECK(end.says("nobody collected"));
}

TEST_CASE("a post after the hub's end throws hub_gone, and its function is destroyed") {
  auto token = std::make_shared<int>(0);
  std::optional<hub_handle> handle;
  {
    hub hub;
    handle = hub.handle();
  }
  CHECK_THROWS_AS(handle->post([token] { ++*token; }), hub_gone);
  CHECK(token.use_count() == 1);
  const hub_handle copy = *handle;
  CHECK_THROWS_WITH(copy.post([] {}), doctest::Contains("has ended"));
  std::thread([&] { CHECK_THROWS_AS(copy.post([] {}), hub_gone); }).join();
  hub another;  // an old handle does not find a new hub
  CHECK_THROWS_AS(copy.post([] {}), hub_gone);
  CHECK(*token == 0);
}

TEST_CASE("a handle that was moved from says so") {
  hub hub;
  hub_handle handle = hub.handle();
  const hub_handle taken = std::move(handle);
  CHECK_THROWS_AS(handle.post([] {}), std::logic_error);  // NOLINT(bugprone-use-after-move)
  int ran = 0;
  taken.post([&] { ++ran; });
  this_fiber::sleep_for(1ms);
  CHECK(ran == 1);
}

TEST_CASE("what was posted and not begun when the hub ends is destroyed without being run") {
  auto token = std::make_shared<int>(0);
  std::optional<hub_handle> handle;
  {
    hub hub;
    handle = hub.handle();
    for (int i = 0; i < 10; ++i) {
      handle->post([token] { ++*token; });
    }
    CHECK(token.use_count() == 11);
  }
  CHECK(*token == 0);
  CHECK(token.use_count() == 1);
}

TEST_CASE("threads that post while the hub ends get every post run, destroyed or refused") {
  for (int round = 0; round < 200; ++round) {
    auto token = std::make_shared<std::atomic<int>>(0);
    std::atomic<int> accepted{0}, started{0};
    std::vector<std::thread> posters;
    {
      hub hub(options_for(all_modes[static_cast<std::size_t>(round) % all_modes.size()]));
      for (int id = 0; id < 2; ++id) {
        posters.emplace_back([&, token, handle = hub.handle()] {
          ++started;
          try {
            for (;;) {
              handle.post([token] { ++*token; });
              ++accepted;
              std::this_thread::sleep_for(1us);  // or they would come faster than they can be run
            }
          } catch (const hub_gone&) {
          }
        });
      }
      while (started < 2) {
        this_fiber::sleep_for(50us);
      }
    }
    for (auto& poster : posters) {
      poster.join();
    }
    REQUIRE(token.use_count() == 1);
    REQUIRE(*token <= accepted);
  }
}

TEST_CASE("a wait that nobody can end is a deadlock, and is none while a handle exists") {
  hub hub;
  event never_set;
  CHECK_THROWS_AS(never_set.wait(), deadlock);
  std::optional<hub_handle> handle = hub.handle();
  std::optional<hub_handle> copy = handle;
  std::thread setter([&] {
    std::this_thread::sleep_for(10ms);
    copy->post([&] { never_set.set(); });
    copy.reset();
  });
  CHECK(never_set.wait());
  setter.join();
  never_set.clear();
  handle.reset();
  CHECK_THROWS_AS(never_set.wait(), deadlock);
}

TEST_CASE("dropping the last handle turns a silent wait into a deadlock") {
  const auto end = in_child([] {
    for (const ring_mode mode : all_modes) {
      hub hub(options_for(mode));
      event never_set;
      for (int round = 0; round < 2'000; ++round) {
        std::atomic<bool> go{false};
        std::thread holder([&go, round, handle = std::optional(hub.handle())]() mutable {
          while (!go) {
          }
          for (std::atomic<int> spin{round % 500}; spin > 0; --spin) {
          }
          handle.reset();
        });
        bool told = false;
        go = true;
        try {
          never_set.wait();
        } catch (const deadlock&) {
          told = true;
        }
        holder.join();
        if (!told) {
          return false;
        }
      }
    }
    return true;
  });
  CHECK(end.exit == 0);
}

TEST_CASE("a last handle that is dropped just before the hub falls asleep is not slept through") {
  // The two questions that the scheduler asks on its way to sleep, and the drop between them.
  const auto end = in_child(
      [] {
        hub hub;
        std::optional<hub_handle> last = hub.handle();
        this_fiber::sleep_for(1ms);
        if (!this_hub().has_outside_handles()) {
          return false;
        }
        std::thread([&] { last.reset(); }).join();
        this_hub().wait(deadline::never());
        return !this_hub().has_outside_handles();
      },
      5);
  CHECK(end.exit == 0);
}

TEST_CASE("a posted function that posts itself again keeps no watch from being told") {
  for (const ring_mode mode : all_modes) {
    hub hub(options_for(mode));
    auto pipe = make_pipe();
    probe_watch watch(pipe.reader.get());
    watch.want(POLLIN);
    send_byte(pipe.writer.get());
    const hub_handle handle = hub.handle();
    const deadline limit = 3s;
    bool stop = false;
    std::function<void()> again = [&] {
      if (!stop && !limit.reached()) {
        handle.post(again);
      }
    };
    handle.post(again);
    CHECK(watch.told(1));
    CHECK_FALSE(limit.reached());
    stop = true;
    this_fiber::sleep_for(1ms);  // the last of them runs
  }
}

TEST_CASE("a flood of posts becomes no flood of fibers") {
  const std::size_t posts = 2 * usual_posts();
  hub hub;
  std::size_t ran = 0, most = 0;
  event all_ran;
  std::thread poster([&, handle = hub.handle()] {
    for (std::size_t i = 0; i < posts; ++i) {
      handle.post([&] {
        most = std::max(most, hub.fiber_count());
        if (++ran == posts) {
          all_ran.set();
        }
      });
    }
  });
  CHECK(all_ran.wait(60s));
  poster.join();
  CHECK(ran == posts);
  CHECK(most < 10'000);
}
