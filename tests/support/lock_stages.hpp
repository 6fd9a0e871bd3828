// The mutexes, and the condition variable that gives one up: a model of each, and the steps that fibers take.
#pragma once

#include "destroyed.hpp"
#include "primitive_stage.hpp"

#include <annulet/runtime/condition_variable.hpp>
#include <annulet/runtime/mutex.hpp>
#include <annulet/runtime/recursive_mutex.hpp>

#include <cstddef>
#include <cstdint>
#include <map>
#include <mutex>
#include <optional>

namespace annulet_test {

class mutex_model {
 public:
  using task_id = scheduler_model::task_id;

  explicit mutex_model(call_model& calls) : calls_(calls) {}

  [[nodiscard]] bool held_by(task_id me) const { return holder_ == me; }

  std::optional<answer> lock(task_id me, limit until) {
    if (const auto thrown = calls_.throws_overdue(me)) {
      return thrown;
    }
    if (!holder_) {
      holder_ = me;
      return calls_.ends_at_once(me, {});
    }
    return held_by(me) ? answer{outcome::misuse} : calls_.waits(me, line_, until);
  }
  // For who gave it up in order to wait. False where it has parked.
  bool relock(task_id me) {
    if (!holder_) {
      holder_ = me;
      return true;
    }
    calls_.parks(me, std::nullopt, false);
    calls_.stands_in(me, line_);
    return false;
  }
  bool try_lock(task_id me) {
    if (holder_) {
      return false;
    }
    holder_ = me;
    return true;
  }
  bool unlock(task_id me) {
    if (!held_by(me)) {
      return false;
    }
    holder_ = calls_.serve_first(line_);
    return true;
  }
  void destroyed() {
    calls_.destroyed(line_);
    holder_.reset();
  }

 private:
  call_model& calls_;
  std::optional<task_id> holder_;
  scheduler_model::line line_;
};

class mutex_stage final : public stage {
 public:
  mutex_stage(std::uint64_t seed, stage_tally& tally) : stage(seed, tally) {}

 private:
  void act(task_id me) override {
    if (one_in(6)) {
      require(mutex_->try_lock() == lock_.try_lock(me), "mutex::try_lock");
    } else if (lock_.held_by(me) ? !one_in(16) : one_in(16)) {
      const bool may = lock_.unlock(me);
      require(allowed([&] { mutex_->unlock(); }) == may, "mutex::unlock");
    } else {
      const limit until = some_limit();
      call(me, "mutex::lock", lock_.lock(me, until), [&] { return said(mutex_->lock(until.real())); });
    }
  }
  void renew() override {
    mutex_.make();
    lock_.destroyed();
  }
  void end() override {
    mutex_.destroy();
    lock_.destroyed();
  }
  void compare() override {
    require(!going_on() || mutex_->held() == lock_.held_by(self()), "mutex::held");
    require(mutex_.untouched(), "a mutex was written to after its end");
  }

  mutex_model lock_{model_};
  destroyed_and_made<annulet::mutex> mutex_;
};

class recursive_mutex_stage final : public stage {
 public:
  recursive_mutex_stage(std::uint64_t seed, stage_tally& tally) : stage(seed, tally) {}

 private:
  void act(task_id me) override {
    const auto dice = below(8);
    if (dice < 3) {
      const limit until = some_limit();
      call(me, "recursive_mutex::lock", lock(me, until), [&] { return said(mutex_->lock(until.real())); });
    } else if (dice == 3) {
      require(mutex_->try_lock() == try_lock(me), "recursive_mutex::try_lock");
    } else if (lock_.held_by(me) || one_in(8)) {
      const bool may = unlock(me);
      require(allowed([&] { mutex_->unlock(); }) == may, "recursive_mutex::unlock");
    }
  }
  std::optional<answer> lock(task_id me, limit until) {
    if (!lock_.held_by(me)) {
      return lock_.lock(me, until);
    }
    if (const auto thrown = model_.throws_overdue(me)) {
      return thrown;
    }
    ++locked_again_;
    return model_.ends_at_once(me, {});
  }
  bool try_lock(task_id me) {
    if (!lock_.held_by(me)) {
      return lock_.try_lock(me);
    }
    ++locked_again_;
    return true;
  }
  bool unlock(task_id me) {
    if (!lock_.held_by(me) || locked_again_ == 0) {
      return lock_.unlock(me);
    }
    --locked_again_;
    return true;
  }
  void renew() override {
    mutex_.make();
    destroyed();
  }
  void end() override {
    mutex_.destroy();
    destroyed();
  }
  void destroyed() {
    lock_.destroyed();
    locked_again_ = 0;
  }
  void compare() override { require(mutex_.untouched(), "a recursive_mutex was written to after its end"); }

  mutex_model lock_{model_};
  std::size_t locked_again_ = 0;
  destroyed_and_made<annulet::recursive_mutex> mutex_;
};

// With one mutex, which is destroyed only while nobody is in wait(), or will be again in it for sure.
class condition_variable_stage final : public stage {
 public:
  // Fibers take a step in the middle of wait(), which the test is told of by a look at each switch.
  condition_variable_stage(std::uint64_t seed, stage_tally& tally) : stage(seed, tally, 1) {}

 private:
  void act(task_id me) override {
    const auto dice = below(16);
    if (dice < 4) {
      give();
    } else if (!lock_.held_by(me) && dice != 4) {
      const limit until = some_limit();
      call(me, "mutex::lock", lock_.lock(me, until), [&] { return said(mutex_->lock(until.real())); });
    } else if (dice < 11) {
      wait(me);
    } else if (lock_.held_by(me)) {
      lock_.unlock(me);
      mutex_->unlock();
    }
  }
  void wait(task_id me) {
    const limit until = some_limit();
    const auto real = [&] {
      std::unique_lock lock(*mutex_, std::adopt_lock);
      struct keep {
        std::unique_lock<annulet::mutex>& lock;
        ~keep() { lock.release(); }
      };
      const keep at_end{lock};
      return said(changed_->wait(lock, until.real()));
    };
    call(me, "condition_variable::wait", waits(me, until), real, [&] {
      model_.running_again(me);
      const bool mutex_is_gone = model_.take_cause(me) == cause::closed;
      return mutex_is_gone ? answer{outcome::misuse} : model_.answer_for(me, ended_by_[me]);
    });
  }
  std::optional<answer> waits(task_id me, limit until) {
    if (const auto thrown = model_.throws_overdue(me)) {
      return thrown;
    }
    if (!lock_.held_by(me)) {
      return answer{outcome::misuse};
    }
    if (const auto thrown = model_.throws_pending(me)) {
      return thrown;
    }
    lock_.unlock(me);
    if (until.past) {
      if (const auto at_once = model_.ends_at_once(me, {outcome::no})) {
        ended_by_[me] = cause::timed_out;
        return lock_.relock(me) ? at_once : std::nullopt;
      }
    } else {
      (void)model_.waits(me, line_, until);
    }
    ++without_mutex_;
    model_.goes_on_by(me, [this, me, past = until.past] {
      --without_mutex_;
      const cause why = model_.take_cause(me);
      ended_by_[me] = past ? cause::timed_out : why;
      return lock_.relock(me);
    });
    return std::nullopt;
  }
  void give() override {
    if (one_in(3)) {
      model_.serve_all(line_);
      changed_->notify_all();
    } else {
      model_.serve_first(line_);
      changed_->notify_one();
    }
  }
  void renew() override {
    if (one_in(2)) {
      changed_.make();
      model_.destroyed(line_);
    } else if (without_mutex_ == 0) {
      mutex_.make();
      lock_.destroyed();
    }
  }
  void end() override {
    changed_.destroy();
    model_.destroyed(line_);
    for (int i = 0; i < 100 && without_mutex_ != 0; ++i) {
      sleep(scheduler_model::main, model_.now() + 1);
    }
    mutex_.destroy();
    lock_.destroyed();
  }
  void compare() override {
    require(changed_.untouched(), "a condition variable was written to after its end");
    require(!going_on() || mutex_->held() == lock_.held_by(self()), "mutex::held");
    require(mutex_.untouched(), "a mutex was written to after its end");
  }

  using cause = scheduler_model::cause;

  mutex_model lock_{model_};
  scheduler_model::line line_;
  std::map<task_id, cause> ended_by_;  // the wait without the mutex
  std::size_t without_mutex_ = 0;
  destroyed_and_made<annulet::mutex> mutex_;
  destroyed_and_made<annulet::condition_variable> changed_;
};

}  // namespace annulet_test
