// The course that the contenders of `switch` run: members in a ring, each gives way to the next.
#pragma once

#include <cstddef>
#include <cstdint>

#include "harness.hpp"

namespace bench {

// Shared by the members of one turn. Every member calls run() once, on a stack of its own; member 0 keeps the
// clock. Between its start and its stop every member was resumed `rounds` times, so rounds * members switches
// took place. The laps before are checked one by one for their order, the timed ones are counted by each
// member on its own stack and added up afterwards, so that no shared line is touched in between.
class relay {
 public:
  relay(meter& clock, std::size_t members, std::uint64_t rounds)
      : clock_(clock), members_(members), rounds_(rounds) {}

  template <class GiveWay>
  void run(std::size_t member, GiveWay give_way) {
    for (int lap = 0; lap < warm_up_laps; ++lap) {
      if (next_ != member) {
        fail("member %zu of a relay ran when it was %zu's turn", member, next_);
      }
      next_ = member + 1 == members_ ? 0 : member + 1;
      give_way();
    }
    if (member == 0) {
      clock_.start();
    }
    std::uint64_t laps = 0;
    for (; laps < rounds_; ++laps) {
      give_way();
    }
    if (member == 0) {
      clock_.stop(rounds_ * members_);
    }
    switches_ += laps;
  }

  void check() const {
    if (switches_ == rounds_ * members_) {
      return;
    }
    fail("a relay made %llu switches", static_cast<unsigned long long>(switches_));
  }

 private:
  static constexpr int warm_up_laps = 3;
  meter& clock_;
  std::size_t members_;
  std::uint64_t rounds_;
  std::size_t next_ = 0;
  std::uint64_t switches_ = 0;
};

}  // namespace bench
