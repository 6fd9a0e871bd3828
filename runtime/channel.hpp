// A rendezvous: push() waits until another fiber pops, and has then handed the item over. It stores nothing.
// All else is as in queue.hpp.
#pragma once

#include "hand_over.hpp"

#include <optional>
#include <utility>

namespace [[gnu::visibility("default")]] annulet {

// T's move constructor must not throw.
template <class T>
class channel {
 public:
  channel() : core_(0) {}
  // Fibers that still wait get std::logic_error out of their call.
  ~channel() = default;

  // Parks until another fiber takes the item. False where the channel is closed, or is meanwhile;
  // deadline_passed where the deadline came first. Then the item is still the caller's, as after a
  // cancellation.
  bool push(T&& item, deadline until = deadline::never()) {
    return core_.push(std::move(item), until, "channel::push");
  }
  bool push(const T& item, deadline until = deadline::never()) { return push(T(item), until); }
  // Does not park. False where nobody waits in pop(), or it is closed; then the item is still the caller's.
  [[nodiscard]] bool try_push(T&& item) { return core_.try_push(std::move(item), "channel::try_push"); }
  [[nodiscard]] bool try_push(const T& item) { return try_push(T(item)); }

  // Parks until another fiber pushes. None where the channel is closed; deadline_passed where the deadline
  // came first.
  std::optional<T> pop(deadline until = deadline::never()) { return core_.pop(until, "channel::pop"); }
  // Does not park. None where nobody waits in push().
  std::optional<T> try_pop() { return core_.try_pop("channel::try_pop"); }

  // Ends all that wait, and all later calls. Does not park. May be repeated.
  void close() { core_.close("channel::close"); }
  [[nodiscard]] bool closed() const noexcept { return core_.closed(); }

 private:
  friend struct detail::lines;

  detail::hand_over<T> core_;
};

}  // namespace annulet
