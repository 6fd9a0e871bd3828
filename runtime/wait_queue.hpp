// The fibers that wait for one primitive, first come first served. Each primitive is made of one or two of
// these and a little state.
//
// It belongs to the fibers of one thread while some of them wait or hold something, and to nobody's between.
// From another thread go through hub.handle().
#pragma once

#include "deadline.hpp"
#include "waiter.hpp"

#include <cstddef>

namespace annulet::detail {

class [[gnu::visibility("default")]] wait_queue {
 public:
  wait_queue() = default;
  wait_queue(const wait_queue&) = delete;
  wait_queue& operator=(const wait_queue&) = delete;
  // Fibers that still wait are woken as `closed`: their calls throw std::logic_error.
  ~wait_queue();

  // The first line of each call; what follows it may count on this being the only thread. Throws no_hub, or
  // wrong_thread where fibers of another thread wait here, or it is otherwise `in_use` by them.
  void require_own_thread(const char* call, bool in_use = false);
  // The same for a call that may park. It lets others run now and then, before it does anything, and throws
  // there what is pending: so a fiber that always finds what it wants starves nobody, and can be killed.
  void begin(const char* call, bool in_use = false);

  // The fiber that calls, after one of the two.
  [[nodiscard]] control_block& running() const noexcept;

  [[nodiscard]] bool empty() const noexcept { return waiters_.empty(); }
  [[nodiscard]] waiter& front() noexcept { return waiters_.front(); }
  // Counts them one by one.
  [[nodiscard]] std::size_t size() noexcept;

  // Parks the running fiber, whose waiter it is, at the end of the line. False where the deadline came first.
  // Throws what ends a wait (cancellation.hpp), and std::logic_error where the primitive was destroyed
  // meanwhile; then nothing of it may be touched any more.
  bool park(waiter& w, deadline until, const char* call);
  // The same, but says `closed` and `interrupted` where that throws, for who has to set something right
  // first; then throw_cause. It does not look for what was pending before: throw_if_interrupted does.
  [[nodiscard]] wake_reason park_and_tell(waiter& w, deadline until);
  [[nodiscard]] wake_reason park_uninterrupted(waiter& w);
  void throw_if_interrupted();
  [[noreturn]] static void throw_cause(wake_reason why, const char* call);

  // Those that waited longest have what they want.
  void wake_one() noexcept { waiters_.front().wake(wake_reason::ready); }
  void wake_all() noexcept;

 private:
  waiter_list waiters_;
  scheduler* owner_ = nullptr;
};

}  // namespace annulet::detail
