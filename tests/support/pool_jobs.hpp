// Jobs for a worker_pool, and what the tests of it ask.
#pragma once

#include "files.hpp"

#include <annulet/hub/worker_pool.hpp>

#include <doctest/doctest.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <cstddef>
#include <filesystem>
#include <functional>
#include <memory>
#include <thread>
#include <utility>
#include <vector>

#include <fcntl.h>
#include <poll.h>
#include <unistd.h>

namespace annulet::test {

using detail::worker_pool;
using urgency = worker_pool::urgency;

class job final : public worker_pool::job {
 public:
  explicit job(std::function<int()> body) : body_(std::move(body)) {}
  void run() noexcept override {
    begun = true;
    result = body_();
  }
  void ended() noexcept override {}

  std::atomic<bool> begun{false};
  int result = 0;  // to be read when the pool has given it back

 private:
  std::function<int()> body_;
};

// One read, as it ends: a count or a negative errno.
inline int read_once(int fd) {
  char byte = 0;
  const auto got = ::read(fd, &byte, 1);
  return got < 0 ? -errno : static_cast<int>(got);
}

inline bool is_readable(int fd) {
  pollfd file{fd, POLLIN, 0};
  return require_ok(::poll(&file, 1, 0), "poll") == 1;
}

// Bounded jobs count for an hour, where nobody says otherwise.
struct pool_and_bell {
  explicit pool_and_bell(std::chrono::nanoseconds patience = std::chrono::hours(1))
      : pool(bell.get(), patience) {}

  // The next that has ended, or null where none has within ten seconds.
  job* next_ended() {
    const auto give_up = std::chrono::steady_clock::now() + std::chrono::seconds(10);
    for (;;) {
      if (auto* const ended = pool.take_ended()) {
        return static_cast<job*>(ended);
      }
      pollfd rung{bell.get(), POLLIN, 0};
      if (::poll(&rung, 1, pool.tend() ? 10'000 : 10) == 1) {
        (void)try_read(bell.get());
      } else if (std::chrono::steady_clock::now() > give_up) {
        return nullptr;
      }
    }
  }

  descriptor bell = make_eventfd();
  worker_pool pool;
};

inline void wait_until(const std::function<bool()>& condition) {
  const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(10);
  while (!condition()) {
    REQUIRE(std::chrono::steady_clock::now() < end);
    std::this_thread::yield();
  }
}

inline std::size_t threads() {
  std::size_t count = 0;
  for ([[maybe_unused]] const auto& entry : std::filesystem::directory_iterator("/proc/self/task")) {
    ++count;
  }
  return count;
}

// Jobs that wait for a byte each.
struct crowd {
  crowd(worker_pool& pool, std::size_t count, urgency how) {
    for (std::size_t i = 0; i < count; ++i) {
      jobs.push_back(std::make_unique<job>([fd = gate.reader.get()] { return read_once(fd); }));
      REQUIRE(pool.submit(*jobs.back(), how));
    }
  }
  [[nodiscard]] std::size_t begun() const {
    return static_cast<std::size_t>(
        std::ranges::count_if(jobs, [](const auto& j) { return j->begun.load(); }));
  }
  void let_go(std::size_t count) const {
    for (std::size_t i = 0; i < count; ++i) {
      send_byte(gate.writer.get());
    }
  }

  pipe_pair gate = make_pipe(O_CLOEXEC);
  std::vector<std::unique_ptr<job>> jobs;
};

}  // namespace annulet::test
