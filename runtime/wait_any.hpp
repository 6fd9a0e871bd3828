// Waits for whichever comes first of several things.
//
//   annulet::popping job(jobs);                      // an item of a queue or channel
//   switch (annulet::wait_any(5s, job, stop, worker).value_or(3)) {
//     case 0: run(job.item()); break;                // none where the queue was closed
//     case 1: return;                                // the event is set
//     case 2: worker.get(); break;                   // the fiber has ended
//     case 3: ...                                    // five seconds have passed
//   }
//
// What can be waited for so: a fiber (has ended), a future (is ready), an event (is set), a latch (is open),
// a semaphore (a permit, which is taken), popping and pushing. Of those that are there already it is the
// first in the order given; what is not chosen is not consumed. For the fibers of one thread.
#pragma once

#include "channel.hpp"
#include "event.hpp"
#include "fiber.hpp"
#include "future.hpp"
#include "latch.hpp"
#include "queue.hpp"
#include "semaphore.hpp"
#include "wait_case.hpp"

#include <array>
#include <concepts>
#include <cstddef>
#include <deque>
#include <memory>
#include <optional>
#include <ranges>
#include <tuple>
#include <utility>
#include <vector>

namespace [[gnu::visibility("default")]] annulet {

namespace detail {

struct lines {
  template <class Primitive>
  static wait_queue& of(Primitive& p) noexcept {
    return p.waiting_;
  }
  template <class Passage>
  static auto& core_of(Passage& p) noexcept {
    return p.core_;
  }
  // Throws as the handle's calls do, and std::logic_error for the running fiber itself.
  static control_block& block_of(const fiber_handle& f);
};

// A place of some kind in a line.
template <class Place = wait_place>
class case_in_line : public wait_case {
 public:
  [[nodiscard]] const wait_place* place() const noexcept final { return place_ ? &*place_ : nullptr; }
  void leave() noexcept final { place_.reset(); }

 protected:
  ~case_in_line() = default;

  template <class Line, class... More>
  void stand_in(Line& line, waiter& w, More&... more) {
    w.stand_in(place_.emplace(w, more...));
    line.add(*place_);
  }
  std::optional<Place> place_;
};

template <>
class case_of<event> final : public case_in_line<> {
 public:
  static constexpr bool lasting = true;

  explicit case_of(event& e) noexcept : event_(e) {}
  bool take() override {
    lines::of(event_).require_own_thread("wait_any");
    return event_.is_set();
  }
  void enlist(waiter& w) override { stand_in(lines::of(event_), w); }

 private:
  event& event_;
};

template <>
class case_of<latch> final : public case_in_line<> {
 public:
  static constexpr bool lasting = true;

  explicit case_of(latch& l) noexcept : latch_(l) {}
  bool take() override {
    lines::of(latch_).require_own_thread("wait_any");
    return latch_.is_open();
  }
  void enlist(waiter& w) override { stand_in(lines::of(latch_), w); }

 private:
  latch& latch_;
};

template <>
class case_of<semaphore> final : public case_in_line<> {
 public:
  static constexpr bool lasting = false;

  explicit case_of(semaphore& s) noexcept : semaphore_(s) {}
  bool take() override { return semaphore_.try_acquire(); }
  void enlist(waiter& w) override { stand_in(lines::of(semaphore_), w); }

 private:
  semaphore& semaphore_;
};

template <class T>
class case_of<fiber<T>> final : public case_in_line<> {
 public:
  static constexpr bool lasting = true;

  explicit case_of(fiber<T>& f) noexcept : fiber_(f) {}
  bool take() override { return lines::block_of(fiber_).state == fiber_state::done; }
  void enlist(waiter& w) override {
    w.stand_in(place_.emplace(w));
    lines::block_of(fiber_).joiners.push_back(*place_);
  }

 private:
  fiber<T>& fiber_;
};

template <class T>
class case_of<future<T>> final : public case_in_line<> {
 public:
  static constexpr bool lasting = true;

  explicit case_of(future<T>& f) : kept_(f.state("wait_any")->core) {}
  bool take() override { return kept_->listen("wait_any"); }
  void enlist(waiter& w) override { stand_in(kept_->line(), w); }
  [[nodiscard]] bool is_outside() const noexcept override { return true; }

 private:
  const std::shared_ptr<promised> kept_;  // the future may go meanwhile
};

template <std::derived_from<wait_case> Case>
class case_of<Case> {
 public:
  static constexpr bool lasting = false;

  explicit case_of(Case& c) noexcept : case_(c) {}
  operator wait_case&() noexcept { return case_; }  // NOLINT(google-explicit-constructor)

 private:
  Case& case_;
};

template <class Source>
concept can_be_waited_for = requires(Source& s) {
  case_of<Source>(s);
};

template <class Range>
struct cases_of {
  explicit cases_of(Range& sources) {
    for (auto& each : sources) {
      all.push_back(&static_cast<wait_case&>(each_.emplace_back(each)));
    }
  }
  std::vector<wait_case*> all;

 private:
  std::deque<case_of<std::ranges::range_value_t<Range>>> each_;
};

template <class Source>
concept can_be_waited_for_with_others = can_be_waited_for<Source> && case_of<Source>::lasting;

}  // namespace detail

// The next item of a queue or a channel, as one of the things that wait_any waits for.
template <class T>
class popping final : public detail::case_in_line<typename detail::hand_over<T>::popper> {
 public:
  explicit popping(queue<T>& from) noexcept : core_(detail::lines::core_of(from)) {}
  explicit popping(channel<T>& from) noexcept : core_(detail::lines::core_of(from)) {}

  // What was popped when it was chosen, until the next wait; none where the queue was closed and empty.
  [[nodiscard]] std::optional<T>& item() noexcept { return item_; }

  void begin() noexcept override { item_.reset(); }
  bool take() override {
    keep(core_.try_pop("wait_any"));
    return item_.has_value() || core_.closed();
  }
  void enlist(detail::waiter& w) override { this->stand_in(core_.poppers(), w, item_); }

 private:
  // T may lack an assignment.
  void keep(std::optional<T>&& popped) {
    item_.reset();
    if (popped) {
      item_.emplace(std::move(*popped));
    }
  }

  detail::hand_over<T>& core_;
  std::optional<T> item_;
};

// An item for a queue or a channel, likewise. It stays the caller's until it is chosen and pushed; to push
// another one, put that in its place.
template <class T>
class pushing final : public detail::case_in_line<typename detail::hand_over<T>::pusher> {
 public:
  pushing(queue<T>& to, T& item) noexcept : core_(detail::lines::core_of(to)), item_(item) {}
  pushing(channel<T>& to, T& item) noexcept : core_(detail::lines::core_of(to)), item_(item) {}

  // Whether the item was taken when it was last chosen; not where the queue was closed.
  [[nodiscard]] bool pushed() const noexcept { return pushed_; }

  void begin() noexcept override { pushed_ = false; }
  bool take() override {
    pushed_ = core_.try_push(std::move(item_), "wait_any");
    return pushed_ || core_.closed();
  }
  void enlist(detail::waiter& w) override { this->stand_in(core_.pushers(), w, item_); }
  bool was_told() override {
    pushed_ = this->place_->taken;
    return true;
  }

 private:
  detail::hand_over<T>& core_;
  T& item_;
  bool pushed_ = false;
};

// Parks until one of them is there, and says which, counted from 0. None where the deadline came first.
// Throws what each of their own waits does for misuse, and std::logic_error where one was destroyed
// meanwhile.
template <detail::can_be_waited_for... Sources>
requires(sizeof...(Sources) > 0)
    [[nodiscard]] std::optional<std::size_t> wait_any(deadline until, Sources&... sources) {
  std::tuple<detail::case_of<Sources>...> cases(sources...);
  return std::apply(
      [until](auto&... each) {
        const std::array<detail::wait_case*, sizeof...(each)> all{&static_cast<detail::wait_case&>(each)...};
        return detail::wait_for_any(all, until);
      },
      cases);
}

// The same for a range of them, all of one kind. std::invalid_argument for an empty one.
template <std::ranges::forward_range Range>
requires detail::can_be_waited_for<std::ranges::range_value_t<Range>>
[[nodiscard]] std::optional<std::size_t> wait_any(deadline until, Range&& sources) {
  detail::cases_of<Range> cases(sources);
  return detail::wait_for_any(cases.all, until);
}

// Parks until each of them has been there: fibers, futures, events, latches. An event counts also where it is
// cleared before the others are there. False where the deadline came first.
template <detail::can_be_waited_for_with_others... Sources>
requires(sizeof...(Sources) > 0) [[nodiscard]] bool wait_all(deadline until, Sources&... sources) {
  std::tuple<detail::case_of<Sources>...> cases(sources...);
  return std::apply(
      [until](auto&... each) {
        const std::array<detail::wait_case*, sizeof...(each)> all{&static_cast<detail::wait_case&>(each)...};
        return detail::wait_for_all(all, until);
      },
      cases);
}

// The same for a range; of an empty one all are there.
template <std::ranges::forward_range Range>
requires detail::can_be_waited_for_with_others<std::ranges::range_value_t<Range>>
[[nodiscard]] bool wait_all(deadline until, Range&& sources) {
  detail::cases_of<Range> cases(sources);
  return detail::wait_for_all(cases.all, until);
}

}  // namespace annulet
