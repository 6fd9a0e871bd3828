// What fibers wait for that nobody owns: events, semaphores, latches and barriers; a model of each, and the
// steps that fibers take.
#pragma once

#include "destroyed.hpp"
#include "primitive_stage.hpp"

#include <annulet/runtime/barrier.hpp>
#include <annulet/runtime/event.hpp>
#include <annulet/runtime/latch.hpp>
#include <annulet/runtime/semaphore.hpp>

#include <cstddef>
#include <cstdint>
#include <optional>

namespace annulet_test {

class event_stage final : public stage {
 public:
  event_stage(std::uint64_t seed, stage_tally& tally) : stage(seed, tally) {}

 private:
  void act(task_id me) override {
    const auto dice = below(8);
    if (dice < 5) {
      const limit until = some_limit();
      call(me, "event::wait", wait(me, until), [&] { return said(event_->wait(until.real())); });
    } else if (dice == 5) {
      give();
    } else {
      set_ = false;
      event_->clear();
    }
  }
  std::optional<answer> wait(task_id me, limit until) {
    if (const auto thrown = model_.throws_overdue(me)) {
      return thrown;
    }
    return set_ ? model_.ends_at_once(me, {}) : model_.waits(me, line_, until);
  }
  void give() override {
    set_ = true;
    model_.serve_all(line_);
    event_->set();
  }
  void renew() override {
    event_.make();
    destroyed();
  }
  void end() override {
    event_.destroy();
    destroyed();
  }
  void destroyed() {
    model_.destroyed(line_);
    set_ = false;
  }
  void compare() override {
    require(!going_on() || event_->is_set() == set_, "event::is_set");
    require(event_.untouched(), "an event was written to after its end");
  }

  bool set_ = false;
  scheduler_model::line line_;
  destroyed_and_made<annulet::event> event_;
};

class semaphore_stage final : public stage {
 public:
  semaphore_stage(std::uint64_t seed, stage_tally& tally) : stage(seed, tally) {}

 private:
  void act(task_id me) override {
    const auto dice = below(16);
    if (dice < 8) {
      const limit until = some_limit();
      call(me, "semaphore::acquire", acquire(me, until),
           [&] { return said(semaphore_->acquire(until.real())); });
    } else if (dice < 10) {
      const bool there = permits_ != 0;
      permits_ -= there ? 1 : 0;
      require(semaphore_->try_acquire() == there, "semaphore::try_acquire");
    } else {
      release(below(4));
    }
  }
  std::optional<answer> acquire(task_id me, limit until) {
    if (const auto thrown = model_.throws_overdue(me)) {
      return thrown;
    }
    if (permits_ == 0) {
      return model_.waits(me, line_, until);
    }
    --permits_;
    return model_.ends_at_once(me, {});
  }
  void release(std::size_t count) {
    const bool may = count <= most_ - permits_;
    if (may) {
      permits_ += count;
      for (; permits_ != 0 && model_.serve_first(line_); --permits_) {
      }
    }
    require(allowed([&] { semaphore_->release(count); }) == may, "semaphore::release");
  }
  void give() override { release(1); }
  void renew() override {
    most_ = 1 + below(4);
    permits_ = below(most_ + 1);
    semaphore_.make(permits_, most_);
    model_.destroyed(line_);
  }
  void end() override {
    semaphore_.destroy();
    model_.destroyed(line_);
  }
  void compare() override {
    require(!going_on() || semaphore_->available() == permits_, "semaphore::available");
    require(semaphore_.untouched(), "a semaphore was written to after its end");
  }

  std::size_t permits_ = 1;
  std::size_t most_ = 2;
  scheduler_model::line line_;
  destroyed_and_made<annulet::semaphore> semaphore_{permits_, most_};
};

class latch_stage final : public stage {
 public:
  latch_stage(std::uint64_t seed, stage_tally& tally) : stage(seed, tally) {}

 private:
  void act(task_id me) override {
    const auto dice = below(16);
    if (left_ == 0 && dice < 3) {
      renew();
    } else if (dice < 8) {
      const limit until = some_limit();
      call(me, "latch::wait", wait(me, until), [&] { return said(latch_->wait(until.real())); });
    } else if (dice < 13) {
      const limit until = some_limit();
      const bool may = count_down(1);
      call(me, "latch::arrive_and_wait", may ? wait(me, until) : answer{outcome::misuse},
           [&] { return said(latch_->arrive_and_wait(until.real())); });
    } else {
      const std::size_t by = below(4);
      const bool may = count_down(by);
      require(allowed([&] { latch_->count_down(by); }) == may, "latch::count_down");
    }
  }
  bool count_down(std::size_t by) {
    if (by > left_) {
      return false;
    }
    left_ -= by;
    if (left_ == 0) {
      model_.serve_all(line_);
    }
    return true;
  }
  std::optional<answer> wait(task_id me, limit until) {
    if (const auto thrown = model_.throws_overdue(me)) {
      return thrown;
    }
    return left_ == 0 ? model_.ends_at_once(me, {}) : model_.waits(me, line_, until);
  }
  void give() override {
    const bool may = count_down(1);
    require(allowed([&] { latch_->count_down(); }) == may, "latch::count_down");
  }
  void renew() override {
    left_ = below(8);
    latch_.make(left_);
    model_.destroyed(line_);
  }
  void end() override {
    latch_.destroy();
    model_.destroyed(line_);
  }
  void compare() override {
    require(!going_on() || latch_->is_open() == (left_ == 0), "latch::is_open");
    require(latch_.untouched(), "a latch was written to after its end");
  }

  std::size_t left_ = 3;
  scheduler_model::line line_;
  destroyed_and_made<annulet::latch> latch_{left_};
};

class barrier_stage final : public stage {
 public:
  barrier_stage(std::uint64_t seed, stage_tally& tally) : stage(seed, tally) {}

 private:
  void act(task_id me) override {
    if (count_ == 0 && one_in(4)) {
      renew();
    } else if (one_in(64)) {
      leave();
    } else {
      const limit until = some_limit();
      call(me, "barrier::arrive_and_wait", arrive(me, until),
           [&] { return said(barrier_->arrive_and_wait(until.real())); });
    }
  }
  std::optional<answer> arrive(task_id me, limit until) {
    if (const auto thrown = model_.throws_overdue(me)) {
      return thrown;
    }
    if (count_ == 0) {
      return answer{outcome::misuse};
    }
    if (line_.size() + 1 < count_) {
      return model_.waits(me, line_, until);
    }
    return complete() ? model_.ends_at_once(me, {}) : answer{outcome::thrown, rounds_};
  }
  void leave() {
    const bool may = count_ != 0;
    bool throws = false;
    if (may) {
      --count_;
      throws = count_ != 0 && line_.size() == count_ && !complete();
    }
    bool has_thrown = false;
    const bool might = allowed([&] {
      try {
        barrier_->leave();
      } catch (const failure&) {
        has_thrown = true;
      }
    });
    require(might == may && has_thrown == throws, "barrier::leave");
  }
  // False where the completion throws. The model decides that, in the same step as it happens.
  bool complete() {
    ++rounds_;
    throws_ = one_in(16);
    model_.serve_all(line_);
    return !throws_;
  }
  void completion() {
    ++completions_;
    if (throws_) {
      throw failure{completions_};
    }
  }
  void renew() override {
    count_ = 1 + below(5);
    barrier_.make(count_, [this] { completion(); });
    model_.destroyed(line_);
  }
  void end() override {
    barrier_.destroy();
    model_.destroyed(line_);
  }
  void compare() override {
    require(completions_ == rounds_, "a barrier's completion was not called once a round");
    require(barrier_.untouched(), "a barrier was written to after its end");
  }

  std::size_t count_ = 2;
  std::uint64_t rounds_ = 0;
  std::uint64_t completions_ = 0;
  bool throws_ = false;
  scheduler_model::line line_;
  destroyed_and_made<annulet::barrier> barrier_{count_, [this] { completion(); }};
};

}  // namespace annulet_test
