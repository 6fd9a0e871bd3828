// What cuts the kernel's waits short, and is no handled signal: a process that was stopped and goes on, and a
// ring that this thread has closed, of which io_uring tells it by what looks like a signal to epoll_wait. It
// ends no parked call, in a process of one thread (the first case: none has been started yet) and beside
// others.

#include "support/counted_signal.hpp"
#include "support/descriptor_limit.hpp"
#include "support/engine.hpp"
#include "support/files.hpp"
#include "support/forked_sender.hpp"

#include <annulet/selector/posix.h>
#include <annulet/hub/hub.hpp>

#include <doctest/doctest.h>

#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <optional>
#include <system_error>
#include <thread>

#include <unistd.h>

using namespace std::chrono_literals;
using namespace annulet::test;

namespace {

bool close_a_ring() {
  annulet::hub_options options;
  options.engine = annulet::engine_choice::uring;
  try {
    const annulet::hub on_a_ring(options);
    return true;
  } catch (const std::system_error&) {
    std::puts("note: skipped: no ring is to be had here, so none was closed");
    return false;
  }
}

int poll_for_50_ms() { return annulet_poll(nullptr, 0, 50); }

void check_uninterrupted() {
  const counted_signal usr1(SIGUSR1);
  for (const bool with_descriptor : {true, false}) {
    CAPTURE(with_descriptor);
    for (int i = 0; i < 10 && close_a_ring(); ++i) {
      const annulet::hub home;
      std::optional<lowered_limit> none;
      if (!with_descriptor) {
        none.emplace(1);  // as many as may be polled
      }
      CHECK(poll_for_50_ms() == 0);
    }
    // Where there is no descriptor, a ring has no way to tell.
    if (const annulet::hub home; with_descriptor || on_epoll()) {
      const forked_sender sender(10ms, [](pid_t to) {
        ::kill(to, SIGSTOP);
        ::usleep(10'000);
        ::kill(to, SIGCONT);
      });
      std::optional<lowered_limit> none;
      if (!with_descriptor) {
        none.emplace(1);  // as many as may be polled
      }
      CHECK(poll_for_50_ms() == 0);
      // And a signal does.
      const forked_sender another(10ms, [](pid_t to) { ::kill(to, SIGUSR1); });
      CHECK(annulet_poll(nullptr, 0, 5000) == -1);
      CHECK(errno == EINTR);
    }
  }
  CHECK(usr1.times() == (on_epoll() ? 2 : 1));
}

}  // namespace

TEST_CASE("in a process of one thread") { check_uninterrupted(); }

TEST_CASE("beside another thread") {
  const std::jthread another([](const std::stop_token& over) {
    while (!over.stop_requested()) {
      std::this_thread::sleep_for(1ms);
    }
  });
  check_uninterrupted();
}
