// The fibers that wait for one primitive, first come first served. Each primitive is made of one or two of
// these and a little state.
//
// It belongs to the fibers of one thread while some of them wait or hold something, and to nobody's between.
// From another thread go through hub.handle().
#pragma once

#include "deadline.hpp"
#include "waiter.hpp"

#include <cstddef>

namespace annulet {

namespace [[gnu::visibility("default")]] detail {

// The key to the lines of the primitives, for who stands in several: wait_any.hpp.
struct lines;

class wait_queue {
 public:
  wait_queue() = default;
  wait_queue(const wait_queue&) = delete;
  wait_queue& operator=(const wait_queue&) = delete;
  // Fibers that still wait are woken as `closed`: their calls throw std::logic_error.
  ~wait_queue();

  // The first line of each call; what follows it may count on this being the only thread. Throws no_hub, or
  // wrong_thread where fibers of another thread wait here, or it is otherwise `in_use` by them. Returns the
  // fiber that calls.
  control_block& require_own_thread(const char* call, bool in_use = false);
  // The same for a call that gives back what was taken before. Null where that was before a fork: it is left
  // to the parent, and there is nothing to do, whether or not there is another hub by now.
  control_block* giver(const char* call, bool in_use = false);
  // As the first, for a call that may park: where the fiber has not parked for long, it throws what is
  // pending, before anything was taken.
  control_block& begin(const char* call, bool in_use = false);
  // The last line of such a call where it found what it wants: lets others run now and then, so that a fiber
  // that always does starves nobody. Nothing of the primitive may be touched any more, for it may be gone.
  static void breathe();
  // This thread's. Throws no_hub, naming the call.
  static const scheduler* require_hub(const char* call);
  // Whether that is the parent's, for this process was forked since.
  [[nodiscard]] static bool is_left_to_parent(const scheduler* hub) noexcept;
  // What begin() throws, for who begins nothing here.
  static void throw_if_overdue();

  // The fiber that calls, after one of the two.
  [[nodiscard]] control_block& running() const noexcept;

  [[nodiscard]] bool empty() const noexcept { return waiters_.empty(); }
  [[nodiscard]] wait_place& front() noexcept { return waiters_.front(); }
  // Counts them one by one.
  [[nodiscard]] std::size_t size() noexcept;

  // Parks the running fiber, whose waiter it is, at the end of the line. False where the deadline came first.
  // Throws what ends a wait (cancellation.hpp), and std::logic_error where the primitive was destroyed
  // meanwhile; then nothing of it may be touched any more.
  bool park(waiter& w, deadline until) { return park(w, w, until); }
  // The same with a place of its own, that says more.
  bool park(waiter& w, wait_place& at, deadline until, wakers who = wakers::fibers);
  // The same as a part of the function that calls it: switching.hpp.
  bool park_here(waiter& w, wait_place& at, deadline until, wakers who = wakers::fibers);
  // The same, but says `closed` and `interrupted` where that throws, for who has to set something right
  // first; then throw_cause.
  [[nodiscard]] wake_reason park_and_tell(waiter& w, deadline until, wakers who = wakers::fibers);
  [[nodiscard]] wake_reason park_uninterrupted(waiter& w);
  [[noreturn]] static void throw_cause(wake_reason why, const char* call);

  // For who waits elsewhere too.
  void add(wait_place& place) noexcept { waiters_.push_back(place); }

  // Those that waited longest have what they want.
  void wake_one() noexcept;
  void wake_all() noexcept;

 private:
  void belong_here(const char* call, bool in_use);
  [[gnu::cold]] void come_over(const char* call, bool in_use);
  [[gnu::cold]] control_block* giver_elsewhere(const char* call, bool in_use);

  wait_line waiters_;
  scheduler* owner_ = nullptr;
};

}  // namespace detail

}  // namespace annulet
