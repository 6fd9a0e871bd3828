// A group of fibers: a model of it, and the steps that its members and others take.
#pragma once

#include "child.hpp"
#include "destroyed.hpp"
#include "primitive_stage.hpp"

#include <annulet/runtime/fiber_group.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace annulet_test {

class group_stage final : public stage {
 public:
  group_stage(std::uint64_t seed, stage_tally& tally) : stage(seed, tally) {}

 private:
  // A member's callable. It is destroyed without a call where the member was killed before it ran, or was
  // never spawned; `id` says which.
  class member {
   public:
    member(group_stage& owner, std::shared_ptr<task_id> id) : owner_(&owner), id_(std::move(id)) {}
    member(member&& other) noexcept
        : owner_(std::exchange(other.owner_, nullptr)), id_(std::move(other.id_)) {}
    member& operator=(member&&) = delete;
    ~member() {
      if (owner_ != nullptr && *id_ != not_spawned) {
        owner_->never_began(*id_);
      }
    }
    void operator()() { std::exchange(owner_, nullptr)->live_as_member(*id_); }

   private:
    group_stage* owner_;
    std::shared_ptr<task_id> id_;
  };
  static constexpr task_id not_spawned = 0;

  void act(task_id me) override {
    const auto dice = below(32);
    if (dice < 12) {
      spawn(me, some_limit());
    } else if (dice < 18) {
      join(me);
    } else if (dice < 26) {
      get(me);
    } else if (dice < 30) {
      give();
    } else if (!in_a_hurry()) {
      kill_and_join(me);
    }
  }

  void spawn(task_id me, limit until) {
    const std::uint64_t life = life_;
    const auto id = std::make_shared<task_id>(not_spawned);
    const auto ends = [&] {
      const answer a = model_.comes_out(me);
      return a.how == outcome::yes && life != life_ ? answer{outcome::misuse} : a;
    };
    const auto real = [&] { return said(group_->spawn(member(*this, id), until.real())); };
    if (call(me, "fiber_group::spawn", takes_place(me, until), real, ends).how == outcome::yes) {
      *id = model_.spawned();
      adopt(*id);
    }
  }
  std::optional<answer> takes_place(task_id me, limit until) {
    if (const auto thrown = model_.throws_overdue(me)) {
      return thrown;
    }
    if (ending_ && !is_member(me)) {
      return answer{outcome::misuse};
    }
    if (taken_ == limit_) {
      return model_.waits(me, for_room_, until);
    }
    ++taken_;
    return model_.ends_at_once(me, {});
  }
  void adopt(task_id id) {
    members_.push_back(id);
    if (ending_) {
      model_.kill(id);
    }
  }

  void join(task_id me) {
    const limit until = some_limit();
    call(me, "fiber_group::join", joins(me, until), [&] { return said(group_->join(until.real())); });
  }
  std::optional<answer> joins(task_id me, limit until) {
    if (const auto thrown = model_.throws_overdue(me)) {
      return thrown;
    }
    if (is_member(me)) {
      return answer{outcome::misuse};
    }
    return taken_ == 0 ? model_.ends_at_once(me, {}) : model_.waits(me, for_the_last_, until);
  }
  void get(task_id me) {
    const limit until = some_limit();
    call(me, "fiber_group::get", gets(me, until), [&] {
      group_->get(until.real());
      return answer{};
    });
  }
  std::optional<answer> gets(task_id me, limit until) {
    if (const auto thrown = model_.throws_overdue(me)) {
      return thrown;
    }
    if (is_member(me)) {
      return answer{outcome::misuse};
    }
    if (error_) {
      return answer{outcome::thrown, *std::exchange(error_, std::nullopt)};
    }
    return taken_ == 0 ? model_.ends_at_once(me, {})
                       : model_.waits(me, for_an_error_, until, outcome::deadline_passed);
  }
  void give() override {
    kill_members();
    group_->kill();
  }
  void kill_members() {
    for (const task_id id : members_) {
      model_.kill(id);
    }
  }
  void kill_and_join(task_id me) {
    call(me, "fiber_group::kill_and_join", kills_and_joins(me), [&] {
      group_->kill_and_join();
      return answer{};
    });
  }
  std::optional<answer> kills_and_joins(task_id me) {
    if (is_member(me)) {
      return answer{outcome::misuse};
    }
    kill_members();
    if (taken_ == 0) {
      return model_.ends_at_once(me, {});
    }
    ending_ = true;
    model_.waits_uninterrupted(me, for_the_last_);
    return std::nullopt;
  }

  [[nodiscard]] bool is_member(task_id id) const {
    return std::find(members_.begin(), members_.end(), id) != members_.end();
  }
  // What members throw has a number; 0 stands for the expiry of a guard.
  void live_as_member(task_id me) {
    model_.running(me);
    try {
      for (auto n = below(4); n > 0 && going_on(); --n) {
        step_as_member(me);
      }
      if (one_in(8)) {
        with_guard(me, {.past = true}, [&](auto&) { yield(me); });
      }
    } catch (const annulet::fiber_killed&) {
      ended(me, std::nullopt);
      throw;
    } catch (const annulet::timeout_expired&) {
      ended(me, 0);
      throw;
    }
    if (one_in(3)) {
      const failure f{++failures_};
      ended(me, f.item);
      throw f;
    }
    ended(me, std::nullopt);
  }
  void step_as_member(task_id me) {
    const auto dice = below(16);
    if (dice < 9) {
      sleep(me, soon());
    } else if (dice < 12) {
      yield(me);
    } else if (dice == 12) {
      spawn(me, {.past = true});
    } else if (dice == 13) {
      join(me);
    } else if (dice == 14) {
      get(me);
    } else {
      kill_and_join(me);
    }
  }
  void never_began(task_id me) {
    require(model_.killed_before_it_ran(me), "a member never ran and was not killed");
    model_.running(me);
    ended(me, std::nullopt);
  }
  void ended(task_id me, std::optional<std::uint64_t> failed) {
    model_.ended(me);
    if (!is_member(me)) {
      reports_ += failed ? 1 : 0;  // its group is gone
      return;
    }
    if (failed && error_) {
      ++reports_;
    } else if (failed && !model_.serve_first(for_an_error_, {outcome::thrown, *failed})) {
      error_ = failed;
    }
    std::erase(members_, me);
    if (!model_.serve_first(for_room_) && --taken_ == 0) {
      ending_ = false;
      model_.serve_all(for_the_last_);
      model_.serve_all(for_an_error_);
    }
  }

  void renew() override {
    const std::size_t limit = one_in(4) ? annulet::fiber_group::unlimited : 1 + below(4);
    group_.make(limit);
    destroyed();
    limit_ = limit;
  }
  void end() override {
    group_.destroy();
    destroyed();
  }
  void destroyed() {
    kill_members();
    members_.clear();
    model_.destroyed(for_an_error_);
    model_.destroyed(for_the_last_);
    model_.destroyed(for_room_);
    reports_ += error_ ? 1 : 0;
    error_.reset();
    taken_ = 0;
    ending_ = false;
    ++life_;
  }
  void compare() override {
    if (going_on()) {
      require(group_->size() == members_.size(), "fiber_group::size");
      require(group_->failed() == error_.has_value(), "fiber_group::failed");
    }
    require(group_.untouched(), "a group was written to after its end");
  }
  void compare_at_last() override {
    const std::string said = stderr_.text();
    const auto lines = static_cast<std::uint64_t>(std::count(said.begin(), said.end(), '\n'));
    require(lines == reports_, "how many errors were reported that nobody collected");
  }

  stderr_capture stderr_;
  std::uint64_t reports_ = 0;
  std::uint64_t failures_ = 0;
  std::uint64_t life_ = 0;
  std::size_t limit_ = 2;
  std::size_t taken_ = 0;
  bool ending_ = false;
  std::optional<std::uint64_t> error_;
  std::vector<task_id> members_;
  scheduler_model::line for_room_;
  scheduler_model::line for_the_last_;
  scheduler_model::line for_an_error_;
  destroyed_and_made<annulet::fiber_group> group_{limit_};
};

}  // namespace annulet_test
