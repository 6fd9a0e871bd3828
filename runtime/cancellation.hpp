// What ends a wait that nobody answered: fiber<T>::kill(), and the timeout guard.
//
//   annulet::timeout guard(2s);
//   try {
//     talk_to(peer);                      // any number of waits
//   } catch (const annulet::timeout_expired& e) {
//     if (!e.is(guard)) throw;            // an outer guard's
//     ...
//   }
//
// Both are thrown at the place where the fiber is parked, or at its next park or yield; each once. While an
// exception is in flight they stay pending, so that no destructor is ended by one, and while a shield is up.
// Neither is a std::exception: what handles errors does not swallow them by accident. A catch (...) rethrows
// them.
#pragma once

#include "control_block.hpp"
#include "deadline.hpp"

namespace [[gnu::visibility("default")]] annulet {

class timeout;

// Ends a fiber that was killed. Let it pass.
class fiber_killed {
 private:
  friend class detail::scheduler;
  fiber_killed() = default;
};

// Ends the block of a timeout guard.
class timeout_expired {
 public:
  // Whether it is this guard's.
  [[nodiscard]] bool is(const timeout& guard) const noexcept { return guard_ == &guard; }

 private:
  friend class detail::scheduler;
  explicit timeout_expired(const timeout& guard) noexcept : guard_(&guard) {}
  const timeout* guard_;
};

// Bounds everything that the fiber does while the guard lives. Guards nest. Pinned, and destroyed by the
// fiber that made it. Throws no_hub on a thread without one, and std::bad_alloc. Does not park.
class timeout : private detail::timer_node, private detail::list_hook<detail::expired_tag> {
 public:
  explicit timeout(deadline limit);
  ~timeout();
  timeout(const timeout&) = delete;
  timeout& operator=(const timeout&) = delete;

  // Stops the clock. What has expired but was not thrown yet is taken back.
  void cancel() noexcept;
  // Whether its time came before it was cancelled.
  [[nodiscard]] bool expired() const noexcept { return expired_; }

 private:
  friend class detail::scheduler;
  friend class detail::intrusive_list<timeout, detail::expired_tag>;

  static void expire(detail::timer_node& timer) noexcept;
  void come_due() noexcept;

  detail::control_block& fiber_;
  bool expired_ = false;
};

// While one lives, kills and guards of the fiber stay pending, whichever were first: for a section that has
// to be finished. Deadlines of calls work as ever. What has become pending is thrown at the first park or
// yield after the outermost shield. Pinned, and destroyed by the fiber that made it. Throws no_hub on a
// thread without one. Does not park.
class shield {
 public:
  shield();
  ~shield();
  shield(const shield&) = delete;
  shield& operator=(const shield&) = delete;

 private:
  detail::control_block& fiber_;
};

}  // namespace annulet
