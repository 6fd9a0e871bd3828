#include "uring_engine.hpp"

#include "syscalls.hpp"
#include "wake_up.hpp"

#include <annulet/runtime/check.hpp>
#include <annulet_plants.hpp>

#include <algorithm>
#include <cerrno>
#include <system_error>
#include <utility>

#include <poll.h>

namespace annulet::detail {

namespace {

// A request for urgent data alone is not woken when such data comes to a socket (seen on Linux 6.18); one
// that asks for any data is.
constexpr std::uint16_t ring_mask(std::uint16_t mask) noexcept {
  return static_cast<std::uint16_t>(mask | ((mask & POLLPRI) != 0 ? POLLIN : 0));
}

}  // namespace

uring_engine::uring_engine(const hub_options& options) : ring_(options, info_) {
  const io_result made = make_wake_fd();
  if (!made.ok()) {
    throw std::system_error(made.error(), std::generic_category(), "annulet: hub: eventfd for wake-ups");
  }
  wake_fd_ = static_cast<int>(made.value());
  calls_.emplace(wake_fd_);
}

// The hub has detached every watch. What is left is the poll of the eventfd, which holds it open.
uring_engine::~uring_engine() {
  if (wake_poll_armed_) {
    io_uring_sqe& cancel = sqe();
    io_uring_prep_cancel64(&cancel, tag{kind::wake, 0, 0}.packed(), 0);
    io_uring_sqe_set_data64(&cancel, tag{kind::nobody, 0, 0}.packed());
    while (wake_poll_armed_) {
      judge(ring_.wait(std::nullopt, nullptr));
      reap();
    }
  }
  calls_.reset();
  (void)kernel(SYS_close, wake_fd_);
}

void uring_engine::leave_to_parent() noexcept {
  ring_.leave_to_parent();
  (void)kernel(SYS_close, wake_fd_);
}

void uring_engine::attach(watch& w, int fd) {
  w.slot_ = slots_.claim();
  slots_[w.slot_].owner = &w;
  w.generation_ = slots_[w.slot_].generation;
  w.fd_ = fd;
  w.attached_ = true;
}

void uring_engine::detach(watch& w) noexcept {
  check(w.state_ == watch::state::idle, "a watch was detached while the kernel held its request");
  static_cast<list_hook<pending_tag>&>(w).unlink();
  slots_[w.slot_].owner = nullptr;
  slots_.give_back(w.slot_);
  w.attached_ = false;
}

// --- towards the kernel

// Afterwards there is an entry to fill in. Completions may be reaped for that: they are noted, no fiber runs,
// but what was to be said about a watch may have changed.
[[gnu::always_inline]] inline void uring_engine::make_room() noexcept {
  if (ring_.full()) [[unlikely]] {
    drain_queue();
  }
}

void uring_engine::drain_queue() noexcept {
  do {
    judge(ring_.submit());
    if (ring_.full()) {
      judge(ring_.run_pending(0));
      reap();
    }
  } while (ring_.full());
}

io_uring_sqe& uring_engine::sqe() noexcept {
  make_room();
  return *ring_.next_sqe();
}

// Makes submission entries of all that changed.
void uring_engine::prepare_changes() noexcept {
  while (!changed_.empty()) {
    make_room();  // before the look at the watch, whose request may end meanwhile
    reconcile(changed_.pop_front());
  }
}

void uring_engine::reconcile(watch& w) noexcept {
  switch (w.state_) {
    case watch::state::idle:
      if (w.wanted_ != 0) {
        queue_poll(w);
      }
      break;
    case watch::state::armed:
      if (w.wanted_ == 0) {
        queue_removal(w);
      } else if (w.wanted_ != w.armed_) {
        queue_update(w);
      }
      break;
    case watch::state::cancelling:
      break;  // complete_poll comes back to it
    case watch::state::refused:
      queue_cancel(w);
      break;
  }
}

void uring_engine::queue_poll(watch& w) noexcept {
  slot& s = slots_[w.slot_];
  s.generation = (s.generation + 1) & generation_mask;
  w.generation_ = s.generation;
  io_uring_sqe& entry = sqe();
  if (w.once_) {
    io_uring_prep_poll_add(&entry, w.fd_, ring_mask(w.wanted_));
  } else {
    io_uring_prep_poll_multishot(&entry, w.fd_, ring_mask(w.wanted_));
  }
  if (planted(plant::refused_poll)) {
    entry.len |= IORING_POLL_ADD_LEVEL;  // no kernel takes this
  }
  io_uring_sqe_set_data64(&entry, tag_of(w, kind::poll).packed());
  w.armed_ = w.wanted_;
  w.state_ = watch::state::armed;
}

// The request stays armed, with another mask, and the level is checked anew.
void uring_engine::queue_update(watch& w) noexcept {
  io_uring_sqe& entry = sqe();
  io_uring_prep_poll_update(&entry, tag_of(w, kind::poll).packed(), 0, ring_mask(w.wanted_),
                            IORING_POLL_UPDATE_EVENTS | IORING_POLL_ADD_MULTI);
  io_uring_sqe_set_data64(&entry, tag_of(w, kind::update).packed());
  if (ring_.can_skip_success()) {
    entry.flags |= IOSQE_CQE_SKIP_SUCCESS;
  }
  w.armed_ = w.wanted_;
}

// The cheap way: it finds the request by its address. While a wake-up is under way it is refused (EALREADY).
void uring_engine::queue_removal(watch& w) noexcept {
  io_uring_sqe& entry = sqe();
  io_uring_prep_poll_remove(&entry, tag_of(w, kind::poll).packed());
  io_uring_sqe_set_data64(&entry, tag_of(w, kind::removal).packed());
  if (ring_.can_skip_success()) {
    entry.flags |= IOSQE_CQE_SKIP_SUCCESS;
  }
  w.state_ = watch::state::cancelling;
}

// The way that is never refused. It searches io_uring's worker threads first, under their locks.
void uring_engine::queue_cancel(watch& w) noexcept {
  io_uring_sqe& entry = sqe();
  io_uring_prep_cancel64(&entry, tag_of(w, kind::poll).packed(), 0);
  io_uring_sqe_set_data64(&entry, tag{kind::nobody, 0, 0}.packed());
  if (ring_.can_skip_success()) {
    entry.flags |= IOSQE_CQE_SKIP_SUCCESS;
  }
  w.state_ = watch::state::cancelling;
}

// Armed for as long as the hub lives: it completes once for each write, so the eventfd is never read, and a
// wake-up costs no request. 2^64 writes are not to be had.
void uring_engine::arm_wake_poll() noexcept {
  io_uring_sqe& entry = sqe();
  io_uring_prep_poll_multishot(&entry, wake_fd_, POLLIN);
  io_uring_sqe_set_data64(&entry, tag{kind::wake, 0, 0}.packed());
  wake_poll_armed_ = true;
}

void uring_engine::judge(int error) noexcept {
  switch (error) {
    case 0:
    case EINTR:  // signal handlers have run
    case ETIME:
      refusals_.end();
      return;
    case EAGAIN:  // no memory just now
    case ENOMEM:
    case EBUSY:  // reap, and try again
      if (refusals_.are_for_good()) {
        fail(words_on_lost_ring(error));
      }
      return;
    case EBADR:
      fail("io_uring_enter: completions were lost (EBADR)");
    default:
      fail(words_on_lost_ring(error));
  }
}

// Every enter but those that only make room. What the kernel did not take is handed over by the next.
template <class Call>
[[gnu::always_inline]] inline int uring_engine::enter(Call&& call) noexcept {
  const int error = call();
  if (error == 0) [[likely]] {
    refusals_.end();
  } else {
    judge(error);
  }
  unsubmitted_ = ring_.queued() != 0;
  return error;
}

// --- the calls

void uring_engine::look() noexcept {
  calls_->collect();  // that the eventfd was written to is seen only after an enter, and there may be none
  reap();
  if (has_to_enter()) {
    take_in_all();
  }
}

// Hands over what has changed, and enters until all that was pending at first has been taken in.
void uring_engine::take_in_all() noexcept {
  prepare_changes();
  // The kernel runs some 20 pieces of work an enter, or as many as are asked for. Two rounds in a row with
  // many make many likely; asking for more than there are costs a sleep (ring.hpp), asking for less another
  // enter. And any number costs the kernel a timeout to read.
  constexpr unsigned unasked = 20;
  unsigned likely = others_came_ ? 0 : std::min(last_look_, look_before_last_);
  if (likely <= unasked) {
    likely = 0;
  }
  // Pending are two pieces of work a watch at most, an event and the end of its removal, one a request, and a
  // wake-up; what is handed over may complete at once. Work comes in order: after so many completions none is
  // left of what was pending at first, and what fires on is for the next look. Work may make none, and the
  // flag may stand without work: a waker sets it behind its work, which may have been run by then. So rounds
  // in which nothing moved are bounded, by 16 pieces of work each; those that were refused, by judge().
  const std::size_t most = 3 * slots_.size() + 2 * requests_ + 1;
  unsigned found = 0;
  std::size_t empty_rounds = 0;
  do {
    const unsigned queued = ring_.queued();
    const int error = enter([&] { return ring_.run_pending(likely); });
    const unsigned now = reap();
    found += now;
    empty_rounds += now == 0 && ring_.queued() == queued && error == 0 ? 1U : 0U;
    likely = 0;
  } while ((ring_.needs_enter() || unsubmitted_) && found <= most && empty_rounds <= most / 16 + 1);
  if (!std::exchange(others_came_, false)) {
    look_before_last_ = std::exchange(last_look_, found);
  }
}

bool uring_engine::glance() noexcept {
  calls_->collect();
  const std::uint64_t before = taken_in_;
  reap();
  if (!has_to_enter()) {
    return false;
  }
  prepare_changes();
  enter([&] { return ring_.run_pending(0); });
  others_came_ = true;
  reap();
  return taken_in_ != before && ring_.needs_enter();
}

void uring_engine::flush() noexcept {
  if (!wake_poll_armed_) {
    arm_wake_poll();  // a wait behind it has nothing to hand over
  }
  prepare_changes();
  // Without SUBMIT_ALL a request that fails at once ends the submission: the next goes on behind it.
  unsigned before = 0;
  do {
    before = ring_.queued();
    enter([&] { return ring_.submit(); });
  } while (ring_.queued() != 0 && ring_.queued() < before);
}

engine::wait_end uring_engine::wait(deadline until, const signal_mask* mask) noexcept {
  const std::uint64_t before = taken_in_;
  if (!wake_poll_armed_) {
    arm_wake_poll();
  }
  reap();
  prepare_changes();
  if (taken_in_ != before) {
    // What was prepared is handed over all the same, and what is pending in the kernel fetched. Events that
    // never cease would keep both where they are for ever: requests that are done as soon as they are
    // submitted give every wait some.
    if (ring_.queued() != 0 || ring_.needs_enter()) {
      enter([&] { return ring_.run_pending(0); });
      reap();
    }
    return wait_end::at_once;
  }
  until = calls_->limit(until);
  std::optional<std::int64_t> limit;
  if (!until.is_never()) {
    const std::int64_t now = until.is_past() ? 0 : clock_now();
    limit = until.nanoseconds() > now ? until.nanoseconds() - now : 0;
  }
  const int error = enter([&] { return ring_.wait(limit, mask); });
  others_came_ = true;
  reap();
  return error == EINTR ? wait_end::interrupted : wait_end::over;
}

void uring_engine::let_go(std::span<watch* const> watches) noexcept {
  for (watch* const w : watches) {
    clear_interest(*w);
  }
  if (planted(plant::queued_cancel)) {
    flush();
    for (watch* const w : watches) {
      w->state_ = watch::state::idle;
      w->generation_ = ++slots_[w->slot_].generation;
    }
    return;
  }
  for (;;) {
    prepare_changes();
    // One completion each is due: the cancelled request's last. Asked for together they come by one enter.
    const auto due = static_cast<unsigned>(
        std::ranges::count_if(watches, [](const watch* w) { return w->state_ == watch::state::cancelling; }));
    if (due == 0) {
      unsubmitted_ = ring_.queued() != 0;  // of others
      return;
    }
    enter([&] { return ring_.run_pending(due); });
    reap();
  }
}

// --- from the kernel

unsigned uring_engine::reap() noexcept {
  const auto fetch_watch = [this](std::uint64_t data) {
    const tag t = tag::unpack(data);
    if (t.what == kind::poll) {
      // A number, for the watch may be gone by now.
      const auto owner = reinterpret_cast<std::uintptr_t>(slots_[t.slot].owner);
      for (const unsigned line : {0U, 64U, 128U}) {
        __builtin_prefetch(reinterpret_cast<const void*>(owner + line));
      }
    }
  };
  const auto fetch_rest = [this](std::uint64_t data) {
    const tag t = tag::unpack(data);
    if (t.what == kind::poll && slots_[t.slot].owner != nullptr) {
      slots_[t.slot].owner->expect_event();
    }
  };
  const unsigned count =
      ring_.reap([this](std::uint64_t data, int result, unsigned flags) { complete(data, result, flags); },
                 fetch_watch, fetch_rest);
  taken_in_ += count;
  return count;
}

void uring_engine::complete(std::uint64_t data, int result, unsigned flags) noexcept {
  const tag t = tag::unpack(data);
  if (t.what == kind::wake) {
    // Its news is that the wait is over, and maybe a call on a thread.
    check(result > 0 || result == -ECANCELED,
          "the hub's eventfd cannot be polled: it was closed, and not by the hub");
    wake_poll_armed_ = (flags & IORING_CQE_F_MORE) != 0 || planted(plant::lost_wake_poll);
    calls_->collect();
    return;
  }
  if (t.what == kind::nobody) {
    return;  // a cancellation that found its request done already
  }
  if (t.what == kind::request) {
    --requests_;
    constexpr std::uint64_t address = (std::uint64_t{1} << 61) - 1;
    reinterpret_cast<request*>(data & address)->complete(io_result(result));
    return;
  }
  watch* const w = slots_[t.slot].owner;
  if (w == nullptr || w->generation_ != t.generation) {
    return;  // came too late
  }
  switch (t.what) {
    case kind::update:
      return complete_update(*w, result);
    case kind::removal:
      return complete_removal(*w, result);
    default:
      return complete_poll(*w, result, (flags & IORING_CQE_F_MORE) != 0 || planted(plant::lost_end));
  }
}

void uring_engine::complete_poll(watch& w, int result, bool more) noexcept {
  const bool cancelled = w.state_ != watch::state::armed;
  if (!more) {
    w.state_ = watch::state::idle;
  }
  if (cancelled) {
    if (!more && w.wanted_ != 0) {
      note_change(w);  // wanted again meanwhile; arming checks the level
    }
    return;
  }
  if (!more) {
    w.wanted_ = 0;
    if (result == -ECANCELED) {
      result = 0;  // not by us: the owner looks, and arms again
    }
  }
  if (planted(plant::lost_event)) {
    return;
  }
  if (result == -EINVAL && planted(plant::failed_poll)) {
    result = -ENOMEM;
  }
  w.on_event(io_result(result));
}

// Success is silent where the kernel can skip it. A request that is being woken right now refuses (EALREADY):
// the update is repeated, and as the watch is not armed yet for what was wanted, the owner is told to look.
// One that has ended (ENOENT) reports by itself.
void uring_engine::complete_update(watch& w, int result) noexcept {
  if (result == -EALREADY && w.state_ == watch::state::armed && !planted(plant::ignored_refusal)) {
    w.armed_ = 0;
    note_change(w);
    w.on_event(io_result(0));
  }
}

void uring_engine::complete_removal(watch& w, int result) noexcept {
  if (result == -EALREADY && w.state_ == watch::state::cancelling) {
    w.state_ = watch::state::refused;
    note_change(w);
  }
}

}  // namespace annulet::detail
