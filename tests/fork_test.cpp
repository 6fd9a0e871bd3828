// fork(2) from a fiber: the child has that fiber and no hub, and must not touch what it shares with its
// parent.
//
// ANNULET_FORKS says how many forks there are with waits in flight.

#include "oracle/run.hpp"
#include "support/child.hpp"
#include "support/connected_pair.hpp"
#include "support/files.hpp"
#include "support/forking.hpp"
#include "support/texts.hpp"

#include <annulet/selector/posix.h>
#include <annulet/hub/close.hpp>
#include <annulet/hub/descriptor.hpp>
#include <annulet/hub/hub.hpp>
#include <annulet/hub/io.hpp>
#include <annulet/hub/offload.hpp>
#include <annulet/runtime/cancellation.hpp>
#include <annulet/runtime/errors.hpp>
#include <annulet/runtime/event.hpp>
#include <annulet/runtime/fiber.hpp>
#include <annulet/runtime/fiber_group.hpp>
#include <annulet/runtime/mutex.hpp>
#include <annulet/runtime/queue.hpp>
#include <annulet/runtime/semaphore.hpp>
#include <annulet/runtime/shared_mutex.hpp>
#include <annulet/runtime/this_fiber.hpp>
#include <annulet/selector/selector.hpp>

#include <doctest/doctest.h>

#include <poll.h>
#include <unistd.h>
#include <array>
#include <chrono>
#include <cstdlib>
#include <functional>
#include <iostream>
#include <memory>
#include <mutex>
#include <shared_mutex>
#include <string>
#include <thread>
#include <vector>

using annulet::hub;
using annulet::spawn;
using annulet_test::stderr_capture;
namespace this_fiber = annulet::this_fiber;
using namespace annulet::test;
using namespace std::chrono_literals;

namespace {

bool has_none_of_a_hub() {
  return descriptors_that_are("io_uring") + descriptors_that_are("eventpoll") +
             descriptors_that_are("eventfd") + lines_with("/proc/self/maps", "io_uring") ==
         0;
}

}  // namespace

TEST_CASE("in the child each call on what is the parent's says so, and the kernel's side of it is closed") {
  hub home;
  const annulet::hub_handle handle = home.handle();
  annulet::selector sel;
  annulet::event flag;
  auto other = spawn([&] { flag.wait(); });
  this_fiber::yield();
  CHECK(!has_none_of_a_hub());
  CHECK((lines_with("/proc/self/maps", "io_uring") != 0) == (home.engine_report().name == "io_uring"));
  const pid_t child = ::fork();
  if (child == 0) {
    verdict v;
    v.throws<annulet::no_hub>([] { this_fiber::yield(); });
    v.throws<annulet::no_hub>([] { spawn([] {}).detach(); });
    v.throws<annulet::no_hub>([&] { flag.set(); });
    v.throws<annulet::hub_gone>([&] { other.join(); });
    v.throws<annulet::hub_gone>([&] { handle.post([] {}); });
    v.throws<annulet::hub_gone>([&] { (void)home.fiber_count(); });
    v.throws<annulet::hub_gone>([&] { (void)sel.select(0ms); });
    v.holds(has_none_of_a_hub());
    v.leave();
  }
  CHECK(exited(status_of(child), 0));
  flag.set();
  other.join();
}

// A handler of fork(2) that was there before the hub's has this moment, too.
TEST_CASE("the drop-ins are the plain calls in a child that no handler of fork has seen") {
  hub home;
  annulet::event flag;
  auto other = spawn([&] { flag.wait(); });
  bool ran = false;
  auto ready = spawn([&] { ran = true; });
  const tcp_pair both = connected_pair();
  const descriptor& reader = both.client;
  const descriptor& writer = both.server;
  write_text(writer.get(), "x");
  const pid_t child = ::_Fork();
  if (child == 0) {
    verdict v;
    char byte = 0;
    pollfd one{reader.get(), POLLIN, 0};
    v.holds(annulet_poll(&one, 1, 0) == 1 && one.revents == POLLIN);
    v.holds(annulet_poll(&one, 1, -1) == 1);
    v.holds(annulet_read(reader.get(), &byte, 1) == 1 && byte == 'x');
    v.holds(annulet_poll(&one, 1, 0) == 0);
    v.holds(annulet_poll(&one, 1, 10) == 0);
    v.holds(annulet_usleep(1000) == 0);
    v.holds(annulet_write(writer.get(), "y", 1) == 1 && annulet_read(reader.get(), &byte, 1) == 1);
    v.holds(annulet_close(reader.get()) == 0);
    v.holds(!ran);  // nobody parked
    for (int fd = 3; fd < 1024; ++fd) {
      (void)annulet_close(fd);  // the hub has none here that are its own
    }
    v.holds(has_none_of_a_hub());
    v.leave();
  }
  CHECK(exited(status_of(child), 0));
  flag.set();
  other.join();
  ready.join();
}

TEST_CASE("when the function of the fiber that forked returns in the child, that ends with exit(0)") {
  hub home;
  pid_t child = -1;
  auto forks = spawn([&] { child = ::fork(); });
  forks.join();
  CHECK(exited(status_of(child), 0));
  SUBCASE("and where it ends by an error, that is told and the child fails") {
    const stderr_capture capture;
    spawn({.name = "forks"}, [&] {
      child = ::fork();
      if (child == 0) {
        throw std::runtime_error("lost");
      }
    }).join();
    CHECK(exited(status_of(child), EXIT_FAILURE));
    CHECK(capture.text().find("\"forks\"") != std::string::npos);
    CHECK(capture.text().find("lost") != std::string::npos);
  }
}

TEST_CASE("all that the fiber that forked has in its frames may go in the child as it does in the parent") {
  hub home;
  annulet::mutex mutex;
  annulet::shared_mutex shared;
  annulet::semaphore permits(1);
  pid_t child = -1;
  auto forks = spawn([&] {
    annulet::queue<int> queue(1);
    annulet::event flag;
    annulet::fiber_group group;
    annulet::selector sel;
    auto [first, second] = make_socket_pair();
    auto owned = annulet::descriptor::adopt(first.release());
    const int peer = second.get();
    sel.register_(peer, annulet::io_event::read);
    group.spawn([&] { flag.wait(); });
    auto pops = spawn([&] { (void)queue.pop(); });
    auto receives = spawn([&] {
      std::array<std::byte, 1> byte{};
      (void)annulet::recv(owned, byte);
    });
    auto done = spawn([] { return std::string("done"); });
    done.join();
    annulet::timeout armed(1h);
    const annulet::shield held_off;
    const std::lock_guard lock(mutex);
    const std::shared_lock reads(shared);
    permits.acquire();
    this_fiber::yield();
    child = ::fork();
    permits.release();
    if (child != 0) {
      queue.close();
      flag.set();
      owned.close();
      pops.join();
      receives.join();
      group.join();
    }
  });
  {
    const stderr_capture capture;  // the recv ends by an error that nobody collects
    forks.join();
    CHECK(exited(status_of(child), 0));
  }
  CHECK(mutex.try_lock());
  mutex.unlock();
}

TEST_CASE("the child may have a hub of its own, in main and in a fiber") {
  hub home;
  const auto work = [] {
    hub own;
    auto [from, to] = make_pipe();
    const int in = to.get(), out = from.get();
    auto reads = spawn([out] {
      std::array<std::byte, 4> bytes{};
      return annulet::read(out, bytes);
    });
    this_fiber::sleep_for(1ms);
    const std::array<std::byte, 3> bytes{};
    (void)annulet::write(in, bytes);
    return reads.get() == 3 && annulet::offload([] { return 7; }) == 7;
  };
  const pid_t child = ::fork();
  if (child == 0) {
    ::_exit(work() ? 0 : 1);
  }
  CHECK(exited(status_of(child), 0));
  pid_t second = -1;
  spawn([&] {
    second = ::fork();
    if (second == 0 && !work()) {
      ::_exit(1);
    }
  }).join();
  CHECK(exited(status_of(second), 0));
}

TEST_CASE("a thread without a hub may fork while others have theirs") {
  hub home;
  auto sleeps = spawn([] { this_fiber::sleep_for(1ms); });
  std::thread([&] {
    const pid_t child = ::fork();
    if (child == 0) {
      verdict v;
      v.throws<annulet::no_hub>([] { this_fiber::yield(); });
      v.holds(descriptors_that_are("io_uring") == 0);
      hub own;
      auto f = spawn([] { this_fiber::sleep_for(1ms); });
      v.holds(f.join(10s));
      v.leave();
    }
    CHECK(exited(status_of(child), 0));
  }).join();
  sleeps.join();
}

TEST_CASE("exec inherits nothing of a hub") {
  hub home;
  const pid_t child = ::fork();
  if (child == 0) {
    ::execl("/bin/sh", "sh", "-c", "! ls -l /proc/$$/fd | grep -E 'io_uring|eventpoll|eventfd'", nullptr);
    ::_exit(99);
  }
  CHECK(exited(status_of(child), 0));
}

TEST_CASE("forks with a thousand waits in flight cost the parent none of them") {
  hub home;
  constexpr std::size_t waits = 1000;
  const auto forks = oracle::from_environment("ANNULET_FORKS", 50);
  std::vector<socket_pair> pairs;
  std::vector<annulet::fiber<std::size_t>> readers;
  for (std::size_t i = 0; i < waits; ++i) {
    pairs.push_back(make_socket_pair());
    readers.push_back(spawn([fd = pairs.back().first.get()] {
      std::array<std::byte, 64> bytes{};
      std::size_t all = 0;
      while (const std::size_t got = annulet::recv(fd, bytes)) {
        all += got;
      }
      return all;
    }));
  }
  this_fiber::sleep_for(1ms);
  std::size_t sent = 0;
  for (std::size_t i = 0; i < forks; ++i) {
    const pid_t child = ::fork();
    if (child == 0) {
      bool good = true;
      {
        hub own;
        auto f = spawn([] {
          this_fiber::sleep_for(100us);
          return 1;
        });
        good = f.get() == 1;
      }
      ::_exit(good ? 0 : 1);
    }
    // Bytes come while the child runs.
    for (std::size_t which = i % 7; which < waits; which += 7) {
      send_byte(pairs[which].second.get());
      ++sent;
    }
    this_fiber::yield();
    CHECK(exited(status_of(child), 0));
  }
  std::size_t received = 0;
  for (std::size_t i = 0; i < waits; ++i) {
    ::shutdown(pairs[i].second.get(), SHUT_WR);
  }
  for (auto& each : readers) {
    received += each.get();
  }
  CHECK(received == sent);
  std::cout << "note: " << forks << " forks, " << sent << " bytes, none lost" << std::endl;
}

TEST_CASE("a fiber may call exit, in the parent or the child, and static objects are destroyed") {
  const auto child = annulet_test::in_child([] {
    struct last_word {
      ~last_word() { [[maybe_unused]] const auto written = ::write(STDERR_FILENO, "destroyed\n", 10); }
    };
    static const last_word word;
    hub home;
    annulet::event never;
    auto parked = spawn([&] { never.wait(); });
    spawn([] { std::exit(3); }).join();
    return true;
  });
  CHECK(child.exit == 3);
  CHECK(child.said == "destroyed\n");
}
