// Several fibers that take random steps on one primitive, in step with a model of it. A kind of stage says
// what a step is; all the rest is here: time, yields, kills, guards, calls while an exception is in flight,
// and the comparison of how each call ended.
//
// The model is told of each step right before the primitive is, and says at once how the call must end or
// that it must park. It also knows who must run next, so a fiber that is served out of turn, or that never
// comes back, is found when the next one runs.
#pragma once

#include "../oracle/dice.hpp"
#include "call_log.hpp"
#include "call_model.hpp"
#include "driven_clock.hpp"

#include <annulet/runtime/cancellation.hpp>
#include <annulet/runtime/errors.hpp>
#include <annulet/runtime/fiber.hpp>
#include <annulet/runtime/this_fiber.hpp>

#include <algorithm>
#include <array>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <optional>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

namespace annulet_test {

// What members, and completions, throw.
struct failure {
  std::uint64_t item;
};

struct stage_tally {
  std::uint64_t steps = 0;
  std::uint64_t parked = 0;     // calls that did not end at once
  std::uint64_t given_way = 0;  // calls that did not park, and let others run
  std::array<std::uint64_t, outcomes> ends{};

  [[nodiscard]] std::uint64_t ended(outcome how) const { return ends[static_cast<std::size_t>(how)]; }
};

class stage {
 public:
  using task_id = scheduler_model::task_id;

  virtual ~stage() = default;
  stage(const stage&) = delete;
  stage& operator=(const stage&) = delete;

  // Takes so many steps, fewer where something goes wrong. Once.
  void run(std::uint64_t steps);
  // The first thing that was not as it should be, and the calls before it; empty where nothing was.
  [[nodiscard]] std::string wrong() const {
    return model_.wrong.empty() ? std::string() : model_.wrong + "\n" + calls_.text();
  }

 protected:
  // The world outside is looked at after so many switches.
  stage(std::uint64_t seed, stage_tally& tally, unsigned look_every)
      : dice_(seed), tally_(tally), world_({.look_every = look_every}) {
    // Before anything is armed, so that the model hears of each moment that passes.
    world_.clock.on_wait = [this](annulet::deadline until) { idle(until); };
    world_.clock.on_look = [this] { look(); };
  }

  stage(std::uint64_t seed, stage_tally& tally) : stage(seed, tally, 1 + seed % 8) {}

  // One random step of a fiber on the primitive.
  virtual void act(task_id me) = 0;
  // What ends somebody's wait. Does not park, and is also called where no fiber runs.
  virtual void give() {}
  // Destroys the primitive, and makes another.
  virtual void renew() = 0;
  // Destroys it for good.
  virtual void end() = 0;
  // Holds what can be seen of it against the model.
  virtual void compare() = 0;
  // When all fibers have ended.
  virtual void compare_at_last() {}

  std::size_t below(std::size_t n) { return dice_.below(n); }
  bool one_in(std::size_t n) { return dice_.one_in(n); }
  // Fibers are numbered from 1, tasks from 0, in order of spawning.
  static task_id self() { return annulet::this_fiber::id() - 1; }
  bool going_on() const { return taken_ < wanted_ && model_.wrong.empty(); }
  void require(bool holds, const char* otherwise) { model_.require(holds, otherwise, self()); }

  // No call is to park that may do without. (A call that need not park lets others run now and then, but not
  // where they do anyway.)
  bool in_a_hurry() const { return hurry_ != 0; }
  // Many at the same time, some that have passed, some that look once, some that are never.
  limit some_limit() {
    if (in_a_hurry() || one_in(8)) {
      return {.past = true};
    }
    return one_in(3) ? limit{} : limit{.when = soon()};
  }

  // Makes a call that may park. `at_once` is what the model says of it; `ends` is what it says when a call
  // that did not end at once has. Throws on what ends a block: kills and guards.
  template <class Call, class Ends>
  answer call(task_id me, const char* what, const std::optional<answer>& at_once, Call&& real, Ends&& ends);
  template <class Call>
  answer call(task_id me, const char* what, const std::optional<answer>& at_once, Call&& real) {
    return call(me, what, at_once, std::forward<Call>(real), [&] { return model_.comes_out(me); });
  }
  // Runs the block with a guard, whose expiry may leave it.
  template <class Block>
  void with_guard(task_id me, limit until, Block&& block);
  static answer said(bool yes) { return {yes ? outcome::yes : outcome::no}; }
  // Makes a call that does not park: false where it throws std::logic_error.
  template <class Call>
  static bool allowed(Call&& real) {
    try {
      std::forward<Call>(real)();
      return true;
    } catch (const std::logic_error&) {
      return false;
    }
  }

  void sleep(task_id me, std::int64_t until) {
    call(me, "sleep", model_.sleeps(me, until), [&] {
      annulet::this_fiber::sleep_until(limit{.when = until}.real());
      return answer{outcome::no};
    });
  }
  void yield(task_id me) {
    model_.yields(me);
    call(
        me, "yield", std::nullopt,
        [] {
          annulet::this_fiber::yield();
          return answer{outcome::yes};
        },
        [&] {
          model_.running_again(me);
          return model_.throws_pending(me).value_or(answer{outcome::yes});
        });
  }
  std::int64_t soon() {
    return model_.now() + static_cast<std::int64_t>(one_in(4) ? below(2000) : below(8) * 50) - 20;
  }

 private:
  static constexpr std::size_t actors = 8;
  void idle(annulet::deadline until);
  void look();
  void live(task_id me);
  void step(task_id me, int depth);
  void guarded(task_id me, int depth);
  void unwind(task_id me, int depth);
  void kill_somebody() {
    const std::size_t which = below(actors);
    if (which < begun_) {      // one that has not begun would never run
      model_.kill(which + 1);  // main is task 0, and the actors were spawned first
      fibers_[which].kill();
    }
  }
  struct ended {
    answer how;
    std::exception_ptr thrown{};
    std::optional<annulet::timeout_expired> expiry{};
  };
  template <class Call>
  static ended end_of(Call&& real);
  void note(const call_log::entry& e) {
    if (model_.wrong.empty()) {
      calls_.note(e);
    }
  }

  oracle::dice dice_;
  stage_tally& tally_;
  std::uint64_t wanted_ = 0;
  std::uint64_t taken_ = 0;
  std::size_t begun_ = 0;
  unsigned hurry_ = 0;  // so many steps more
  call_log calls_;

 protected:
  call_model model_{driven_clock::start};

 private:
  std::vector<annulet::fiber<void>> fibers_;
  driven world_;
};

template <class Call, class Ends>
answer stage::call(task_id me, const char* what, const std::optional<answer>& at_once, Call&& real,
                   Ends&& ends) {
  note({what, me});
  const ended got = end_of(real);
  const answer expected = at_once ? *at_once : ends();
  note({what, me, got.how});
  ++tally_.ends[static_cast<std::size_t>(got.how.how)];
  tally_.parked += at_once ? 0 : 1;
  require(got.how.how == expected.how, what);
  require(got.how.item == expected.item, "a call brought another item than it should");
  if (got.expiry) {
    const bool right = expected.by != nullptr && got.expiry->is(*expected.by->real);
    require(right, "another guard's expiry was thrown");
  }
  if (got.thrown) {
    std::rethrow_exception(got.thrown);
  }
  return got.how;
}

template <class Call>
stage::ended stage::end_of(Call&& real) {
  try {
    return {real()};
  } catch (const annulet::fiber_killed&) {
    return {{outcome::killed}, std::current_exception()};
  } catch (const annulet::timeout_expired& e) {
    return {{outcome::expired}, std::current_exception(), e};
  } catch (const failure& f) {
    return {{outcome::thrown, f.item}};
  } catch (const annulet::fiber_failed&) {
    return {{outcome::thrown}};
  } catch (const annulet::deadline_passed&) {
    return {{outcome::deadline_passed}};
  } catch (const std::logic_error&) {
    return {{outcome::misuse}};
  }
}

inline void stage::run(std::uint64_t steps) {
  wanted_ = steps;
  for (task_id i = 0; i < actors; ++i) {
    const task_id me = model_.spawned();
    fibers_.push_back(annulet::spawn([this, me] {
      model_.running(me);
      ++begun_;
      live(me);
      model_.ended(me);
    }));
  }
  while (going_on()) {
    sleep(scheduler_model::main, model_.now() + 1 + static_cast<std::int64_t>(below(400)));
    // All may wait for each other by now.
    const auto dice = below(8);
    if (dice < 4) {
      give();
    } else if (dice < 7) {
      kill_somebody();
    } else {
      renew();
    }
    compare();
  }
  end();
  for (int i = 0; i < 1000 && world_.fibers.fibers() != 0; ++i) {
    sleep(scheduler_model::main, model_.now() + 1000);
  }
  compare();
  compare_at_last();
  tally_.steps += taken_;
  tally_.given_way += model_.given_way;
}

inline void stage::live(task_id me) {
  while (going_on()) {
    try {
      step(me, 0);
    } catch (const annulet::fiber_killed&) {
    }
  }
}

inline void stage::step(task_id me, int depth) {
  ++taken_;
  if (hurry_ != 0) {
    --hurry_;
    act(me);
    compare();
    return;
  }
  const auto dice = below(100);
  if (dice < 8) {
    yield(me);
  } else if (dice < 14) {
    sleep(me, soon());
  } else if (dice < 18) {
    kill_somebody();
  } else if (dice < 24) {
    guarded(me, depth);
  } else if (dice < 26) {
    unwind(me, depth);
  } else if (dice == 26) {
    if (one_in(2)) {
      renew();
    } else if (one_in(8)) {
      hurry_ = 200;
    }
  } else {
    act(me);
  }
  compare();
}

template <class Block>
void stage::with_guard(task_id me, limit until, Block&& block) {
  scheduler_model::guard g{me};
  annulet::timeout real(until.real());
  g.real = &real;
  model_.guard_made(g, until.past ? std::nullopt : until.when);
  struct leave {
    scheduler_model& model;
    scheduler_model::guard& g;
    ~leave() { model.guard_gone(g); }
  };
  const leave at_end{model_, g};
  block(real);
}

inline void stage::guarded(task_id me, int depth) {
  if (depth == 3) {
    return;
  }
  const limit until{one_in(8), model_.now() + 1 + static_cast<std::int64_t>(below(600))};
  with_guard(me, until, [&](const annulet::timeout& guard) {
    try {
      for (auto n = below(8); n > 0 && going_on(); --n) {
        try {
          step(me, depth + 1);
        } catch (const annulet::fiber_killed&) {  // the expiry that may be pending too comes next
          if (one_in(2)) {
            throw;
          }
        }
      }
    } catch (const annulet::timeout_expired& e) {
      if (!e.is(guard)) {
        throw;
      }
    }
  });
}

// In a destructor, while an exception is in flight.
inline void stage::unwind(task_id me, int depth) {
  if (depth == 3) {
    return;
  }
  struct steps {
    stage& of;
    task_id me;
    int depth;
    ~steps() {
      of.model_.unwinding(me, 1);
      for (auto n = of.below(4); n > 0 && of.going_on(); --n) {
        of.step(me, depth + 1);
      }
      of.model_.unwinding(me, -1);
    }
  };
  try {
    const steps at_end{*this, me, depth};
    throw 1;
  } catch (int) {
  }
}

// As other threads would have it done.
inline void stage::idle(annulet::deadline until) {
  model_.idles(until.is_never() ? std::nullopt : std::optional(until.nanoseconds()));
  if (going_on() && one_in(8)) {
    give();
  }
  if (going_on() && one_in(16)) {
    kill_somebody();
  }
  if (!until.is_never()) {
    model_.time_is(std::max(model_.now(), until.nanoseconds()));
  }
}

inline void stage::look() {
  model_.seen_running(self());
  if (going_on() && one_in(32)) {
    give();
  }
  if (going_on() && one_in(64)) {
    kill_somebody();
  }
  const auto passes = static_cast<std::int64_t>(below(20));
  world_.clock.advance(std::chrono::nanoseconds(passes));
  model_.time_is(model_.now() + passes);
}

}  // namespace annulet_test
