// Blocking descriptors of every kind that a fiber may read from and write to, and a ticker that shows whether
// the thread was held up meanwhile.
#pragma once

#include "io_calls.hpp"

#include <annulet/hub/hub.hpp>
#include <annulet/runtime/fiber.hpp>

#include <doctest/doctest.h>

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <exception>
#include <filesystem>
#include <functional>
#include <memory>
#include <stop_token>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include <sys/inotify.h>
#include <sys/stat.h>
#include <sys/timerfd.h>

namespace annulet::test {

// Ticks every millisecond, and keeps the longest time in between.
class ticker {
 public:
  ticker() {
    fiber_ = spawn([seen = seen_] {
      for (auto last = steady::now();;) {
        this_fiber::sleep_for(1ms);
        const auto now = steady::now();
        seen->longest = std::max(seen->longest, now - last);
        last = now;
        ++seen->ticks;
      }
    });
  }
  ~ticker() { fiber_.kill(); }
  ticker(const ticker&) = delete;
  ticker& operator=(const ticker&) = delete;

  // Parks until it has ticked so often from now.
  void wait_for(unsigned more) {
    const unsigned end = seen_->ticks + more;
    for (int i = 0; seen_->ticks < end; ++i) {
      REQUIRE(i < 10'000);
      this_fiber::sleep_for(1ms);
    }
  }
  [[nodiscard]] steady::duration longest() const { return seen_->longest; }

 private:
  // The fiber's, too, which may be about to tick when it is killed.
  struct sights {
    steady::duration longest{0};
    unsigned ticks = 0;
  };
  std::shared_ptr<sights> seen_ = std::make_shared<sights>();
  fiber<void> fiber_;
};

// A thread that was held up would have been until this: when the test gives up, and frees it from outside.
inline constexpr auto held_up_for = 3s;

// Runs the body in a hub beside a ticker; and outside it a thread that frees whoever is held up, for the test
// to end and say so.
inline void holds_nobody_up(const std::function<void(ticker&)>& body, const std::function<void()>& free_it) {
  hub home;
  const std::jthread rescue([&free_it](const std::stop_token& over) {
    const auto end = steady::now() + held_up_for;
    while (!over.stop_requested() && steady::now() < end) {
      std::this_thread::sleep_for(10ms);
    }
    for (; !over.stop_requested(); std::this_thread::sleep_for(1ms)) {
      try {
        free_it();
      } catch (const std::exception&) {
        // There was nothing to free.
      }
    }
  });
  ticker beside;
  body(beside);
  CHECK(beside.longest() < held_up_for / 2);
}

inline bool is_socket(int fd) {
  int type = 0;
  socklen_t size = sizeof(type);
  return ::getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &size) == 0;
}

// What can be done about one blocking file.
struct blocking_file {
  descriptor file;
  std::function<void()> provide;  // makes it readable
  std::function<void()> consume;  // makes room in it; none where it has room always
  descriptor peer;
};

inline blocking_file both_ways(descriptor file, descriptor peer) {
  const int other = peer.get();
  require_ok(::fcntl(other, F_SETFL, flags_of(other) | O_NONBLOCK), "fcntl");
  if (is_socket(other)) {
    const int little = 8192;
    require_ok(::setsockopt(file.get(), SOL_SOCKET, SO_SNDBUF, &little, sizeof(little)), "SO_SNDBUF");
    require_ok(::setsockopt(other, SOL_SOCKET, SO_RCVBUF, &little, sizeof(little)), "SO_RCVBUF");
  }
  return {std::move(file), [other] { send_byte(other); }, [other] { drain(other); }, std::move(peer)};
}

struct blocking_kind {
  std::string name;
  std::function<blocking_file()> make;
};

inline const std::vector<blocking_kind>& all_kinds() {
  static const std::vector<blocking_kind> kinds = {
      {"socketpair",
       [] {
         auto [first, second] = blocking(make_socket_pair());
         return both_ways(std::move(first), std::move(second));
       }},
      {"TCP",
       [] {
         auto [first, second] = blocking(make_tcp_pair());
         return both_ways(std::move(first), std::move(second));
       }},
      {"pipe to read from",
       [] {
         auto [reader, writer] = make_blocking_pipe();
         return both_ways(std::move(reader), std::move(writer));
       }},
      {"pipe to write to",
       []() -> blocking_file {
         auto [reader, writer] = make_blocking_pipe();
         auto made = both_ways(std::move(writer), std::move(reader));
         made.provide = nullptr;
         return made;
       }},
      {"pty, its slave",
       [] {
         auto [master, slave] = make_pty();
         return both_ways(std::move(slave), std::move(master));
       }},
      {"pty, its master",
       [] {
         auto [master, slave] = make_pty();
         return both_ways(std::move(master), std::move(slave));
       }},
      {"eventfd",
       []() -> blocking_file {
         descriptor file(require_ok(::eventfd(0, EFD_CLOEXEC), "eventfd"));
         const int fd = file.get();
         return {std::move(file), [fd] { add_to_eventfd(fd); }, nullptr, descriptor()};
       }},
      {"inotify",
       []() -> blocking_file {
         descriptor file(require_ok(::inotify_init1(IN_CLOEXEC), "inotify_init1"));
         const auto folder = std::filesystem::temp_directory_path();
         require_ok(::inotify_add_watch(file.get(), folder.c_str(), IN_ATTRIB), "inotify_add_watch");
         const auto touch = [folder] {
           const descriptor opened(
               require_ok(::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC), "open"));
           require_ok(::futimens(opened.get(), nullptr), "futimens");
         };
         return {std::move(file), touch, nullptr, descriptor()};
       }},
      {"timerfd",
       []() -> blocking_file {
         descriptor file(require_ok(::timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC), "timerfd_create"));
         const int fd = file.get();
         const auto start = [fd] {
           itimerspec soon{};
           soon.it_value.tv_nsec = 1;
           require_ok(::timerfd_settime(fd, 0, &soon, nullptr), "timerfd_settime");
         };
         return {std::move(file), start, nullptr, descriptor()};
       }},
  };
  return kinds;
}

}  // namespace annulet::test
