// Several calls at once, and all that may end them at nearly the same time: for those that are not about one
// descriptor, or take no turn at it. Whatever comes first, each has one outcome.
#pragma once

#include "io_races.hpp"

#include <chrono>
#include <cstddef>
#include <deque>
#include <functional>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

namespace annulet::test {

// Where nothing closes what they are about.
inline std::vector<std::string> possible_ends_without_close(ending how) {
  auto possible = possible_ends(how);
  std::erase(possible, name_of(end::closed));
  return possible;
}

class call_race {
 public:
  // The ending comes within the window.
  call_race(race_ground& ground, ending how, std::chrono::nanoseconds window)
      : ground_(ground), how_(how), window_(window) {}

  // A fiber that makes the call: call(deadline, record). It has begun when this returns.
  template <class Call>
  void start(Call&& call) {
    one& it = calls_.emplace_back();
    const bool all = how_ == ending::all;
    it.until = how_ == ending::deadline || all ? any_time() : deadline::never();
    const deadline guard = how_ == ending::guard || all ? any_time() : deadline::never();
    it.caller = spawn([&it, guard, call = std::forward<Call>(call)] {
      make_call([&] { call(it.until, it.record); }, guard, it.record);
    });
    this_fiber::yield();
  }

  // Lets loose the ending and the others, and parks until all calls have ended.
  void run(std::vector<racer> others) {
    if (how_ == ending::kill || how_ == ending::all) {
      others.push_back({[this, wait = ground_.dice.one_in(2) ? 0 : ground_.dice.below(nanoseconds())] {
        this_fiber::sleep_for(std::chrono::nanoseconds(wait));
        for (one& it : calls_) {
          it.record.kill_asked = it.record.kill_asked || !it.caller.done();
          it.caller.kill();
        }
      }});
    }
    ground_.race.run(std::move(others));
    const deadline patience_ends = patience;
    for (one& it : calls_) {
      if (!it.caller.join(patience_ends)) {
        throw std::runtime_error("a call slept on");
      }
      const call_record& record = it.record;
      CAPTURE(record.error);
      REQUIRE(record.what != end::none);
      REQUIRE(record.what != end::failed);
      REQUIRE((record.what != end::killed || record.kill_asked));
      REQUIRE((record.what != end::timed_out || it.until.reached()));
      REQUIRE((!record.kill_pending || record.interrupted_later));
    }
  }

  [[nodiscard]] const call_record& operator[](std::size_t number) const { return calls_[number].record; }
  void count_in(outcomes& counts) const {
    for (const one& it : calls_) {
      counts.count(name_of(it.record.what));
    }
  }

 private:
  struct one {
    call_record record{};
    deadline until = deadline::never();
    fiber<void> caller{};
  };

  [[nodiscard]] std::size_t nanoseconds() const { return static_cast<std::size_t>(window_.count()); }
  [[nodiscard]] deadline any_time() {
    return std::chrono::nanoseconds(1 + ground_.dice.below(nanoseconds()));
  }

  race_ground& ground_;
  const ending how_;
  const std::chrono::nanoseconds window_;
  std::deque<one> calls_;
};

}  // namespace annulet::test
