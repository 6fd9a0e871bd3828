// Fibers that were killed, and go on calling what waits, or what need not.

#include "support/files.hpp"

#include <annulet/selector/posix.h>
#include <annulet/hub/hub.hpp>
#include <annulet/runtime/cancellation.hpp>
#include <annulet/runtime/errors.hpp>
#include <annulet/runtime/fiber.hpp>
#include <annulet/runtime/mutex.hpp>

#include <doctest/doctest.h>

#include <cerrno>
#include <chrono>
#include <functional>
#include <vector>

using namespace std::chrono_literals;
using annulet::test::make_pipe;

TEST_CASE("a killed fiber that sleeps until nothing is left of the time ends") {
  annulet::hub home;
  unsigned left = 100;
  unsigned rounds = 0;
  auto sleeper = annulet::spawn([&] {
    while (left != 0 && rounds < 1000) {
      left = annulet_sleep(left);
      ++rounds;
    }
  });
  annulet::this_fiber::sleep_for(1ms);
  sleeper.kill();
  sleeper.join();
  CHECK(left == 0);
  CHECK(rounds == 2);
}

TEST_CASE("a killed fiber that tries for ever to wait lets others run") {
  const auto pipe = make_pipe(O_CLOEXEC);
  const std::vector<std::function<long()>> calls = {
      [] { return annulet_usleep(900'000); },
      [] {
        const timespec some{100, 0};
        return annulet_nanosleep(&some, nullptr);
      },
      [] { return annulet_poll(nullptr, 0, -1); },
      [] { return annulet_select(0, nullptr, nullptr, nullptr, nullptr); },
      [&] {
        char byte = 0;
        return annulet_read(pipe.reader.get(), &byte, 1);
      },
  };
  for (std::size_t i = 0; i < calls.size(); ++i) {
    CAPTURE(i);
    annulet::hub home;
    bool over = false;
    bool in_time = false;
    auto stubborn = annulet::spawn([&] {
      const auto limit = std::chrono::steady_clock::now() + 2s;
      while (!over && std::chrono::steady_clock::now() < limit) {
        CHECK(calls[i]() == -1);
        CHECK(errno == ECANCELED);
      }
      in_time = over;
    });
    annulet::this_fiber::sleep_for(1ms);
    stubborn.kill();
    annulet::this_fiber::sleep_for(1ms);
    over = true;
    stubborn.join();
    CHECK(in_time);
  }
}

// Nobody else is there to run, so nothing is handed on; what is pending has to be told all the same.
TEST_CASE("an expired guard is told between looks and calls of C++ that never park") {
  annulet::hub home;
  annulet::mutex free;
  const auto begin = std::chrono::steady_clock::now();
  bool told = false;
  try {
    const annulet::timeout guard(20ms);
    while (std::chrono::steady_clock::now() - begin < 2s) {
      CHECK(annulet_poll(nullptr, 0, 0) == 0);
      free.lock();
      free.unlock();
    }
  } catch (const annulet::timeout_expired&) {
    told = true;
  }
  CHECK(told);
}

TEST_CASE("a fiber that killed itself ends between looks and calls of C++ that never park") {
  annulet::hub home;
  annulet::mutex free;
  bool over = false;
  annulet::fiber<void> suicidal;
  suicidal = annulet::spawn([&] {
    suicidal.kill();
    const auto limit = std::chrono::steady_clock::now() + 2s;
    while (std::chrono::steady_clock::now() < limit) {
      CHECK(annulet_poll(nullptr, 0, 0) == 0);
      free.lock();
      free.unlock();
    }
    over = true;
  });
  suicidal.join();
  CHECK_FALSE(over);
}
