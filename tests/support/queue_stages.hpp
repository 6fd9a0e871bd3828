// A queue and a channel: a model of both, and the steps that fibers take.
#pragma once

#include "destroyed.hpp"
#include "primitive_stage.hpp"

#include <annulet/runtime/channel.hpp>
#include <annulet/runtime/queue.hpp>

#include <cstddef>
#include <cstdint>
#include <deque>
#include <map>
#include <optional>
#include <type_traits>
#include <utility>

namespace annulet_test {

// What is pushed: knows whether it was moved away.
class parcel {
 public:
  explicit parcel(std::uint64_t item) noexcept : item_(item) {}
  parcel(parcel&& other) noexcept : item_(std::exchange(other.item_, 0)) {}
  parcel& operator=(parcel&& other) noexcept {
    item_ = std::exchange(other.item_, 0);
    return *this;
  }
  [[nodiscard]] std::uint64_t item() const noexcept { return item_; }

 private:
  std::uint64_t item_;
};

class queue_model {
 public:
  using task_id = scheduler_model::task_id;

  explicit queue_model(call_model& calls) : calls_(calls) {}

  std::optional<answer> push(task_id me, std::uint64_t item, limit until) {
    if (const auto thrown = calls_.throws_overdue(me)) {
      return thrown;
    }
    if (closed || try_push(item)) {
      return calls_.ends_at_once(me, {closed ? outcome::no : outcome::yes});
    }
    pushed_[me] = item;
    return calls_.waits(me, pushers_, until, outcome::deadline_passed);
  }
  bool try_push(std::uint64_t item) {
    if (closed) {
      return false;
    }
    if (calls_.serve_first(poppers_, {outcome::yes, item})) {
      return true;
    }
    if (stored.size() == capacity) {
      return false;
    }
    stored.push_back(item);
    return true;
  }
  std::optional<answer> pop(task_id me, limit until) {
    if (const auto thrown = calls_.throws_overdue(me)) {
      return thrown;
    }
    if (const auto item = try_pop()) {
      return calls_.ends_at_once(me, {outcome::yes, *item});
    }
    if (closed) {
      return calls_.ends_at_once(me, {outcome::no});
    }
    return calls_.waits(me, poppers_, until, outcome::deadline_passed);
  }
  std::optional<std::uint64_t> try_pop() {
    if (const auto pusher = calls_.serve_first(pushers_)) {
      stored.push_back(pushed_[*pusher]);
    }
    if (stored.empty()) {
      return std::nullopt;
    }
    const std::uint64_t first = stored.front();
    stored.pop_front();
    return first;
  }
  void close() {
    closed = true;
    calls_.serve_all(pushers_, {outcome::no});
    calls_.serve_all(poppers_, {outcome::no});
  }
  void destroyed(std::size_t capacity_of_next) {
    calls_.destroyed(pushers_);
    calls_.destroyed(poppers_);
    stored.clear();
    closed = false;
    capacity = capacity_of_next;
  }

  std::size_t capacity = 0;
  std::deque<std::uint64_t> stored;
  bool closed = false;

 private:
  call_model& calls_;
  scheduler_model::line pushers_;
  scheduler_model::line poppers_;
  std::map<task_id, std::uint64_t> pushed_;  // by who waits
};

// Of one or the other.
template <class Queue>
class queue_or_channel_stage final : public stage {
 public:
  queue_or_channel_stage(std::uint64_t seed, stage_tally& tally) : stage(seed, tally) { renew(); }

 private:
  static constexpr bool stores = !std::is_same_v<Queue, annulet::channel<parcel>>;

  void act(task_id me) override {
    const auto dice = below(32);
    if (dice < 13) {
      push(me);
    } else if (dice < 26) {
      const limit until = some_limit();
      call(me, "pop", line_.pop(me, until), [&] { return popped(queue_->pop(until.real())); });
    } else if (dice < 29) {
      try_push();
    } else if (dice < 31) {
      try_pop();
    } else if (line_.closed) {
      renew();
    } else if (one_in(4)) {
      line_.close();
      queue_->close();
    }
  }
  static answer popped(const std::optional<parcel>& p) {
    return {p ? outcome::yes : outcome::no, p ? p->item() : 0};
  }
  void push(task_id me) {
    const limit until = some_limit();
    parcel p(++items_);
    const std::uint64_t item = p.item();
    struct check {
      queue_or_channel_stage& of;
      const parcel& p;
      std::uint64_t item;
      bool taken = false;
      ~check() { of.require(p.item() == (taken ? 0 : item), "what a push left of its item"); }
    };
    check at_end{*this, p, item};
    const answer got = call(me, "push", line_.push(me, item, until),
                            [&] { return said(queue_->push(std::move(p), until.real())); });
    at_end.taken = got.how == outcome::yes;
  }
  void try_push() {
    parcel p(++items_);
    const bool taken = line_.try_push(p.item());
    require(queue_->try_push(std::move(p)) == taken, "try_push");
    require(p.item() == (taken ? 0 : items_), "what a try_push left of its item");
  }
  void try_pop() {
    const auto item = line_.try_pop();
    const auto got = queue_->try_pop();
    require(got.has_value() == item.has_value(), "try_pop");
    require(!got || !item || got->item() == *item, "what try_pop brought");
  }
  void give() override { one_in(2) ? try_push() : try_pop(); }
  void renew() override {
    if constexpr (stores) {
      const std::size_t capacity = 1 + below(3);
      queue_.make(capacity);
      line_.destroyed(capacity);
    } else {
      queue_.make();
      line_.destroyed(0);
    }
  }
  void end() override {
    queue_.destroy();
    line_.destroyed(0);
  }
  void compare() override {
    if (going_on()) {
      require(queue_->closed() == line_.closed, "closed");
      if constexpr (stores) {
        require(queue_->size() == line_.stored.size(), "size");
      }
    }
    require(queue_.untouched(), "one was written to after its end");
  }

  std::uint64_t items_ = 0;
  queue_model line_{model_};
  destroyed_and_made<Queue> queue_;
};

using queue_stage = queue_or_channel_stage<annulet::queue<parcel>>;
using channel_stage = queue_or_channel_stage<annulet::channel<parcel>>;

}  // namespace annulet_test
