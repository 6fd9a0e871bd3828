// What others do while a call waits: not before, however long that takes to begin.
#pragma once

#include "plain_and_parked.hpp"
#include "plain_and_parked_io.hpp"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <filesystem>
#include <fstream>
#include <functional>
#include <string>
#include <thread>
#include <utility>

#include <unistd.h>

namespace annulet::test {

// Of a thread of this process, by the kernel's number.
inline bool sleeps(pid_t thread) {
  std::ifstream file("/proc/self/task/" + std::to_string(thread) + "/stat");
  std::string line;
  std::getline(file, line);
  const std::size_t name_end = line.rfind(')');
  return name_end != std::string::npos && line.size() > name_end + 2 && line[name_end + 2] == 'S';
}

// All threads of this process but the one that asks.
inline bool others_sleep() {
  const auto tasks = std::filesystem::directory_iterator("/proc/self/task");
  return std::all_of(begin(tasks), end(tasks), [self = ::gettid()](const auto& task) {
    const pid_t thread = std::stoi(task.path().filename().string());
    return thread == self || sleeps(thread);
  });
}

// Does it on another thread, when the one that made this is in its call, or in the hub's wait with all its
// fibers parked. It must not sleep before; for a moment, for the heap's lock, it may.
class once_asleep {
 public:
  // `everybody`: where a thread of the hub's pool makes the call.
  enum class who : bool { caller, everybody };
  explicit once_asleep(std::function<void()> act, who whom = who::caller)
      : thread_([act = std::move(act), watched = ::gettid(), whom] {
          const auto sleep_now = [&] { return whom == who::caller ? sleeps(watched) : others_sleep(); };
          for (int seen = 0; seen < 3; seen = sleep_now() ? seen + 1 : 0) {
            std::this_thread::sleep_for(std::chrono::milliseconds(2));
          }
          act();
        }) {}
  ~once_asleep() { thread_.join(); }
  once_asleep(const once_asleep&) = delete;
  once_asleep& operator=(const once_asleep&) = delete;

 private:
  std::thread thread_;
};

// For who lets a call go on after a signal: until the call is over, where the signal ends it, for what is let
// happen before it has taken back what it has begun may be done by it all the same.
inline void wait_where_it_ends(const std::atomic<bool>& over, bool goes_on) {
  const auto begin = std::chrono::steady_clock::now();
  while (!over && !goes_on && std::chrono::steady_clock::now() - begin < std::chrono::seconds(5)) {
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
}

// Does it, again and again, where the scope takes longer than that: a call that waits for too much comes back
// then, and what it gives is told.
class at_last {
 public:
  explicit at_last(std::function<void()> act, std::chrono::milliseconds than = std::chrono::seconds(1))
      : thread_([this, act = std::move(act), than] {
          const auto begin = std::chrono::steady_clock::now();
          while (!over_) {
            std::this_thread::sleep_for(std::chrono::milliseconds(10));
            if (std::chrono::steady_clock::now() - begin >= than && !over_) {
              act();
            }
          }
        }) {}
  ~at_last() {
    over_ = true;
    thread_.join();
  }
  at_last(const at_last&) = delete;
  at_last& operator=(const at_last&) = delete;

 private:
  std::atomic<bool> over_{false};
  std::thread thread_;
};

// The call, and while it waits the act: of another fiber of the thread where calls park, else of another
// thread.
inline void with_act_meanwhile(const wait_calls& c, const std::function<void()>& act,
                               const std::function<void()>& call) {
  if (!c.parks) {
    const once_asleep acts(act);
    call();
    return;
  }
  auto other = spawn([&] {
    this_fiber::sleep_for(std::chrono::milliseconds(8));
    act();
  });
  call();
  other.get();
}

inline const io_calls_of& io_of(const wait_calls& c) { return c.parks ? drop_in_io : plain_io; }

}  // namespace annulet::test
