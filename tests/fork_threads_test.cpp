// fork(2) while other threads have hubs, and by threads that have none of their own: whatever those were
// doing, the child begins well, and ends when what has forked returns.

#include "support/apart.hpp"
#include "support/child.hpp"
#include "support/files.hpp"
#include "support/forking.hpp"
#include "support/selecting.hpp"

#include <annulet/hub/descriptor.hpp>
#include <annulet/hub/hub.hpp>
#include <annulet/hub/io.hpp>
#include <annulet/hub/offload.hpp>
#include <annulet/hub/process.hpp>
#include <annulet/hub/run_on_all_cores.hpp>
#include <annulet/hub/signal_set.hpp>
#include <annulet/runtime/event.hpp>
#include <annulet/runtime/fiber.hpp>
#include <annulet/runtime/fiber_group.hpp>
#include <annulet/runtime/queue.hpp>
#include <annulet/runtime/this_fiber.hpp>
#include <annulet/selector/selector.hpp>

#include <doctest/doctest.h>

#include <atomic>
#include <chrono>
#include <csignal>
#include <cstdlib>
#include <functional>
#include <optional>
#include <stdexcept>
#include <string_view>
#include <thread>
#include <vector>

using annulet::hub;
using annulet::spawn;
using annulet_test::in_child;
using annulet_test::stderr_capture;
using namespace annulet::test;
using namespace std::chrono_literals;
namespace this_fiber = annulet::this_fiber;

namespace {

// Forks many times while another thread goes on with its work. Each child has to have a hub of its own.
void forks_beside(const std::function<void()>& work) {
  std::atomic<bool> over{false};
  std::thread busy([&] {
    while (!over) {
      work();
    }
  });
  int good = 0;
  constexpr int forks = 400;
  for (int i = 0; i < forks; ++i) {
    const pid_t child = ::fork();
    if (child == 0) {
      bool ended = false;
      {
        hub own;
        ended = spawn([] { this_fiber::sleep_for(1us); }).join(10s);
      }
      ::_exit(ended ? 0 : 1);
    }
    good += exited(status_of(child), 0) ? 1 : 0;
  }
  over = true;
  busy.join();
  CHECK(good == forks);
}

}  // namespace

// The first of all: this process has had no hub yet, and its copies make their first.
TEST_CASE("a child begins well while another thread makes the first hub of the process") {
  int good = 0;
  constexpr int processes = 1000;
  for (int i = 0; i < processes; ++i) {
    const int status = run_apart([i] {
      std::atomic<bool> begins{false};
      std::thread first([&] {
        begins = true;
        const hub home;
        begins.wait(true);
      });
      while (!begins) {
      }
      const auto start = std::chrono::steady_clock::now();
      while (std::chrono::steady_clock::now() - start < i % 60 * 400ns) {
      }
      const pid_t child = ::fork();
      if (child == 0) {
        ::alarm(5);
        const hub own;
        ::_exit(spawn([] { return 7; }).get() == 7 ? 0 : 1);
      }
      const bool began = exited(status_of(child), 0);
      begins = false;
      begins.notify_all();
      first.join();
      return began ? 0 : 1;
    });
    good += status == 0 ? 1 : 0;
  }
  CHECK(good == processes);
}

TEST_CASE("a child begins well while another thread's hub begins and ends") {
  forks_beside([] {
    hub brief;
    annulet::offload([] {});
  });
}

TEST_CASE("a child begins well while another thread's fibers come, wait for descriptors and go") {
  forks_beside([] {
    hub brief;
    for (int i = 0; i < 100; ++i) {
      auto [first, second] = make_socket_pair();
      const auto reader = annulet::descriptor::adopt(first.release());
      const auto writer = annulet::descriptor::adopt(second.release());
      auto reads = spawn_parked([&] {
        std::array<std::byte, 1> byte{};
        (void)annulet::recv(reader, byte);
      });
      annulet::write_all(writer, std::string_view("x"));
      reads.join();
    }
  });
}

TEST_CASE("an offloaded function that forks ends the child when it returns there") {
  hub home;
  CHECK(exited(status_of(annulet::offload([] { return ::fork(); })), 0));
  const stderr_capture capture;
  const pid_t child = annulet::offload([] {
    const pid_t number = ::fork();
    return number == 0 ? throw std::runtime_error("lost") : number;
  });
  CHECK(exited(status_of(child), EXIT_FAILURE));
  CHECK(capture.text().find("lost") != std::string::npos);
}

TEST_CASE("a call of run_on_all_cores that forks ends the child when it returns there") {
  for (const std::size_t who : {0U, 1U}) {
    for (const bool fails : {false, true}) {
      CAPTURE(who);
      CAPTURE(fails);
      const stderr_capture capture;
      pid_t child = -1;
      annulet::run_on_all_cores(
          [&](hub&, std::size_t index) {
            if (index == who) {
              child = ::fork();
              if (child == 0 && fails) {
                throw std::runtime_error("lost");
              }
            }
          },
          {.count = 2});
      CHECK(exited(status_of(child), fails ? EXIT_FAILURE : EXIT_SUCCESS));
      CHECK((capture.text().find("lost") != std::string::npos) == fails);
    }
  }
}

// They are the hub's of another thread than the one that forks, and of the one that does.
TEST_CASE("static objects that fibers of the parent wait for may be destroyed by the child's exit") {
  const auto end = in_child([] {
    static annulet::event flag;
    static annulet::queue<int> items(1);
    static annulet::fiber_group group;
    static std::vector<annulet::fiber<void>> fibers;
    static std::optional<annulet::descriptor> file;
    static std::optional<annulet::selector> sel;
    static std::optional<annulet::signal_set> signals;
    static std::optional<annulet::process> sleeper;
    hub home;
    auto [first, second] = make_socket_pair();
    file = annulet::descriptor::adopt(first.release());
    sel.emplace();
    sel->register_(*file, annulet::io_event::read);
    signals.emplace(std::initializer_list<int>{SIGUSR1});
    sleeper.emplace(annulet::process_options{.command = {"sleep", "1000"}});
    group.spawn([] { flag.wait(); });
    fibers.push_back(spawn_parked([] { flag.wait(); }));
    fibers.push_back(spawn_parked([] { (void)items.pop(); }));
    fibers.push_back(spawn_parked([] { (void)sel->select(); }));
    fibers.push_back(spawn_parked([] { (void)signals->wait(); }));
    pid_t child = -1;
    const auto fork_and_exit = [&] {
      child = ::fork();
      if (child == 0) {
        std::exit(0);
      }
    };
    std::thread(fork_and_exit).join();
    const bool by_thread = exited(status_of(child), 0);
    spawn(fork_and_exit).join();
    const bool by_fiber = exited(status_of(child), 0);
    bool sleeps = false;
    try {
      (void)sleeper->wait(0s);
    } catch (const annulet::deadline_passed&) {
      sleeps = sleeper->kill();
    }
    ::_exit((by_thread ? 0 : 2) + (by_fiber ? 0 : 4) + (sleeps ? 0 : 8));
    return false;
  });
  CAPTURE(end.said);
  CHECK(end.exit == 0);
}
