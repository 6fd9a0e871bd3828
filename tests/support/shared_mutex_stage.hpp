// A lock that readers share: a model of it, and the steps that fibers take.
#pragma once

#include "destroyed.hpp"
#include "primitive_stage.hpp"

#include <annulet/runtime/shared_mutex.hpp>

#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <set>

namespace annulet_test {

class shared_mutex_stage final : public stage {
 public:
  shared_mutex_stage(std::uint64_t seed, stage_tally& tally) : stage(seed, tally) {}

 private:
  void act(task_id me) override {
    const auto dice = below(12);
    if (reads_[me]) {
      dice < 4 ? act_as_reader(me, dice) : unlock_shared(me);
    } else if (writer_ == me && dice < 9) {
      unlock(me);
    } else if (dice < 3) {
      try_either(me, dice);
    } else if (dice < 8) {
      const limit until = some_limit();
      lock(me, "shared_mutex::lock_shared", wish::reading, until,
           [&] { return said(mutex_->lock_shared(until.real())); });
    } else if (dice < 11) {
      const limit until = some_limit();
      lock(me, "shared_mutex::lock", wish::writing, until, [&] { return said(mutex_->lock(until.real())); });
    } else if (one_in(2)) {
      unlock_shared(me);  // which may not be, also while others read
    } else {
      unlock(me);  // likewise, mostly
    }
  }

  enum class wish { reading, writing };

  template <class Call>
  void lock(task_id me, const char* what, wish wants, limit until, Call&& real) {
    const std::uint64_t life = life_;
    const bool stands = !until.past;
    const auto at_once = locks(me, wants, until);
    const auto ends = [&] {
      const answer a = model_.comes_out(me);
      // A writer that gives up may have been all that kept the readers behind it waiting.
      if (a.how != outcome::yes && stands && life == life_) {
        serve();
      }
      return a;
    };
    const answer got = call(me, what, at_once, real, ends);
    if (got.how == outcome::yes && wants == wish::reading && life == life_) {
      reads_[me] = true;
    }
  }
  std::optional<answer> locks(task_id me, wish wants, limit until) {
    if (const auto thrown = model_.throws_overdue(me)) {
      return thrown;
    }
    if (writer_ == me) {
      return answer{outcome::misuse};
    }
    if (wants == wish::reading ? take_shared(me) : take(me)) {
      return model_.ends_at_once(me, {});
    }
    if (readers_.contains(me)) {
      return answer{outcome::misuse};
    }
    wants_[me] = wants;
    const auto at_once = model_.waits(me, line_, until);
    if (at_once && !until.past) {
      serve();
    }
    return at_once;
  }
  bool take(task_id me) {
    if (writer_ || !readers_.empty()) {
      return false;
    }
    writer_ = me;
    return true;
  }
  bool take_shared(task_id me) {
    if (writer_ || !line_.empty()) {
      return false;
    }
    readers_.insert(me);
    return true;
  }
  void serve() {
    while (!writer_ && !line_.empty()) {
      const task_id next = line_.front();
      if (wants_[next] == wish::reading) {
        readers_.insert(next);
      } else if (readers_.empty()) {
        writer_ = next;
      } else {
        return;
      }
      model_.serve_first(line_);
    }
  }
  // It waits for itself only where it would wait at all.
  void act_as_reader(task_id me, std::size_t dice) {
    if (dice < 3) {
      try_either(me, 0);
    } else {
      const limit until = some_limit();
      lock(me, "shared_mutex::lock", wish::writing, until, [&] { return said(mutex_->lock(until.real())); });
    }
  }
  void try_either(task_id me, std::size_t dice) {
    if (dice % 2 == 0) {
      require(mutex_->try_lock() == take(me), "shared_mutex::try_lock");
    } else if (!reads_[me]) {
      reads_[me] = take_shared(me);
      require(mutex_->try_lock_shared() == reads_[me], "shared_mutex::try_lock_shared");
    }
  }
  void unlock(task_id me) {
    const bool may = writer_ == me;
    if (may) {
      writer_.reset();
      serve();
    }
    require(allowed([&] { mutex_->unlock(); }) == may, "shared_mutex::unlock");
  }
  void unlock_shared(task_id me) {
    const bool may = readers_.contains(me);
    if (may) {
      readers_.erase(readers_.find(me));
      reads_[me] = false;
      serve();
    }
    require(allowed([&] { mutex_->unlock_shared(); }) == may, "shared_mutex::unlock_shared");
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
    model_.destroyed(line_);
    writer_.reset();
    readers_.clear();
    reads_.clear();
    ++life_;
  }
  void compare() override { require(mutex_.untouched(), "a shared_mutex was written to after its end"); }

  std::uint64_t life_ = 0;
  scheduler_model::line line_;
  std::map<task_id, wish> wants_;  // of who waits
  std::map<task_id, bool> reads_;  // has it for reading, and knows it
  std::optional<task_id> writer_;
  std::multiset<task_id> readers_;
  destroyed_and_made<annulet::shared_mutex> mutex_;
};

}  // namespace annulet_test
