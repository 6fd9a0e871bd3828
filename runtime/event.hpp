// A flag that fibers wait for: gevent's Event. It stays set until it is cleared.
//
// For the fibers of one thread, which set() and wait() check. From another thread go through hub.handle().
#pragma once

#include "deadline.hpp"
#include "wait_queue.hpp"

namespace [[gnu::visibility("default")]] annulet {

class event {
 public:
  event() = default;
  event(const event&) = delete;
  event& operator=(const event&) = delete;
  // Fibers that still wait get std::logic_error out of wait().
  ~event() = default;

  [[nodiscard]] bool is_set() const noexcept { return set_; }
  // Wakes all that wait, first come first. Does not park. Throws no_hub on a thread without a hub.
  void set();
  // Does not park.
  void clear() noexcept { set_ = false; }

  // Parks until set(). False where the deadline came first. A wait that set() has ended returns true even
  // where somebody cleared the flag before the fiber ran.
  bool wait(deadline until = deadline::never());

 private:
  friend struct detail::lines;

  detail::wait_queue waiting_;
  bool set_ = false;
};

}  // namespace annulet
