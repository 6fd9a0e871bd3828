// Items from fibers to fibers, first in first out, through a store of a fixed capacity: who pushes into a
// full one waits, and so is as fast as who pops.
//
//   annulet::queue<job> jobs(100);
//   annulet::spawn([&] { while (auto j = jobs.pop()) work(*j); });   // until it is closed and empty
//   jobs.push(job{...});
//   jobs.close();
//
// For the fibers of one thread. Fibers that wait are served first come first served. One that was killed
// before an item was handed to it gets none, and the item goes to the next; one that was handed it first
// returns it, and meets the kill at its next park.
#pragma once

#include "hand_over.hpp"

#include <cstddef>
#include <limits>
#include <optional>
#include <stdexcept>
#include <utility>

namespace [[gnu::visibility("default")]] annulet {

// T's move constructor must not throw.
template <class T>
class queue {
 public:
  static constexpr std::size_t unbounded = std::numeric_limits<std::ptrdiff_t>::max();

  // How many it stores. std::invalid_argument for 0, that is a channel, and for more than `unbounded`, as
  // what was negative is.
  explicit queue(std::size_t capacity) : core_(checked(capacity)) {}
  queue() : core_(unbounded) {}
  // Fibers that still wait get std::logic_error out of their call. What is stored is destroyed.
  ~queue() = default;

  // Parks until there is room. False where the queue is closed, or is meanwhile; deadline_passed where the
  // deadline came first. Then the item is still the caller's, as after a cancellation.
  bool push(T&& item, deadline until = deadline::never()) {
    return core_.push(std::move(item), until, "queue::push");
  }
  bool push(const T& item, deadline until = deadline::never()) { return push(T(item), until); }
  // Does not park. False where it is full or closed; then the item is still the caller's.
  [[nodiscard]] bool try_push(T&& item) { return core_.try_push(std::move(item), "queue::try_push"); }
  [[nodiscard]] bool try_push(const T& item) { return try_push(T(item)); }

  // Parks until there is an item. None where the queue is closed and empty; deadline_passed where the
  // deadline came first.
  std::optional<T> pop(deadline until = deadline::never()) { return core_.pop(until, "queue::pop"); }
  // Does not park. None where it is empty.
  std::optional<T> try_pop() { return core_.try_pop("queue::try_pop"); }

  // No more pushes: those that wait end with false. What is stored can still be popped, then pops end with
  // none. Does not park. May be repeated.
  void close() { core_.close("queue::close"); }
  [[nodiscard]] bool closed() const noexcept { return core_.closed(); }

  [[nodiscard]] std::size_t size() const noexcept { return core_.size(); }
  [[nodiscard]] bool empty() const noexcept { return core_.size() == 0; }
  [[nodiscard]] std::size_t capacity() const noexcept { return core_.limit(); }

 private:
  friend struct detail::lines;

  static std::size_t checked(std::size_t capacity) {
    if (capacity == 0 || capacity > unbounded) {
      throw std::invalid_argument(capacity == 0 ? "annulet: queue: a capacity of 0; a channel has none"
                                                : "annulet: queue: a negative capacity");
    }
    return capacity;
  }

  detail::hand_over<T> core_;
};

}  // namespace annulet
