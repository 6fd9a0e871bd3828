// What every call of a primitive has in common, on top of scheduler_model.hpp: it ends at once or parks in a
// line, and comes out with an answer.
#pragma once

#include "scheduler_model.hpp"

#include <annulet/runtime/deadline.hpp>

#include <chrono>
#include <cstdint>
#include <optional>
#include <unordered_map>

namespace annulet_test {

enum class outcome { yes, no, deadline_passed, killed, expired, misuse, thrown };
inline constexpr std::size_t outcomes = 7;

struct answer {
  outcome how = outcome::yes;
  std::uint64_t item = 0;  // that was popped, or that says what was thrown
  const scheduler_model::guard* by = nullptr;
};

// A deadline, as the model knows it and as the call takes it.
struct limit {
  bool past = false;
  std::optional<scheduler_model::instant> when{};

  [[nodiscard]] annulet::deadline real() const {
    if (past) {
      return annulet::deadline::past();
    }
    using std::chrono::steady_clock;
    return when ? steady_clock::time_point(std::chrono::nanoseconds(*when)) : annulet::deadline::never();
  }
};

class call_model : public scheduler_model {
 public:
  using scheduler_model::scheduler_model;

  // These give an answer where the call ends at once; elsewhere comes_out() has it when the call has ended.

  // The first step of a call that may park.
  std::optional<answer> throws_overdue(task_id me) { return answer_of(begins(me)); }
  // What is thrown at a place where a fiber may be interrupted.
  std::optional<answer> throws_pending(task_id me) { return answer_of(thrown_now(me)); }
  // The last step of one that need not park.
  std::optional<answer> ends_at_once(task_id me, answer with) {
    if (!gives_way(me)) {
      return with;
    }
    calls_[me].served = with;
    return std::nullopt;
  }
  std::optional<answer> waits(task_id me, line& where, limit until, outcome late = outcome::no) {
    if (until.past) {
      return ends_at_once(me, {late});
    }
    if (const auto thrown = parks(me, until.when)) {
      return answer_of(thrown);
    }
    calls_[me] = {{}, late};
    stands_in(me, where);
    return std::nullopt;
  }

  void waits_uninterrupted(task_id me, line& where) {
    calls_[me] = {};
    parks(me, std::nullopt, false);
    stands_in(me, where);
  }
  std::optional<answer> sleeps(task_id me, instant until) {
    calls_[me] = {};
    return answer_of(parks(me, until));
  }

  // Who stands first gets what it waits for. None where nobody waits.
  std::optional<task_id> serve_first(line& where, answer with = {}) {
    if (where.empty()) {
      return std::nullopt;
    }
    const task_id first = where.front();
    calls_[first].served = with;
    wake(first, cause::ready);
    return first;
  }
  void serve_all(line& where, answer with = {}) {
    while (serve_first(where, with)) {
    }
  }
  void destroyed(line& where) { wake_all(where, cause::closed); }

  answer comes_out(task_id me) {
    running_again(me);
    return answer_for(me, take_cause(me));
  }
  answer answer_for(task_id me, cause why) {
    const verdict v = verdict_of(me, why);
    switch (v.how) {
      case end::ready:
        return calls_[me].served;
      case end::timed_out:
        return {calls_[me].late};
      case end::closed:
        return {outcome::misuse};
      default:
        return *answer_of(v);
    }
  }

 private:
  struct call {
    answer served{};
    outcome late = outcome::no;
  };

  static std::optional<answer> answer_of(const std::optional<verdict>& thrown) {
    if (!thrown) {
      return std::nullopt;
    }
    return answer{thrown->how == end::killed ? outcome::killed : outcome::expired, 0, thrown->by};
  }

  std::unordered_map<task_id, call> calls_;
};

}  // namespace annulet_test
