// Signals, and the parked calls that they end: those of ported code, which a handler interrupts as it would
// interrupt the thread that such code thinks it has. Internal.
//
// A handler runs on the hub's thread, whoever runs there; so it has to be known who was parked with which
// mask. One that runs while fibers run interrupts nobody. One that comes while the thread waits ends the
// calls whose mask lets it in. How that is seen, by an event of a signalfd that is polled and never read:
//
//   1. The wait blocks what anybody lets in. The event means that some are pending. They are taken one by
//      one: the mask is opened for that signal, its handler runs, and those calls end that let it in.
//   2. The wait blocks what the one mask of all parked calls does. The event, with nothing pending,
//      means that a handler has run, inside the wait, and all end.
//
// The second only where it is needed: on the main thread, beside other threads, where all have one mask and
// none asks which signal it was (a read does, for handlers with SA_RESTART do not end it). For of a signal to
// the process, which any thread may take, the kernel lets the main thread have it that does not block it, as
// a plain call does not. It is less exact. Where another hub hears of the signal, too, and is faster, these
// calls end as well.
//
// What no call lets in is left alone, unless every fiber is in a call that blocks it.
//
// While a handler runs that was let in by the first way, all signals are blocked, but those of faults: a
// second one would not be accounted for. A child forked there gets the mask of before.
//
// What the program has blocked itself and a call lets in (pselect) stays pending while fibers run, so nothing
// is lost in between; the event comes by a look, too.
#pragma once

#include "signal_mask.hpp"
#include "watch.hpp"

#include <annulet/runtime/deadline.hpp>
#include <annulet/runtime/intrusive_list.hpp>
#include <annulet/runtime/waiter.hpp>

#include <cstddef>
#include <optional>
#include <vector>

namespace annulet::detail {

class hub_core;

// In the frame of a parked call.
class parked_call : public list_hook<> {
 public:
  // mask: while it is parked, in the thread's place; the thread's own without. `restarts`: a handler with
  // SA_RESTART does not end it.
  parked_call(waiter& sleeper, const std::optional<signal_mask>& mask, bool restarts) noexcept
      : sleeper_(sleeper), mask_(mask), restarts_(restarts) {}

 private:
  friend class call_signals;
  // It may have been woken, and not have run yet.
  [[nodiscard]] bool sleeps() const noexcept { return sleeper_.reason() == wake_reason::none; }

  waiter& sleeper_;
  const std::optional<signal_mask> mask_;
  const bool restarts_;
};

class call_signals final : public watch {
 public:
  // `own`: a signal that the hub itself handles, which ends nobody's call; or none.
  call_signals(hub_core& hub, int own) noexcept;
  ~call_signals() override { close_descriptor(); }

  // Throws std::bad_alloc, and has then changed nothing.
  void add(parked_call& call);
  // Does nothing where a signal has ended it.
  void remove(parked_call& call) noexcept;
  [[nodiscard]] bool none() const noexcept { return calls_.empty(); }
  [[nodiscard]] bool owns(int fd) const noexcept { return fd == descriptor_; }

  // For a call that is about to park: takes what is pending and its mask lets in. Whether a handler has run.
  bool take_for(signal_mask mask) noexcept;

  // The hub's wait, while there are parked calls.
  void wait(deadline until) noexcept;
  // Signals may be pending, and it is after_look() that takes them.
  [[nodiscard]] bool was_told() const noexcept { return told_; }
  // After each look: takes what is pending.
  void after_look() noexcept {
    if (told_) [[unlikely]] {
      take_told();
    }
  }
  // In a forked child; whether it was forked by this hub's thread.
  void leave_to_parent(bool forking_thread) noexcept;

  void on_event(io_result) noexcept override { told_ = true; }
  void on_close() noexcept override {}
  void on_hub_end() noexcept override {}

 private:
  struct group {
    signal_mask mask;
    std::size_t calls;
  };

  [[nodiscard]] signal_mask let_in_by_any(signal_mask thread) const noexcept;
  [[nodiscard]] signal_mask let_in_by_sleepers(signal_mask thread) noexcept;
  // The mask of all, if they have one and none asks which signal it was.
  [[nodiscard]] std::optional<signal_mask> common_mask(signal_mask thread) const noexcept;
  // Hears of exactly these from now on, as far as there is a descriptor to be had.
  void listen(signal_mask signals) noexcept;
  [[nodiscard]] bool has_to_let_in() const noexcept;
  void wait_and_take(deadline until, signal_mask thread) noexcept;
  void wait_as_one(deadline until, signal_mask thread, signal_mask mask) noexcept;
  void take_told() noexcept;
  bool take_pending(signal_mask thread) noexcept;
  // Whether a handler has run.
  bool take(int signal, signal_mask thread) noexcept;
  void end_all() noexcept;
  [[nodiscard]] bool is_blocking_all() const noexcept;
  void end(parked_call& call) noexcept;
  void forget(const parked_call& call) noexcept;
  void close_descriptor() noexcept;

  hub_core& hub_;
  const signal_mask not_ours_;
  const bool on_main_thread_;
  intrusive_list<parked_call> calls_;
  std::vector<group> groups_;  // of those with a mask of their own
  std::size_t inheriting_ = 0;
  std::size_t asking_ = 0;  // which signal it was
  int descriptor_ = -1;
  signal_mask listened_ = 0;
  bool told_ = false;
  std::optional<signal_mask> before_handler_;  // the thread's, while a handler may run
};

}  // namespace annulet::detail
