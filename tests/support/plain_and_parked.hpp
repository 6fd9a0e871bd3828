// The same scene twice: with the plain calls on a thread without a hub, and with the drop-ins in a fiber
// beside others. What it notes has to be equal.
//
// ANNULET_DROP_IN_ROUNDS says how often each scene is played.
#pragma once

#include "../oracle/run.hpp"
#include "files.hpp"

#include <annulet/selector/posix.h>
#include <annulet/hub/hub.hpp>
#include <annulet/runtime/fiber.hpp>

#include <doctest/doctest.h>

#include <cerrno>
#include <chrono>
#include <cstdlib>
#include <exception>
#include <functional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include <time.h>

namespace annulet::test {

struct wait_calls {
  bool parks;
  int (*select)(int, fd_set*, fd_set*, fd_set*, timeval*);
  int (*pselect)(int, fd_set*, fd_set*, fd_set*, const timespec*, const sigset_t*);
  int (*poll)(pollfd*, nfds_t, int);
  int (*ppoll)(pollfd*, nfds_t, const timespec*, const sigset_t*);
  int (*epoll_wait)(int, epoll_event*, int, int);
  int (*epoll_pwait)(int, epoll_event*, int, int, const sigset_t*);
  int (*epoll_pwait2)(int, epoll_event*, int, const timespec*, const sigset_t*);
  unsigned (*sleep)(unsigned);
  int (*usleep)(unsigned);
  int (*nanosleep)(const timespec*, timespec*);
  int (*clock_nanosleep)(clockid_t, int, const timespec*, timespec*);
};

inline constexpr wait_calls plain_calls{false,    &::select,     &::pselect,     &::poll,
                                        &::ppoll, &::epoll_wait, &::epoll_pwait, &::epoll_pwait2,
                                        &::sleep, &::usleep,     &::nanosleep,   &::clock_nanosleep};
inline constexpr wait_calls drop_ins{
    true,           &annulet_select,     &annulet_pselect,     &annulet_poll,
    &annulet_ppoll, &annulet_epoll_wait, &annulet_epoll_pwait, &annulet_epoll_pwait2,
    &annulet_sleep, &annulet_usleep,     &annulet_nanosleep,   &annulet_clock_nanosleep};

class scene_notes {
 public:
  // A result, with the errno where it is an error.
  long result(const std::string& what, long value) {
    note(what + ": " + std::to_string(value) + (value < 0 ? ", errno " + std::to_string(errno) : ""));
    return value;
  }
  void note(std::string line) { lines_.push_back(std::move(line)); }
  void note(const std::string& what, long value) { note(what + ": " + std::to_string(value)); }
  void revents(const std::vector<pollfd>& fds) {
    for (const pollfd& one : fds) {
      note("revents", one.revents);
    }
  }
  [[nodiscard]] const std::vector<std::string>& lines() const { return lines_; }

 private:
  std::vector<std::string> lines_;
};

// How long a call took: at least so long, which both are held to, and not forever.
template <class Call>
void note_wait(scene_notes& notes, std::chrono::microseconds least, Call&& call) {
  const auto begin = std::chrono::steady_clock::now();
  call();
  const auto took = std::chrono::steady_clock::now() - begin;
  notes.note(took < least ? "early" : "not early");
  notes.note(took > least + std::chrono::seconds(5) ? "late" : "not late");
}

// Does it on another thread, in a while.
class later {
 public:
  explicit later(std::function<void()> act, std::chrono::milliseconds wait = std::chrono::milliseconds(10))
      : thread_([act = std::move(act), wait] {
          std::this_thread::sleep_for(wait);
          act();
        }) {}
  ~later() { thread_.join(); }
  later(const later&) = delete;
  later& operator=(const later&) = delete;

 private:
  std::thread thread_;
};

using scene = std::function<void(const wait_calls&, scene_notes&)>;

// On a thread that never had a ring: the end of one may still interrupt an epoll_wait some moments later.
inline std::vector<std::string> played_plainly(const scene& play) {
  scene_notes notes;
  std::exception_ptr failure;
  std::thread([&] {
    try {
      play(plain_calls, notes);
    } catch (...) {
      failure = std::current_exception();
    }
  }).join();
  if (failure) {
    std::rethrow_exception(failure);
  }
  return notes.lines();
}

// A signal that comes while another fiber runs ends no call, so where there are signals, there are no others.
enum class beside : bool { nobody, ticker };

inline std::vector<std::string> played_in_fiber(const scene& play, beside whom) {
  scene_notes notes;
  hub home;
  bool over = whom == beside::nobody;
  auto ticker = spawn([&] {
    while (!over) {
      this_fiber::sleep_for(std::chrono::milliseconds(1));
    }
  });
  auto played = spawn([&] { play(drop_ins, notes); });
  played.join();
  over = true;
  ticker.join();
  played.get();  // what it has thrown
  return notes.lines();
}

inline std::uint64_t drop_in_rounds() { return oracle::from_environment("ANNULET_DROP_IN_ROUNDS", 1); }

inline void same_in_both(const scene& play, beside whom = beside::ticker) {
  for (unsigned round = 0; round < drop_in_rounds(); ++round) {
    const auto plain = played_plainly(play);
    const auto parked = played_in_fiber(play, whom);
    REQUIRE(!plain.empty());
    for (std::size_t i = 0; i < std::min(plain.size(), parked.size()); ++i) {
      CAPTURE(i);
      REQUIRE(parked[i] == plain[i]);
    }
    REQUIRE(parked.size() == plain.size());
  }
}

}  // namespace annulet::test
