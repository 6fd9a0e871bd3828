// A variable of which each fiber has a value of its own.
//
//   annulet::fiber_local<request_id> current;
//   *current = next_id();                      // this fiber's, made on first use
//
// The object may be used from any thread with a hub: each fiber sees its own. A value lives until its fiber
// ends, and main's until the hub does, also where the object is destroyed before; it is destroyed by that
// fiber, the newest first, with no kill or guard in the way. A destructor may use other fiber-locals: one
// that is made there is destroyed in turn, some rounds long.
#pragma once

#include "control_block.hpp"

#include <concepts>
#include <cstdint>
#include <functional>
#include <memory>
#include <stdexcept>
#include <utility>

namespace [[gnu::visibility("default")]] annulet {

namespace detail {

// Never given twice. Any thread.
[[nodiscard]] std::uint64_t new_fiber_variable() noexcept;
// The running fiber's. Throws no_hub.
[[nodiscard]] local_slot*& locals_of_running_fiber();

}  // namespace detail

template <class T>
class fiber_local {
 public:
  fiber_local() requires std::default_initializable<T> : first_([] { return T(); }) {}
  // `first` makes the value of a fiber that has none yet. It may park.
  // std::invalid_argument for none.
  explicit fiber_local(std::function<T()> first) : first_(std::move(first)) {
    if (first_ == nullptr) {
      throw std::invalid_argument("annulet: fiber_local: no function for first values");
    }
  }
  fiber_local(const fiber_local&) = delete;
  fiber_local& operator=(const fiber_local&) = delete;

  // Parks only where making the first value does. Throws no_hub, std::bad_alloc, and what that throws. Takes
  // longer the more variables the fiber has a value of.
  T& operator*() {
    if (slot* const known = find()) {
      return known->value;
    }
    auto made = std::make_unique<slot>(first_);
    if (slot* const known = find()) {
      return known->value;  // made meanwhile, by first_ itself
    }
    detail::local_slot*& all = detail::locals_of_running_fiber();
    made->variable = variable_;
    made->destroy = [](detail::local_slot& s) noexcept { delete static_cast<slot*>(&s); };
    made->next = all;
    all = made.get();
    return made.release()->value;
  }
  T* operator->() { return std::addressof(**this); }

  // The running fiber's value, or null where it has none yet.
  [[nodiscard]] T* get_if() {
    slot* const known = find();
    return known == nullptr ? nullptr : std::addressof(known->value);
  }

 private:
  struct slot : detail::local_slot {
    explicit slot(const std::function<T()>& first) : value(first()) {}
    T value;
  };

  [[nodiscard]] slot* find() const {
    detail::local_slot* at = detail::locals_of_running_fiber();
    while (at != nullptr && at->variable != variable_) {
      at = at->next;
    }
    return static_cast<slot*>(at);
  }

  const std::uint64_t variable_ = detail::new_fiber_variable();
  std::function<T()> first_;
};

}  // namespace annulet
