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
    popper(waiter& of, std::optional<T>& into) noexcept : wait_place(of), item(into) {}
    std::optional<T>& item;  // empty
  };

  explicit hand_over(std::size_t limit) noexcept : stored_(limit) {}

  bool push(T&& item, deadline until, const char* call) {
    control_block& self = begin(call);
    const bool taken = !closed_ && deliver(item);
    if (!taken && !closed_) {
      return wait_to_push(self, item, until, call);
    }
    wait_queue::breathe();
    return taken;
  }

  bool try_push(T&& item, const char* call) {
    require_own_thread(call);
    return !closed_ && deliver(item);
  }

  // The item is put straight into the result: a copy of an optional that was filled a moment ago has to wait
  // for both parts of it to reach the cache, which costs more than all the rest.
  std::optional<T> pop(deadline until, const char* call) {
    std::optional<T> item;
    control_block& self = begin(call);
    fetch(item);
    if (item || closed_) {
      wait_queue::breathe();
    } else {
      wait_to_pop(self, item, until, call);
    }
    return item;
  }

  std::optional<T> try_pop(const char* call) {
    std::optional<T> item;
    require_own_thread(call);
    fetch(item);
    return item;
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
  control_block& begin(const char* call) { return pushers_.begin(call, !poppers_.empty()); }
  void require_own_thread(const char* call) { pushers_.require_own_thread(call, !poppers_.empty()); }

  [[gnu::noinline]] bool wait_to_push(control_block& self, T& item, deadline until, const char* call) {
    waiter w(self, call);
    pusher place(w, item);
    if (!pushers_.park(w, place, until)) {
      throw_deadline_passed(call);
    }
    return place.taken;
  }

  [[gnu::noinline]] void wait_to_pop(control_block& self, std::optional<T>& into, deadline until,
                                     const char* call) {
    waiter w(self, call);
    popper place(w, into);
    if (!poppers_.park(w, place, until)) {
      throw_deadline_passed(call);
    }
  }

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

  void fetch(std::optional<T>& into) {
    if (!stored_.empty()) {
      into.emplace(stored_.pop());
      if (!pushers_.empty()) {
        stored_.push(std::move(longest_pusher().item));
        serve_longest_pusher();
      }
    } else if (!pushers_.empty()) {
      into.emplace(std::move(longest_pusher().item));
      serve_longest_pusher();
    }
  }

  pusher& longest_pusher() noexcept { return static_cast<pusher&>(pushers_.front()); }
  void serve_longest_pusher() noexcept {
    longest_pusher().taken = true;
    pushers_.wake_one();
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
