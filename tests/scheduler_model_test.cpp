// Random fibers that sleep, yield, wait, set, kill, join, spawn, guard and unwind, in step with a model that
// knows who must run next, when, and how each wait must end.
#include <annulet/runtime/cancellation.hpp>
#include <annulet/runtime/event.hpp>
#include <annulet/runtime/fiber.hpp>
#include <annulet/runtime/this_fiber.hpp>

#include "oracle/run.hpp"
#include "support/driven_clock.hpp"
#include "support/scheduler_model.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <exception>
#include <iostream>
#include <memory>
#include <optional>
#include <random>
#include <string>
#include <utility>
#include <vector>

using annulet::deadline;
using annulet::fiber;
using annulet::spawn;
using annulet::timeout;
using annulet_test::driven;
using annulet_test::driven_clock;
using annulet_test::scheduler_model;
namespace this_fiber = annulet::this_fiber;

namespace {

using end = scheduler_model::end;
using task_id = scheduler_model::task_id;
using verdict = scheduler_model::verdict;

deadline at(std::int64_t when) {
  return std::chrono::steady_clock::time_point(std::chrono::nanoseconds(when));
}

class chaos {
 public:
  chaos(std::uint64_t seed, std::uint64_t steps) : random_(seed), steps_wanted_(steps) {
    // Before anything is armed, so that the model hears of each moment that passes.
    world_.clock.on_wait = [this](deadline until) { idle(until); };
    world_.clock.on_look = [this] { look(); };
  }

  void run() {
    auto drum = start([this](task_id me) { drummer(me); });
    for (auto& slot : slots_) {
      slot = start([this](task_id me) { life(me); });
    }
    while (going_on()) {
      join(scheduler_model::main, *slots_[random_() % slots_.size()], std::nullopt);
      for (auto& slot : slots_) {
        refill(slot);
      }
    }
    for (auto& slot : slots_) {
      join(scheduler_model::main, *slot, std::nullopt);
    }
    join(scheduler_model::main, *drum, std::nullopt);
    while (world_.fibers.fibers() != 0 && model_.wrong.empty()) {
      park(scheduler_model::main, "last", model_.now() + 1000,
           [&](deadline d) { this_fiber::sleep_until(d); });
    }
  }

  [[nodiscard]] const std::string& wrong() const { return model_.wrong; }
  [[nodiscard]] std::uint64_t steps() const { return steps_; }
  [[nodiscard]] std::size_t tasks() const { return model_.tasks(); }
  [[nodiscard]] const std::array<std::uint64_t, 4>& ends() const { return ends_; }
  [[nodiscard]] std::uint64_t never_ran() const { return never_ran_; }

 private:
  struct child {
    task_id id = 0;
    fiber<void> handle;
  };

  // In the callable, so that its end tells of a fiber that was killed before it ran.
  struct token {
    token(chaos& c, task_id i) : owner(&c), id(i) {}
    token(token&& other) noexcept : owner(std::exchange(other.owner, nullptr)), id(other.id) {}
    token& operator=(token&&) = delete;
    ~token() {
      if (owner != nullptr) {
        owner->never_began(id);
      }
    }
    chaos* owner;
    task_id id;
  };

  bool going_on() const { return steps_ < steps_wanted_ && model_.wrong.empty(); }
  std::uint64_t below(std::uint64_t n) { return random_() % n; }

  void idle(deadline until) {
    model_.idles(until.is_never() ? std::nullopt : std::optional(until.nanoseconds()));
    if (below(8) == 0) {
      set_event(below(scheduler_model::events));  // as another thread would have it done
    }
    if (!until.is_never()) {
      model_.time_is(std::max(model_.now(), until.nanoseconds()));
    }
  }
  void look() {
    const auto passes = static_cast<std::int64_t>(below(40));
    world_.clock.advance(std::chrono::nanoseconds(passes));
    model_.time_is(model_.now() + passes);
  }

  template <class Body>
  std::shared_ptr<child> start(Body body) {
    auto made = std::make_shared<child>();
    made->id = model_.spawned();
    made->handle = spawn([this, body, t = token(*this, made->id)]() mutable {
      t.owner = nullptr;
      model_.running(t.id);
      try {
        body(t.id);
      } catch (...) {
        model_.ended(t.id);
        throw;
      }
      model_.ended(t.id);
    });
    return made;
  }
  void never_began(task_id id) {
    model_.require(model_.killed_before_it_ran(id), "a fiber never ran and was not killed", id);
    model_.running(id);
    model_.ended(id);
    ++never_ran_;
  }
  void refill(std::shared_ptr<child>& slot) {
    if (slot->handle.done()) {
      model_.require(model_.done(slot->id), "a fiber is done that should not be", slot->id);
      slot = start([this](task_id me) { life(me); });
    } else {
      model_.require(!model_.done(slot->id), "a fiber is not done that should be", slot->id);
    }
  }

  // Calls fn, which parks or throws, and holds its end against the model's. Throws on what fn threw.
  template <class Fn>
  end hold(task_id me, const char* what, std::optional<verdict> at_once, Fn&& fn) {
    std::exception_ptr thrown;
    const timeout* by = nullptr;
    end how{};
    try {
      how = fn() ? end::ready : end::timed_out;
    } catch (const annulet::fiber_killed&) {
      how = end::killed;
      thrown = std::current_exception();
    } catch (const annulet::timeout_expired& e) {
      how = end::expired;
      thrown = std::current_exception();
      by = at_once && at_once->by != nullptr && e.is(*at_once->by->real) ? at_once->by->real : nullptr;
      if (!at_once) {
        const verdict v = model_.woken(me);
        model_.require(v.how == how && v.by != nullptr && e.is(*v.by->real), what, me);
        count(how);
        std::rethrow_exception(thrown);
      }
    }
    if (at_once) {
      model_.require(at_once->how == how && (how != end::expired || by != nullptr), what, me);
    } else {
      model_.require(model_.woken(me).how == how, what, me);
    }
    count(how);
    if (thrown) {
      std::rethrow_exception(thrown);
    }
    return how;
  }
  void count(end how) { ++ends_[static_cast<std::size_t>(how)]; }

  // A park without a list: it ends by time or by force.
  template <class Fn>
  void park(task_id me, const char* what, std::int64_t until, Fn&& fn, bool interruptible = true) {
    const auto at_once = model_.parks(me, until, interruptible);
    const end how = hold(me, what, at_once, [&] {
      fn(at(until));
      return false;
    });
    if (how == end::timed_out) {
      model_.require(world_.clock.now() >= until, "a sleep ended early", me);
    }
  }
  void yield(task_id me) {
    model_.yields(me);
    std::optional<verdict> must;
    try {
      this_fiber::yield();
      must = model_.yielded(me);
      model_.require(!must, "a yield did not throw what was pending", me);
    } catch (const annulet::fiber_killed&) {
      must = model_.yielded(me);
      model_.require(must && must->how == end::killed, "a yield threw a kill that was not pending", me);
      throw;
    } catch (const annulet::timeout_expired& e) {
      must = model_.yielded(me);
      model_.require(must && must->how == end::expired && e.is(*must->by->real),
                     "a yield threw a wrong guard", me);
      throw;
    }
  }
  void join(task_id me, child& other, std::optional<std::int64_t> until) {
    if (other.id == me || other.handle.done()) {
      return;
    }
    const auto at_once = model_.parks(me, until);
    model_.waits_for_end(me, other.id);
    hold(me, "a join ended wrongly", at_once,
         [&] { return other.handle.join(until ? at(*until) : deadline::never()); });
  }
  void wait_event(task_id me, std::size_t which, std::optional<std::int64_t> until) {
    if (model_.is_set[which]) {
      events_[which].clear();
      model_.is_set[which] = false;
    }
    const auto at_once = model_.parks(me, until);
    model_.waits_for_event(me, which);
    hold(me, "a wait for an event ended wrongly", at_once,
         [&] { return events_[which].wait(until ? at(*until) : deadline::never()); });
  }
  void set_event(std::size_t which) {
    model_.set(which);
    events_[which].set();
  }
  void kill(child& other) {
    model_.kill(other.id);
    other.handle.kill();
  }

  std::int64_t soon() {  // many at the same time, and some that have passed
    return model_.now() + static_cast<std::int64_t>(below(4) == 0 ? below(3000) : below(8) * 50) - 20;
  }

  void guarded(task_id me, int depth) {
    scheduler_model::guard g{me};
    const bool past = below(8) == 0;
    const std::int64_t when = model_.now() + 1 + static_cast<std::int64_t>(below(600));
    timeout real(past ? deadline::past() : at(when));
    g.real = &real;
    model_.guard_made(g, past ? std::nullopt : std::optional(when));
    struct leave {
      scheduler_model& model;
      scheduler_model::guard& g;
      ~leave() { model.guard_gone(g); }
    };
    const leave at_end{model_, g};
    try {
      for (auto n = below(6); n > 0; --n) {
        step(me, depth + 1);
      }
      if (below(4) == 0) {
        real.cancel();
        model_.guard_gone(g);
        step(me, depth + 1);
      }
    } catch (const annulet::timeout_expired& e) {
      if (!e.is(real)) {
        throw;
      }
    }
  }
  // A destructor that waits while an exception is in flight.
  void unwind(task_id me) {
    struct waits {
      chaos& c;
      task_id me;
      ~waits() {
        c.model_.unwinding(me, 1);
        for (int i = 0; i < 2; ++i) {
          if (c.below(2) == 0) {
            c.park(me, "a sleep while unwinding", c.soon(), [](deadline d) { this_fiber::sleep_until(d); });
          } else {
            c.yield(me);
          }
        }
        c.model_.unwinding(me, -1);
      }
    };
    try {
      const waits at_end{*this, me};
      throw 1;
    } catch (int) {
    }
  }

  void step(task_id me, int depth = 0) {
    const auto dice = below(100);
    child& other = *slots_[below(slots_.size())];
    if (dice < 25) {
      park(me, "a sleep ended wrongly", soon(), [](deadline d) { this_fiber::sleep_until(d); });
    } else if (dice < 40) {
      yield(me);
    } else if (dice < 60) {
      wait_event(me, below(scheduler_model::events), below(4) == 0 ? std::nullopt : std::optional(soon()));
    } else if (dice < 72) {
      set_event(below(scheduler_model::events));
    } else if (dice < 76) {
      kill(other);
    } else if (dice < 84) {
      const auto kept = slots_[below(slots_.size())];
      join(me, *kept, soon());
    } else if (dice < 92) {
      if (depth < 3) {
        guarded(me, depth);
      }
    } else if (dice < 95) {
      unwind(me);
    } else if (dice < 98) {
      refill(slots_[below(slots_.size())]);
    } else {
      const auto park_hard = [&](deadline d) {
        annulet::detail::waiter w(world_.self(), "a test");
        world_.fibers.park_uninterrupted(w, d, annulet::detail::wakers::outside);
      };
      park(me, "an uninterrupted park ended wrongly", soon(), park_hard, false);
    }
    ++steps_;
  }
  void life(task_id me) {
    for (auto n = below(60); n > 0 && going_on(); --n) {
      try {
        step(me);
      } catch (const annulet::fiber_killed&) {
        if (below(2) == 0) {
          throw;
        }
      }
    }
  }
  // Keeps what has no deadline from waiting for ever.
  void drummer(task_id me) {
    for (std::size_t i = 0; going_on() || world_.fibers.fibers() > 1; ++i) {
      if (!model_.wrong.empty()) {
        return;
      }
      park(me, "the drummer's sleep", model_.now() + 200, [](deadline d) { this_fiber::sleep_until(d); });
      set_event(i % scheduler_model::events);
      ++steps_;
    }
  }

  std::mt19937_64 random_;
  std::uint64_t steps_wanted_;
  std::uint64_t steps_ = 0;
  std::uint64_t never_ran_ = 0;
  std::array<std::uint64_t, 4> ends_{};
  scheduler_model model_{driven_clock::start};
  std::array<std::shared_ptr<child>, 40> slots_;
  std::array<annulet::event, scheduler_model::events> events_;
  driven world_;  // ends first, and its fibers with it
};

}  // namespace

TEST_CASE("1,000,000 random steps go as the model says: who runs, when, and how each wait ends") {
  const std::uint64_t seed = oracle::from_environment("ANNULET_SEED", std::random_device{}());
  std::cout << "note: scheduler_model seed " << seed << " (ANNULET_SEED to repeat it)" << std::endl;
  chaos all(seed, 1'000'000);
  std::string error;
  try {
    all.run();
  } catch (const std::exception& e) {
    error = e.what();
  }
  std::cout << "note: " << all.steps() << " steps, " << all.tasks() << " fibers, " << all.never_ran()
            << " never ran; waits ended ready " << all.ends()[0] << ", timed out " << all.ends()[1]
            << ", killed " << all.ends()[2] << ", expired " << all.ends()[3] << std::endl;
  CHECK(error == "");
  CHECK(all.wrong() == "");
  CHECK(all.steps() >= 1'000'000);
  for (const std::uint64_t count : all.ends()) {
    CHECK(count > 1'000);
  }
  CHECK(all.never_ran() > 10);
}
