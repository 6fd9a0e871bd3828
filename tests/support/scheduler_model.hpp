// What the scheduler should do, said as simply as can be: queues of numbers and a sorted map of times. A test
// tells the model each thing it does, in step with the real one, and asks who must run now and why.
#pragma once

#include <annulet/runtime/cancellation.hpp>

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <deque>
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
  static constexpr std::size_t events = 12;
  static constexpr task_id main = 0;

  enum class cause { none, ready, timed_out, interrupted };
  enum class end { ready, timed_out, killed, expired };

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

  std::string wrong;  // the first thing that was not as it should be

  task_id spawned() {
    tasks_.emplace_back();
    ready_.push_back(tasks_.size() - 1);
    return tasks_.size() - 1;
  }

  // The task has the thread now: for the first time, or again.
  void running(task_id id) {
    require(!ready_.empty(), "a fiber runs that should not be ready", id);
    if (ready_.empty()) {
      return;
    }
    require(ready_.front() == id, "a fiber runs out of turn", id);
    ready_.pop_front();
    if (yielding_) {
      ready_.push_back(*std::exchange(yielding_, std::nullopt));
    }
    running_ = id;
  }

  void ended(task_id id) {
    require(running_ == id, "a fiber ends that should not be running", id);
    tasks_[id].done = true;
    wake_all(tasks_[id].joiners);
  }

  // The next two give what is thrown before the task parks, if anything.
  std::optional<verdict> parks(task_id id, std::optional<instant> until, bool interruptible = true) {
    require(running_ == id, "a fiber parks that should not be running", id);
    task& t = tasks_[id];
    if (interruptible && pending(t) && t.in_flight == 0) {
      return take_interrupt(t);
    }
    t.parked = true;
    t.interruptible = interruptible && t.in_flight == 0;
    if (until) {
      t.timer = {*until, order_++};
      timers_[*t.timer] = {id, nullptr};
    }
    return std::nullopt;
  }
  void waits_for_event(task_id id, std::size_t event) { join_list(id, waiters_[event]); }
  void waits_for_end(task_id id, task_id other) { join_list(id, tasks_[other].joiners); }
  // It was woken: how its park must have ended.
  verdict woken(task_id id) {
    running(id);
    task& t = tasks_[id];
    require(!t.parked, "a fiber came out of a park that nothing ended", id);
    switch (std::exchange(t.why, cause::none)) {
      case cause::ready:
        return {end::ready};
      case cause::timed_out:
        return {end::timed_out};
      default:
        return take_interrupt(t);
    }
  }

  void yields(task_id id) {
    require(running_ == id, "a fiber yields that should not be running", id);
    yielding_ = id;
  }
  std::optional<verdict> yielded(task_id id) {
    if (yielding_ == id) {  // nobody else has run
      require(ready_.empty(), "a yield passed a ready fiber by", id);
      yielding_.reset();
    } else {
      running(id);
    }
    task& t = tasks_[id];
    return pending(t) && t.in_flight == 0 ? std::optional(take_interrupt(t)) : std::nullopt;
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
    int in_flight = 0;
    cause why = cause::none;
    std::optional<std::pair<instant, std::uint64_t>> timer{};
    std::vector<task_id>* list = nullptr;
    std::vector<task_id> joiners{};
    std::vector<guard*> expired{};  // and not thrown yet
  };

  static bool pending(const task& t) { return t.kill_pending || !t.expired.empty(); }

  verdict take_interrupt(task& t) {
    if (std::exchange(t.kill_pending, false)) {
      return {end::killed};
    }
    require(!t.expired.empty(), "a park was interrupted by nothing", running_);
    if (t.expired.empty()) {
      return {end::ready};
    }
    guard* const first = t.expired.front();
    t.expired.erase(t.expired.begin());
    return {end::expired, first};
  }
  void join_list(task_id id, std::vector<task_id>& list) {
    if (tasks_[id].parked) {
      list.push_back(id);
      tasks_[id].list = &list;
    }
  }
  void wake(task_id id, cause why) {
    task& t = tasks_[id];
    require(t.parked, "a fiber is woken that is not parked", id);
    if (t.list != nullptr) {
      std::erase(*std::exchange(t.list, nullptr), id);
    }
    if (t.timer) {
      timers_.erase(*std::exchange(t.timer, std::nullopt));
    }
    t.parked = false;
    t.why = why;
    ready_.push_back(id);
  }
  void wake_all(std::vector<task_id>& list) {
    while (!list.empty()) {
      wake(list.front(), cause::ready);
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
  task_id running_;
  std::optional<task_id> yielding_;  // it stands behind whoever runs next
  std::deque<task> tasks_;
  std::deque<task_id> ready_;
  std::array<std::vector<task_id>, events> waiters_;
  std::map<std::pair<instant, std::uint64_t>, std::pair<task_id, guard*>> timers_;
};

}  // namespace annulet_test
