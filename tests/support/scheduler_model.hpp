// What the scheduler should do, said as simply as can be: queues of numbers and a sorted map of times. A test
// tells the model each thing it does, in step with the real one, and asks who must run now and why.
#pragma once

#include <annulet/runtime/cancellation.hpp>

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace annulet_test {

class scheduler_model {
 public:
  using task_id = std::size_t;
  using instant = std::int64_t;
  using line = std::vector<task_id>;  // who waits for something, the first first
  static constexpr std::size_t events = 12;
  static constexpr task_id main = 0;

  enum class cause { none, ready, timed_out, closed, interrupted };
  enum class end { ready, timed_out, killed, expired, closed };

  struct guard {
    task_id task;
    const annulet::timeout* real = nullptr;
    std::optional<std::pair<instant, std::uint64_t>> timer{};
  };
  // How a wait must end, and by which guard.
  struct verdict {
    end how;
    const guard* by = nullptr;
  };

  explicit scheduler_model(instant now) : now_(now) {
    tasks_.emplace_back();
    running_ = main;
  }

  std::string wrong;            // the first thing that was not as it should be
  std::uint64_t given_way = 0;  // so often, by calls that need not park

  task_id spawned() {
    tasks_.emplace_back();
    ready_.push_back(tasks_.size() - 1);
    return tasks_.size() - 1;
  }

  // The task has the thread now: for the first time, or again.
  void running(task_id id) {
    do {
      require(!ready_.empty(), "a fiber runs that should not be ready", id);
      if (ready_.empty()) {
        return;
      }
    } while (!next_comes_out());
    require(running_ == id, "a fiber runs out of turn", id);
    running_ = id;
  }
  // The same for one that has run before. It may have yielded, and nobody else may have been ready.
  void running_again(task_id id) {
    if (yielding_ == id) {
      catch_up();
    }
    if (yielding_ != id) {
      running(id);
      return;
    }
    require(ready_.empty(), "a yield passed a ready fiber by", id);
    yielding_.reset();
    running_ = id;
    require(comes_out(id), "a fiber came out of a call that should have parked", id);
  }
  // Who has the thread in the middle of something, where the test is not told of each step.
  void seen_running(task_id id) {
    if (running_ != id) {
      catch_up();
    }
  }

  void ended(task_id id) {
    require(running_ == id, "a fiber ends that should not be running", id);
    tasks_[id].done = true;
    wake_all(tasks_[id].joiners);
  }

  // Gives what is thrown before the task parks, if anything.
  std::optional<verdict> parks(task_id id, std::optional<instant> until, bool interruptible = true) {
    if (std::optional<verdict> thrown = interruptible ? thrown_now(id) : std::nullopt) {
      return thrown;
    }
    require(running_ == id, "a fiber parks that should not be running", id);
    task& t = tasks_[id];
    t.parked = true;
    t.interruptible = interruptible && t.in_flight == 0;
    breaths_ = 0;
    if (until) {
      t.timer = {*until, order_++};
      timers_[*t.timer] = {id, nullptr};
    }
    return std::nullopt;
  }
  // What is thrown at a place where a fiber may be interrupted, if anything.
  std::optional<verdict> thrown_now(task_id id) {
    require(running_ == id, "a fiber makes a call that should not be running", id);
    task& t = tasks_[id];
    return pending(t) && t.in_flight == 0 ? std::optional(take_interrupt(id)) : std::nullopt;
  }
  void stands_in(task_id id, line& where) {
    if (tasks_[id].parked) {
      where.push_back(id);
      tasks_[id].where = &where;
    }
  }
  void waits_for_event(task_id id, std::size_t event) { stands_in(id, waiters_[event]); }
  void waits_for_end(task_id id, task_id other) { stands_in(id, tasks_[other].joiners); }
  // When the task next has the thread it does this, in the same call, before it comes out; or, where that
  // says false, it has parked again instead.
  void goes_on_by(task_id id, std::function<bool()> what) { tasks_[id].goes_on = std::move(what); }
  // It was woken: how its park must have ended.
  verdict woken(task_id id) {
    running_again(id);
    return verdict_of(id, take_cause(id));
  }
  cause take_cause(task_id id) {
    require(!tasks_[id].parked, "a fiber came out of a park that nothing ended", id);
    return std::exchange(tasks_[id].why, cause::none);
  }
  verdict verdict_of(task_id id, cause why) {
    switch (why) {
      case cause::ready:
        return {end::ready};
      case cause::timed_out:
        return {end::timed_out};
      case cause::closed:
        return {end::closed};
      default:
        return take_interrupt(id);
    }
  }

  void yields(task_id id) {
    require(running_ == id, "a fiber yields that should not be running", id);
    yielding_ = id;
  }
  std::optional<verdict> yielded(task_id id) {
    running_again(id);
    return thrown_now(id);
  }

  // A call that need not park lets others run after so many of its kind, as its last step: whether this one
  // does. Then what it comes out of is like a park that has ended well, whatever is pending.
  bool gives_way(task_id id) {
    if (++breaths_ < calls_between_breaths) {
      return false;
    }
    ++given_way;
    breaths_ = 0;
    yields(id);
    tasks_[id].giving_way = true;
    tasks_[id].why = cause::ready;
    return true;
  }
  // What stayed pending then is thrown by the next such call before it does anything.
  std::optional<verdict> begins(task_id id) {
    return breaths_ >= calls_between_breaths ? thrown_now(id) : std::nullopt;
  }

  void wake(task_id id, cause why) {
    task& t = tasks_[id];
    require(t.parked, "a fiber is woken that is not parked", id);
    if (t.where != nullptr) {
      std::erase(*std::exchange(t.where, nullptr), id);
    }
    if (t.timer) {
      timers_.erase(*std::exchange(t.timer, std::nullopt));
    }
    t.parked = false;
    t.why = why;
    ready_.push_back(id);
  }
  void wake_all(line& all, cause why = cause::ready) {
    while (!all.empty()) {
      const task_id first = all.front();
      wake(first, why);
      std::erase(all, first);  // also where a mismatch has left it in two lines
    }
  }
  void set(std::size_t event) {
    is_set[event] = true;
    wake_all(waiters_[event]);
  }
  void kill(task_id id) {
    if (!tasks_[id].done) {
      tasks_[id].kill_pending = true;
      interrupt(id);
    }
  }
  void guard_made(guard& g, std::optional<instant> when) {
    if (when) {
      g.timer = {*when, order_++};
      timers_[*g.timer] = {g.task, &g};
    } else {
      expire(g);
    }
  }
  void guard_gone(guard& g) {
    if (g.timer) {
      timers_.erase(*std::exchange(g.timer, std::nullopt));
    }
    std::erase(tasks_[g.task].expired, &g);
  }
  void unwinding(task_id id, int more) { tasks_[id].in_flight += more; }

  // Time goes on, and what is due fires.
  void time_is(instant now) {
    now_ = now;
    while (!timers_.empty() && timers_.begin()->first.first <= now_) {
      const auto [id, by] = timers_.begin()->second;
      timers_.erase(timers_.begin());
      if (by != nullptr) {
        by->timer.reset();
        expire(*by);
      } else {
        tasks_[id].timer.reset();
        wake(id, cause::timed_out);
      }
    }
  }
  // The scheduler idles until then.
  void idles(std::optional<instant> until) {
    catch_up();
    require(ready_.empty() && !yielding_, "the thread idles though a fiber is ready", running_);
    const bool right = timers_.empty() ? !until : until && *until == timers_.begin()->first.first;
    require(right, "the wait is not until the earliest deadline", running_);
  }

  [[nodiscard]] bool killed_before_it_ran(task_id id) const { return tasks_[id].kill_pending; }
  [[nodiscard]] bool done(task_id id) const { return tasks_[id].done; }
  [[nodiscard]] std::size_t tasks() const { return tasks_.size(); }
  [[nodiscard]] instant now() const { return now_; }

  void require(bool holds, const char* otherwise, task_id id) {
    if (!holds && wrong.empty()) {
      wrong = std::string(otherwise) + ", task " + std::to_string(id);
    }
  }

  std::array<bool, events> is_set{};

 private:
  struct task {
    bool parked = false;
    bool done = false;
    bool kill_pending = false;
    bool interruptible = false;  // the present park
    bool giving_way = false;
    int in_flight = 0;
    cause why = cause::none;
    std::optional<std::pair<instant, std::uint64_t>> timer{};
    line* where = nullptr;
    line joiners{};
    std::vector<guard*> expired{};  // and not thrown yet
    std::function<bool()> goes_on{};
  };

  static constexpr std::size_t calls_between_breaths = 64;

  static bool pending(const task& t) { return t.kill_pending || !t.expired.empty(); }

  verdict take_interrupt(task_id id) {
    task& t = tasks_[id];
    if (std::exchange(t.kill_pending, false)) {
      return {end::killed};
    }
    require(!t.expired.empty(), "a park was interrupted by nothing", id);
    if (t.expired.empty()) {
      return {end::ready};
    }
    guard* const first = t.expired.front();
    t.expired.erase(t.expired.begin());
    return {end::expired, first};
  }
  // The next ready one has the thread. False where it has parked again without a word.
  bool next_comes_out() {
    running_ = ready_.front();
    ready_.pop_front();
    if (yielding_) {
      ready_.push_back(*std::exchange(yielding_, std::nullopt));
    }
    return comes_out(running_);
  }
  bool comes_out(task_id id) {
    task& t = tasks_[id];
    if (std::exchange(t.giving_way, false) && pending(t) && t.in_flight == 0) {
      breaths_ = calls_between_breaths;
    }
    const std::function<bool()> what = std::exchange(t.goes_on, {});
    return !what || what();
  }
  // Those that have had the thread since without a word.
  void catch_up() {
    while (!ready_.empty() && tasks_[ready_.front()].goes_on) {
      const task_id next = ready_.front();
      require(!next_comes_out(), "a fiber parked again that should have come out", next);
    }
  }
  void expire(guard& g) {
    tasks_[g.task].expired.push_back(&g);
    interrupt(g.task);
  }
  void interrupt(task_id id) {
    if (tasks_[id].parked && tasks_[id].interruptible) {
      wake(id, cause::interrupted);
    }
  }

  instant now_;
  std::uint64_t order_ = 0;
  std::size_t breaths_ = 0;
  task_id running_;
  std::optional<task_id> yielding_;  // it stands behind whoever runs next
  std::deque<task> tasks_;
  std::deque<task_id> ready_;
  std::array<line, events> waiters_;
  std::map<std::pair<instant, std::uint64_t>, std::pair<task_id, guard*>> timers_;
};

}  // namespace annulet_test
