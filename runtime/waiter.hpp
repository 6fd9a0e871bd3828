// The one way to wait. A waiter lives in the frame of the fiber that parks; whoever has what it waits for
// wakes it, once, and says why. The first one wins: from then on the waiter is on no list and in no queue,
// so nobody else can reach it, and the fiber learns the cause from the waker and never from the clock.
//
//   who                                    wakes with
//   an event, a watch, a joined fiber      ready
//   the timer queue, at the deadline       timed_out
//   a closing or destroyed object          closed
//   kill, a timeout guard, a deadlock      interrupted (what it was is noted in the fiber: control_block.hpp)
//   a signal, in a call of ported code     signalled
#pragma once

#include "intrusive_list.hpp"
#include "timer_queue.hpp"

#include <cstddef>
#include <cstdint>
#include <utility>

namespace annulet {

namespace detail {
class control_block;
class scheduler;
}  // namespace detail

namespace [[gnu::visibility("default")]] detail {

enum class wake_reason : std::uint8_t { none, ready, timed_out, closed, interrupted, signalled };

// Who can end a park: only other fibers of this thread, or something outside it too. A thread whose fibers
// all wait for each other is dead; one that waits for a descriptor or a timer is not.
enum class wakers : std::uint8_t { fibers, outside };

class waiter;

// A waiter's place in a line. Most stand in one line and are their own place; who waits for any of several
// things has one in each. They leave all their lines together.
class wait_place : public list_hook<> {
 public:
  // `is_hint`: what is said here may come to nothing. Then the fiber runs and looks, but stays in all its
  // lines, where it may be woken meanwhile.
  explicit wait_place(waiter& of, bool is_hint = false) noexcept : waiter_(of), is_hint_(is_hint) {}

  // Wakes the waiter, which then knows that it was here; or, where it is to hear from more of its places,
  // leaves this line. Nobody whose place is in a line has been woken.
  void wake(wake_reason why) noexcept;
  [[nodiscard]] control_block& fiber() const noexcept;

 private:
  friend class waiter;
  waiter& waiter_;
  wait_place* next_of_waiter_ = nullptr;
  const bool is_hint_;
};

class waiter : public wait_place, private timer_node {
 public:
  static constexpr int no_descriptor = -1;

  // Made by the running fiber right before it parks, destroyed in the same frame right after. `what` names
  // the call that waits, for messages and lists, with the descriptor that it waits for, if there is one.
  waiter(control_block& fiber, const char* what, int fd = no_descriptor) noexcept
      : wait_place(*this), timer_node(&expire), fiber_(fiber), what_(what), fd_(fd) {}

  // False where somebody else was first; then this changed nothing. The hub's thread only.
  bool wake(wake_reason why) noexcept;
  [[nodiscard]] control_block& fiber() const noexcept { return fiber_; }
  [[nodiscard]] const char* what() const noexcept { return what_; }
  [[nodiscard]] int fd() const noexcept { return fd_; }
  // When it was parked, in steady nanoseconds: as of the first park since a look or wait.
  [[nodiscard]] std::int64_t since() const noexcept { return since_; }

  // One more place that it stands in.
  void stand_in(wait_place& place) noexcept { place.next_of_waiter_ = std::exchange(places_, &place); }
  // It is woken as ready only when that has been said in so many of its places.
  void await(std::size_t places) noexcept { awaited_ = places; }
  // A hint does not end the wait. The fiber heeds it, looks whether there is what it waits for, and parks
  // again where there is not:
  //
  //   reason   hinted   it is parked           it runs, and parks next
  //   none     no       nobody came            it stays until somebody comes
  //   none     yes      it is to look          others have their turn, then it looks again
  //   any      -        it was woken           the same, and the wait is over
  [[nodiscard]] bool has_news() const noexcept { return hinted_ || why_ != wake_reason::none; }
  void heed() noexcept { hinted_ = false; }
  [[nodiscard]] wake_reason reason() const noexcept { return why_; }
  // Where it was woken, if it was in a line.
  [[nodiscard]] const wait_place* woken_in() const noexcept { return woken_in_; }

 private:
  friend class scheduler;
  friend class wait_place;

  static void expire(timer_node& timer) noexcept;

  control_block& fiber_;
  const char* const what_;
  wait_place* places_ = nullptr;  // but for its own
  const wait_place* woken_in_ = nullptr;
  std::size_t awaited_ = 1;
  std::int64_t since_ = 0;
  const int fd_;
  wake_reason why_ = wake_reason::none;
  bool interruptible_ = true;
  bool hinted_ = false;

  void hint() noexcept;
};

inline void wait_place::wake(wake_reason why) noexcept {
  if (is_hint_ && why == wake_reason::ready) {
    waiter_.hint();
  } else if (waiter_.awaited_ != 1 && why == wake_reason::ready) {
    --waiter_.awaited_;
    unlink();
  } else if (waiter_.wake(why)) {
    waiter_.woken_in_ = this;
  }
}

inline control_block& wait_place::fiber() const noexcept { return waiter_.fiber_; }

using waiter_list = intrusive_list<waiter>;
using wait_line = intrusive_list<wait_place>;

}  // namespace detail

}  // namespace annulet
