#include "call_signals.hpp"

#include "hub_core.hpp"
#include "interrupting_signal.hpp"

#include <algorithm>
#include <bit>
#include <cerrno>
#include <new>
#include <utility>

#include <sys/signalfd.h>
#include <sys/single_threaded.h>
#include <time.h>

namespace annulet::detail {

namespace {

// Lets a pending signal in, and only that. Whether a handler has run.
bool open_for(int signal) noexcept {
  const signal_mask all_others = all_signals & ~bit_of(signal);
  const timespec none{};
  timespec left = none;  // the kernel writes there
  return kernel(SYS_ppoll, nullptr, 0, &left, &all_others, sizeof(all_others)).error() == EINTR;
}

bool restarts_calls(int signal) noexcept {
  struct sigaction now {};
  return ::sigaction(signal, nullptr, &now) == 0 && (now.sa_flags & SA_RESTART) != 0;
}

// Those that stop the process: it goes on as if nothing had been.
signal_mask unhandled_stops() noexcept {
  signal_mask found = 0;
  for (const int signal : {SIGTSTP, SIGTTIN, SIGTTOU}) {
    found |= is_handled(signal) ? 0 : bit_of(signal);
  }
  return found;
}

}  // namespace

call_signals::call_signals(hub_core& hub, int own) noexcept
    : hub_(hub),
      not_ours_(~all_signals | (own > 0 && own < _NSIG ? bit_of(own) : 0)),
      on_main_thread_(kernel(SYS_gettid).value() == kernel(SYS_getpid).value()) {}

void call_signals::close_descriptor() noexcept {
  if (descriptor_ >= 0) {
    (void)kernel(SYS_close, descriptor_);
    descriptor_ = -1;
  }
}

// --- who is parked

void call_signals::add(parked_call& call) {
  if (call.mask_) {
    const auto known = std::ranges::find(groups_, *call.mask_, &group::mask);
    if (known != groups_.end()) {
      ++known->calls;
    } else {
      groups_.push_back({*call.mask_, 1});
    }
    // A thread that never waits has to hear of them, too. Of what the thread itself lets in it hears nothing
    // while it runs.
    if (const signal_mask more = ~*call.mask_ & ~listened_ & ~not_ours_; more != 0) {
      listen(listened_ | more);
    }
  } else {
    ++inheriting_;
  }
  asking_ += call.restarts_ ? 1 : 0;
  calls_.push_back(call);
}

void call_signals::remove(parked_call& call) noexcept {
  if (call.linked()) {
    call.unlink();
    forget(call);
  }
}

void call_signals::forget(const parked_call& call) noexcept {
  asking_ -= call.restarts_ ? 1 : 0;
  if (!call.mask_) {
    --inheriting_;
    return;
  }
  const auto known = std::ranges::find(groups_, *call.mask_, &group::mask);
  if (--known->calls == 0) {
    groups_.erase(known);
  }
}

signal_mask call_signals::let_in_by_any(signal_mask thread) const noexcept {
  signal_mask let_in = inheriting_ != 0 ? ~thread : 0;
  for (const group& one : groups_) {
    let_in |= ~one.mask;
  }
  return let_in & ~not_ours_;
}

// By those who have not been woken yet.
signal_mask call_signals::let_in_by_sleepers(signal_mask thread) noexcept {
  signal_mask let_in = 0;
  calls_.for_each(
      [&](const parked_call& call) { let_in |= call.sleeps() ? ~call.mask_.value_or(thread) : 0; });
  return let_in & ~not_ours_;
}

std::optional<signal_mask> call_signals::common_mask(signal_mask thread) const noexcept {
  if (asking_ != 0 || groups_.size() > 1) {
    return std::nullopt;
  }
  if (groups_.empty()) {
    return thread;
  }
  const signal_mask mask = groups_.front().mask;
  return inheriting_ == 0 || mask == thread ? std::optional(mask) : std::nullopt;
}

// --- the wait

void call_signals::listen(signal_mask signals) noexcept {
  if (signals != listened_) {
    const io_result made =
        kernel(SYS_signalfd4, descriptor_, &signals, sizeof(signals), SFD_CLOEXEC | SFD_NONBLOCK);
    if (!made.ok()) {
      return;
    }
    descriptor_ = static_cast<int>(made.value());
    listened_ = signals;
  }
  try {
    if (!attached() && descriptor_ >= 0) {
      hub_.attach(*this, descriptor_);
    }
  } catch (const std::bad_alloc&) {
    return;
  }
  if (attached()) {
    hub_.io().set_interest(*this, POLLIN);
  }
}

void call_signals::wait(deadline until) noexcept {
  if (told_) {
    return;  // since the last look; after_look() takes it
  }
  const signal_mask thread = thread_mask();
  const auto common = common_mask(thread);
  const bool lets_in = common && has_to_let_in();
  listen(let_in_by_any(thread) & ~(lets_in ? unhandled_stops() : 0));
  if (attached() && !lets_in) {
    wait_and_take(until, thread);
  } else {
    wait_as_one(until, thread, common.value_or(thread & ~let_in_by_any(thread)));
  }
}

// Among other threads, which may take a signal to the process while this one blocks it.
bool call_signals::has_to_let_in() const noexcept { return on_main_thread_ && !::__libc_single_threaded; }

void call_signals::wait_and_take(deadline until, signal_mask thread) noexcept {
  before_handler_ = thread;
  (void)set_thread_mask(thread | all_signals);
  note_mask_of_program(&thread);
  const signal_mask mask = thread | (is_blocking_all() ? all_signals : let_in_by_any(thread));
  (void)hub_.io().wait(until, &mask);
  if (std::exchange(told_, false)) {
    (void)take_pending(thread);
  }
  note_mask_of_program(nullptr);
  (void)set_thread_mask(thread);
  before_handler_.reset();
}

// Every fiber is in a call with a mask of its own: what none of them lets in comes afterwards.
bool call_signals::is_blocking_all() const noexcept {
  std::size_t calls = 0;
  for (const group& one : groups_) {
    calls += one.calls;
  }
  return inheriting_ == 0 && calls == hub_.fibers().fibers() + 1;  // and main
}

// Without a descriptor there is nothing to hear but that the wait was interrupted, which a ring says only
// where it had nothing to submit.
void call_signals::wait_as_one(deadline until, signal_mask thread, signal_mask mask) noexcept {
  engine& io = hub_.io();
  if (!attached()) {
    io.flush();
  }
  const engine::wait_end end =
      io.wait_for_handlers(until, mask == thread ? nullptr : &mask, attached() ? descriptor_ : -1);
  const bool told = std::exchange(told_, false) || end == engine::wait_end::signalled;
  const bool by_another = end == engine::wait_end::interrupted && !hub_.dump_is_asked();
  const bool may_be_untold = !attached() || !io.tells_event_of_signal();
  const bool heard = told || (by_another && may_be_untold);
  if (heard && !take_pending(thread) && end != engine::wait_end::at_once) {
    end_all();
  }
}

void call_signals::take_told() noexcept {
  told_ = false;
  (void)take_pending(thread_mask());
}

// Each ends those that let it in; so what nobody is left to let in stays pending. Whether a handler has run.
bool call_signals::take_pending(signal_mask thread) noexcept {
  bool handled = false;
  constexpr unsigned most = 128;  // of those that are queued, others may come for ever
  for (unsigned count = 0; count < most; ++count) {
    const signal_mask ours = pending_signals() & let_in_by_sleepers(thread);
    if (ours == 0) {
      break;
    }
    handled = take(std::countr_zero(ours) + 1, thread) || handled;
  }
  return handled;
}

bool call_signals::take_for(signal_mask mask) noexcept {
  const signal_mask ours = pending_signals() & ~mask & ~not_ours_;
  if (ours == 0) [[likely]] {
    return false;
  }
  const signal_mask thread = thread_mask();
  bool handled = false;
  for (signal_mask left = ours; left != 0; left &= left - 1) {
    handled = take(std::countr_zero(left) + 1, thread) || handled;
  }
  return handled;
}

bool call_signals::take(int signal, signal_mask thread) noexcept {
  const bool restarts = asking_ != 0 && restarts_calls(signal);  // before: it may be reset
  const auto outside = std::exchange(before_handler_, thread);
  const bool handled = open_for(signal);
  before_handler_ = outside;
  if (!handled) {
    return false;  // ignored, or another thread was faster
  }
  calls_.for_each([&](parked_call& call) {
    const bool lets_it_in = (call.mask_.value_or(thread) & bit_of(signal)) == 0;
    if (call.sleeps() && lets_it_in && !(restarts && call.restarts_)) {
      end(call);
    }
  });
  return true;
}

void call_signals::leave_to_parent(bool forking_thread) noexcept {
  close_descriptor();
  if (forking_thread && before_handler_) {
    (void)set_thread_mask(*before_handler_);
  }
}

void call_signals::end_all() noexcept {
  calls_.for_each([this](parked_call& call) { end(call); });
}

void call_signals::end(parked_call& call) noexcept {
  call.unlink();
  forget(call);
  call.sleeper_.wake(wake_reason::signalled);
}

}  // namespace annulet::detail
