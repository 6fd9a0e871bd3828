// What a queue and a channel are: items go from fibers that push to fibers that pop, through a store that may
// have room for none. An item that a popper waits for is put into its frame at once.
#pragma once

#include "deadline.hpp"
#include "errors.hpp"
#include "ring_buffer.hpp"
#include "wait_queue.hpp"

#include <cstddef>
#include <optional>
#include <string>
#include <utility>

namespace annulet::detail {

// At most one of the two lines has anybody in it: who pops waits only where nothing is stored, who pushes
// only where the store is full.
template <class T>
class hand_over {
 public:
  struct pusher : wait_place {
    pusher(waiter& of, T& what) noexcept : wait_place(of), item(what) {}
    T& item;
    bool taken = false;
  };
  struct popper : wait_place {
    using wait_place::wait_place;
    std::optional<T> item;
  };

  explicit hand_over(std::size_t limit) noexcept : stored_(limit) {}

  bool push(T&& item, deadline until, const char* call) {
    begin(call);
    if (closed_) {
      wait_queue::breathe();
      return false;
    }
    if (deliver(item)) {
      wait_queue::breathe();
      return true;
    }
    waiter w(pushers_.running());
    pusher place(w, item);
    if (!pushers_.park(w, place, until, call)) {
      throw_deadline_passed(call);
    }
    return place.taken;
  }

  bool try_push(T&& item, const char* call) {
    require_own_thread(call);
    return !closed_ && deliver(item);
  }

  std::optional<T> pop(deadline until, const char* call) {
    begin(call);
    if (std::optional<T> item = fetch(); item || closed_) {
      wait_queue::breathe();
      return item;
    }
    waiter w(pushers_.running());
    popper place(w);
    if (!poppers_.park(w, place, until, call)) {
      throw_deadline_passed(call);
    }
    return std::move(place.item);
  }

  std::optional<T> try_pop(const char* call) {
    require_own_thread(call);
    return fetch();
  }

  void close(const char* call) {
    require_own_thread(call);
    closed_ = true;
    pushers_.wake_all();
    poppers_.wake_all();
  }

  [[nodiscard]] bool closed() const noexcept { return closed_; }
  [[nodiscard]] std::size_t size() const noexcept { return stored_.size(); }
  [[nodiscard]] std::size_t limit() const noexcept { return stored_.limit(); }

  // For who waits for other things too.
  [[nodiscard]] wait_queue& pushers() noexcept { return pushers_; }
  [[nodiscard]] wait_queue& poppers() noexcept { return poppers_; }

 private:
  // The pushers' line knows the thread for both.
  void begin(const char* call) { pushers_.begin(call, !poppers_.empty()); }
  void require_own_thread(const char* call) { pushers_.require_own_thread(call, !poppers_.empty()); }

  bool deliver(T& item) {
    if (!poppers_.empty()) {
      static_cast<popper&>(poppers_.front()).item.emplace(std::move(item));
      poppers_.wake_one();
      return true;
    }
    if (stored_.full()) {
      return false;
    }
    stored_.push(std::move(item));
    return true;
  }

  std::optional<T> fetch() {
    std::optional<T> item;
    if (!stored_.empty()) {
      item.emplace(stored_.pop());
      if (!pushers_.empty()) {
        stored_.push(take_from_pusher());
      }
    } else if (!pushers_.empty()) {
      item.emplace(take_from_pusher());
    }
    return item;
  }

  T take_from_pusher() noexcept {
    auto& longest = static_cast<pusher&>(pushers_.front());
    T item = std::move(longest.item);
    longest.taken = true;
    pushers_.wake_one();
    return item;
  }

  [[noreturn]] static void throw_deadline_passed(const char* call) {
    throw deadline_passed(std::string("annulet: ") + call + ": the deadline passed");
  }

  wait_queue pushers_;
  wait_queue poppers_;
  ring_buffer<T> stored_;
  bool closed_ = false;
};

}  // namespace annulet::detail
