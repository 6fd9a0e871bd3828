#include "fd_state.hpp"

#include "hub_core.hpp"
#include "syscalls.hpp"

#include <cstddef>
#include <utility>

#include <poll.h>

namespace annulet::detail {

namespace {

// Without POLLPRI: the ring says it with every byte that comes, urgent or not.
constexpr std::uint16_t for_reading = POLLIN | POLLRDHUP;

}  // namespace

// --- the watch

void fd_state::own(file_kind kind) {
  if (!attached()) {
    hub_.attach(*this, number_);
  }
  once_ = false;
  owned_ = true;
  kind_ = kind;
  hung_up_ = false;
  for (lane& l : lanes_) {
    l.ready = true;
  }
}

// Readers are always listened for; writers only while one waits, for room comes and goes with each message.
// With a plain number one event is awaited, and the request is over; who waits again keeps it armed.
void fd_state::arm(arming how) {
  if (!attached()) {
    once_ = true;
    hub_.attach(*this, number_);
  }
  if (how == arming::anew && !armed()) {
    once_ = false;
  }
  unsigned mask = 0;
  if (owned_ || side(direction::reading).sleeper != nullptr) {
    mask |= for_reading;
  }
  if (side(direction::writing).sleeper != nullptr) {
    mask |= POLLOUT;
  }
  hub_.io().set_interest(*this, static_cast<std::uint16_t>(mask));
}

// A plain number's watch ends with the last turn.
void fd_state::disarm() noexcept {
  if (!owned_ && attached()) {
    const std::array<watch*, 1> self{this};
    hub_.detach(self);
  }
}

void fd_state::on_event(io_result mask) noexcept {
  const bool tells = mask.ok() && mask.value() != 0;
  hung_up_ = hung_up_ || (tells && (mask.value() & (POLLRDHUP | POLLHUP | POLLERR)) != 0);
  // Where it does not say what happened, or nothing is armed any more, everybody looks for himself.
  const unsigned what = tells && armed() ? mask.value() : ~0U;
  if ((what & ~static_cast<unsigned>(POLLOUT)) != 0) {
    tell(side(direction::reading));
  }
  if ((what & (POLLOUT | POLLHUP | POLLERR)) != 0) {
    lane& writing = side(direction::writing);
    if (armed() && !writing.held) {
      hub_.io().set_interest(*this, for_reading);  // nobody waits for room any more
    }
    tell(writing);
  }
}

// Who reads will go on: his control block, his waiter and the line below. The rest of his stack is fetched
// when his turn comes near (ready_queue.hpp); to fetch more here made 50 connections dearer and 1,000 no
// cheaper.
void fd_state::expect_event() const noexcept {
  const lane& l = side(direction::reading);
  if (l.sleeper != nullptr) {
    const auto* const at = reinterpret_cast<const std::byte*>(l.sleeper);
    __builtin_prefetch(l.fiber);
    __builtin_prefetch(at);
    __builtin_prefetch(at - 64);
  }
}

void fd_state::tell(lane& l) noexcept {
  l.ready = true;
  if (l.sleeper != nullptr) {
    l.sleeper->wake(wake_reason::ready);
  }
}

// --- closing

void fd_state::begin_closing() noexcept {
  ++closes_;
  begin_release();
}

void fd_state::begin_release() noexcept {
  ++incarnation_;
  owned_ = false;
  kind_ = file_kind::unknown;
  hung_up_ = false;
  for (lane& l : lanes_) {
    l.held = false;
    l.ready = true;
    if (l.sleeper != nullptr) {
      std::exchange(l.sleeper, nullptr)->wake(wake_reason::closed);
    }
    while (!l.line.empty()) {
      l.line.front().wake(wake_reason::closed);
    }
  }
  call_off_requests();
  disarm();
}

void fd_state::call_off_requests() noexcept {
  closing_ = true;
  requests_.for_each([](request& r) { r.disturb(); });
}

void fd_state::await_requests() {
  while (!requests_.empty()) {
    waiter ended(hub_.fibers().running(), "close", number_);
    closers_.push_back(ended);
    (void)hub_.fibers().park_uninterrupted(ended, deadline::never(), wakers::outside);
  }
}

void fd_state::request_ended() noexcept {
  if (!requests_.empty()) {
    return;
  }
  if (closers_.empty() && std::exchange(orphaned_, false)) {
    closing_ = false;
    hub_.dismiss_watchers(*this);
    (void)kernel(SYS_close, number_);
  }
  while (!closers_.empty()) {
    closers_.front().wake(wake_reason::ready);
  }
}

}  // namespace annulet::detail
