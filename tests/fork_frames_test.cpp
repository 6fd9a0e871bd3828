// What is in the frames of a fiber that forks, and is destroyed in the child while the fibers that use it are
// the parent's; without a hub there, and with one of the child's own.

#include "support/files.hpp"
#include "support/forking.hpp"
#include "support/selecting.hpp"

#include <annulet/hub/descriptor.hpp>
#include <annulet/hub/hub.hpp>
#include <annulet/hub/signal_set.hpp>
#include <annulet/runtime/cancellation.hpp>
#include <annulet/runtime/condition_variable.hpp>
#include <annulet/runtime/errors.hpp>
#include <annulet/runtime/event.hpp>
#include <annulet/runtime/fiber.hpp>
#include <annulet/runtime/fiber_group.hpp>
#include <annulet/runtime/future.hpp>
#include <annulet/runtime/mutex.hpp>
#include <annulet/runtime/queue.hpp>
#include <annulet/runtime/scope.hpp>
#include <annulet/runtime/semaphore.hpp>
#include <annulet/runtime/shared_mutex.hpp>
#include <annulet/runtime/this_fiber.hpp>
#include <annulet/selector/selector.hpp>

#include <doctest/doctest.h>

#include <csignal>
#include <cstdlib>
#include <functional>
#include <mutex>
#include <optional>
#include <shared_mutex>
#include <stdexcept>
#include <vector>

using annulet::hub;
using annulet::spawn;
using namespace annulet::test;
using namespace std::chrono_literals;
namespace this_fiber = annulet::this_fiber;

namespace {

// What a fiber has in its frames when it calls fork, which says whether this is the child, and what the child
// then leaves. `has_hub`: one of its own while it does.
using scene = std::function<void(const std::function<bool()>& fork)>;

int status_of_child_in(const scene& play, bool has_hub) {
  pid_t child = -1;
  spawn([&] {
    std::optional<hub> own;
    play([&] {
      child = ::fork();
      if (child == 0 && has_hub) {
        own.emplace();
      }
      return child == 0;
    });
    if (child == 0) {
      own.reset();
      return;  // which ends it
    }
  }).join();
  return status_of(child);
}

void leaves_well(const scene& play) {
  hub home;
  for (const bool has_hub : {false, true}) {
    CAPTURE(has_hub);
    CHECK(exited(status_of_child_in(play, has_hub), 0));
  }
}

// Parks, and says nothing of what ends that.
template <class Call>
void park_in(Call&& call) {
  spawn_parked([call] {
    try {
      call();
    } catch (const std::exception&) {
      // It was destroyed meanwhile.
    }
  }).detach();
}

}  // namespace

TEST_CASE("a selector in which another fiber is parked may go in the child") {
  leaves_well([](const auto& fork) {
    std::vector<socket_pair> pairs;
    annulet::selector sel;
    for (int i = 0; i < 600; ++i) {  // more than one batch of keys
      pairs.push_back(make_socket_pair());
      sel.register_(pairs.back().first.get(), annulet::io_event::read);
    }
    park_in([&] { (void)sel.select(); });
    fork();
  });
}

TEST_CASE("a set of signals that another fiber waits for may go in the child") {
  leaves_well([](const auto& fork) {
    annulet::signal_set set{SIGUSR1};
    park_in([&] { (void)set.wait(); });
    fork();
  });
}

TEST_CASE("primitives that other fibers wait for may go in the child") {
  leaves_well([](const auto& fork) {
    annulet::event flag;
    annulet::queue<int> items(1);
    annulet::mutex mutex;
    annulet::condition_variable changed;
    annulet::promise<int> promise;
    auto future = promise.get_future();
    park_in([&] { flag.wait(); });
    park_in([&] { (void)items.pop(); });
    auto gets = spawn_parked([&] { return future.get(); });
    auto waits = spawn_parked([&] {
      std::unique_lock lock(mutex);
      changed.wait(lock);
    });
    if (!fork()) {  // these use more of it when they go on
      promise.set_value(1);
      changed.notify_all();
      gets.join();
      waits.join();
    }
  });
}

TEST_CASE("what the fiber holds is given back in the child, and no more than that") {
  leaves_well([](const auto& fork) {
    annulet::mutex mutex;
    annulet::shared_mutex read;
    annulet::shared_mutex written;
    const std::lock_guard holds(mutex);
    const std::shared_lock reads(read);
    const std::unique_lock writes(written);
    const annulet::timeout guard(1h);
    const annulet::shield whole;
    park_in([&] { mutex.lock(); });
    fork();
  });
  hub home;
  annulet::semaphore permits(0);
  park_in([&] { (void)permits.acquire(1h); });
  permits.release();  // it was used in the parent, and nobody waits now
  this_fiber::yield();
  const pid_t child = ::fork();
  if (child == 0) {
    verdict v;
    hub own;
    permits.release();
    v.holds(permits.acquire(0s));
    v.leave();
  }
  CHECK(exited(status_of(child), 0));
}

TEST_CASE("groups and handles may go in the child, and say that their hub is gone where it has another") {
  leaves_well([](const auto& fork) {
    annulet::event flag;
    annulet::fiber_group group;
    group.spawn([&] { flag.wait(); });
    auto other = spawn_parked([&] { flag.wait(); });
    auto joins = spawn_parked([&] { (void)other.join(); });
    auto done = spawn([] { return 1; });
    done.join();
    fork();
  });
  hub home;
  annulet::event flag;
  auto other = spawn_parked([&] { flag.wait(); });
  const pid_t child = ::fork();
  if (child == 0) {
    verdict v;
    hub own;
    v.throws<annulet::hub_gone>([&] { other.join(); });
    v.throws<annulet::hub_gone>([&] { other.kill(); });
    v.leave();
  }
  CHECK(exited(status_of(child), 0));
  flag.set();
  other.join();
}

TEST_CASE("a scope that forks waits in the child for nobody, and lets an error through") {
  leaves_well([](const auto& fork) {
    annulet::event flag;
    const int value = annulet::scope([&](annulet::fiber_group& children) {
      children.spawn([&] { flag.wait(); });
      this_fiber::yield();
      if (!fork()) {
        flag.set();
      }
      return 7;
    });
    if (value != 7) {
      ::_exit(8);
    }
  });
  hub home;
  pid_t child = -1;
  spawn([&] {
    try {
      annulet::scope([&](annulet::fiber_group& children) {
        children.spawn([] { this_fiber::sleep_for(1h); });
        child = ::fork();
        throw std::out_of_range("lost");
      });
    } catch (const std::out_of_range&) {
      if (child == 0) {
        ::_exit(5);
      }
    }
  }).join();
  CHECK(exited(status_of(child), 5));
}
