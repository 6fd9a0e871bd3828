#include "kernel.hpp"

#include <annulet/hub/syscalls.hpp>
#include <annulet_plants.hpp>

#include <algorithm>
#include <array>
#include <bit>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <utility>
#include <vector>

#include <fcntl.h>
#include <poll.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

namespace simulated {

namespace {

constexpr std::size_t usual_requests = 4096;
constexpr unsigned most_vain_enters = 10'000;
constexpr unsigned most_misses = 6;  // of one request

[[noreturn]] void give_up(const char* what) {
  std::fprintf(stderr, "simulated kernel: %s\n", what);
  std::abort();
}

int require(int result, const char* what) {
  if (result < 0) {
    std::perror("simulated kernel");
    give_up(what);
  }
  return result;
}

long call_of_hub(long number, const long* arguments) noexcept {
  return kernel::current()->call(number, arguments);
}

}  // namespace

kernel* kernel::current_ = nullptr;

kernel::kernel(std::uint64_t seed, const moods& m, outside& rest) : dice_(seed), moods_(m), outside_(rest) {
  if (current_ != nullptr) {
    give_up("there is one already");
  }
  edges_ = require(::epoll_create1(EPOLL_CLOEXEC), "epoll_create1");
  const int moved = require(::fcntl(edges_, F_DUPFD_CLOEXEC, first_file), "dup");
  ::close(std::exchange(edges_, moved));
  due_.reserve(usual_requests);
  overflow_.reserve(usual_requests);
  held_.reserve(usual_requests);
  current_ = this;
  annulet::detail::stand_in = &call_of_hub;
}

kernel::~kernel() {
  annulet::detail::stand_in = nullptr;
  current_ = nullptr;
  for (held& h : held_) {
    if (h.taken) {
      release(h);
    }
  }
  ::close(edges_);
}

// --- the ring's memory

int kernel::set_up(unsigned entries, io_uring* ring, io_uring_params* params) noexcept {
  const unsigned places = std::bit_ceil(std::min(entries, 32768U));
  const unsigned room = std::bit_ceil(std::min(params->cq_entries, 65536U));
  entries_.assign(places, {});
  array_.assign(places, 0);
  completions_.assign(room, {});
  entry_head_ = entry_tail_ = completion_head_ = completion_tail_ = flags_ = dropped_ = 0;
  entry_mask_ = places - 1;
  completion_mask_ = room - 1;
  ring_fd_ = ::eventfd(0, EFD_CLOEXEC);
  if (ring_fd_ < 0) {
    return -errno;
  }
  params->sq_entries = places;
  params->cq_entries = room;
  params->features = IORING_FEAT_EXT_ARG | IORING_FEAT_RSRC_TAGS | IORING_FEAT_CQE_SKIP;
  io_uring_sq& sq = ring->sq;
  sq = {};
  sq.khead = &entry_head_;
  sq.ktail = &entry_tail_;
  sq.kflags = &flags_;
  sq.kdropped = &dropped_;
  sq.array = array_.data();
  sq.sqes = entries_.data();
  sq.ring_mask = entry_mask_;
  sq.ring_entries = places;
  io_uring_cq& cq = ring->cq;
  cq = {};
  cq.khead = &completion_head_;
  cq.ktail = &completion_tail_;
  cq.cqes = completions_.data();
  cq.ring_mask = completion_mask_;
  cq.ring_entries = room;
  ring->flags = params->flags;
  ring->features = params->features;
  ring->ring_fd = ring->enter_ring_fd = ring_fd_;
  tells_of_work_ = (params->flags & IORING_SETUP_TASKRUN_FLAG) != 0;
  return 0;
}

void kernel::tear_down(io_uring* ring) noexcept {
  ::close(ring->ring_fd);
  ring_fd_ = -1;
}

unsigned kernel::completions() const noexcept { return completion_tail_ - completion_head_; }

void kernel::show_flags() noexcept {
  const bool has_work = !due_.empty();
  stands_ = !has_work && (stands_ || (shows_work_ && dice_say(moods_.stands)));
  shows_work_ = has_work;
  flags_ = (overflow_.empty() ? 0U : IORING_SQ_CQ_OVERFLOW) |
           ((has_work || stands_) && tells_of_work_ ? IORING_SQ_TASKRUN : 0U);
}

// Behind those that have overflowed, as Linux keeps their order.
void kernel::post(std::uint64_t data, int result, unsigned flags) noexcept {
  vain_enters_ = 0;
  trace_ = (trace_ ^ static_cast<std::uint32_t>(result) ^ std::uint64_t{flags} << 32) * 0x100000001b3U;
  io_uring_cqe made;
  made.user_data = data;
  made.res = result;
  made.flags = flags;
  if (!overflow_.empty() || completions() > completion_mask_) {
    overflow_.push_back(made);
  } else {
    completions_[completion_tail_++ & completion_mask_] = made;
  }
}

void kernel::flush_overflow() noexcept {
  std::size_t moved = 0;
  for (; moved < overflow_.size() && completions() <= completion_mask_; ++moved) {
    completions_[completion_tail_++ & completion_mask_] = overflow_[moved];
  }
  overflow_.erase(overflow_.begin(), overflow_.begin() + static_cast<std::ptrdiff_t>(moved));
}

// --- submission

unsigned kernel::submit(unsigned count) noexcept {
  if (count > 1 && dice_say(moods_.part)) {
    count = 1 + static_cast<unsigned>(dice_.below(count - 1));
  }
  for (unsigned i = 0; i < count; ++i) {
    const io_uring_sqe entry = entries_[array_[entry_head_ & entry_mask_]];
    ++entry_head_;
    take(entry);
  }
  return count;
}

void kernel::answer(const io_uring_sqe& entry, int result) noexcept {
  if (result < 0 || (entry.flags & IOSQE_CQE_SKIP_SUCCESS) == 0) {
    post(entry.user_data, result, 0);
  }
}

// Each request has to be one that the hub has said it will make.
void kernel::restrict_to(const io_uring_restriction* all, std::size_t count) noexcept {
  for (const io_uring_restriction& one : std::span(all, count)) {
    if (one.opcode == IORING_RESTRICTION_SQE_OP) {
      allowed_.set(one.sqe_op);
    } else if (one.opcode == IORING_RESTRICTION_SQE_FLAGS_ALLOWED) {
      allowed_flags_ = one.sqe_flags;
    }
  }
}

void kernel::take(const io_uring_sqe& entry) noexcept {
  if (!allowed_.test(entry.opcode) || (entry.flags & ~allowed_flags_) != 0) {
    return answer(entry, -EACCES);
  }
  switch (entry.opcode) {
    case IORING_OP_NOP:
      return answer(entry, 0);
    case IORING_OP_POLL_ADD:
      return take_poll(entry);
    case IORING_OP_POLL_REMOVE:
      return (entry.len & IORING_POLL_UPDATE_EVENTS) != 0 ? take_update(entry) : take_removal(entry);
    case IORING_OP_ASYNC_CANCEL:
      return take_cancel(entry);
    default:
      if (hold(entry) == nullptr) {
        answer(entry, -EBADF);
      }
  }
}

void kernel::take_poll(const io_uring_sqe& entry) noexcept {
  held* const h = hold(entry);
  if (h == nullptr) {
    return answer(entry, -EBADF);
  }
  h->polls = true;
  arm(*h, EPOLL_CTL_ADD);
  if (poll_at_once(h->file, events_of(*h)) != 0) {
    tell_event(*h);
  }
}

// Somebody wakes it at this moment, and what comes of that may be nothing.
bool kernel::is_just_woken(held& poll) noexcept {
  const bool woken = poll.due ? dice_.one_in(2) : dice_say(moods_.too_late);
  if (woken) {
    due(poll);
  }
  return woken;
}

// The one that it names, if that can be changed; else this was answered.
kernel::held* kernel::poll_to_change(const io_uring_sqe& entry) noexcept {
  held* const h = find(entry.addr, true);
  if (h == nullptr || is_just_woken(*h)) {
    answer(entry, h == nullptr ? -ENOENT : -EALREADY);
    return nullptr;
  }
  answer(entry, 0);
  return h;
}

void kernel::take_removal(const io_uring_sqe& entry) noexcept {
  if (held* const h = poll_to_change(entry)) {
    h->ends = true;
    due(*h);
  }
}

// The level is looked at anew.
void kernel::take_update(const io_uring_sqe& entry) noexcept {
  held* const h = poll_to_change(entry);
  if (h == nullptr) {
    return;
  }
  h->flags = entry.poll32_events;
  arm(*h, EPOLL_CTL_MOD);
  if (!h->due && poll_at_once(h->file, events_of(*h)) != 0) {
    tell_event(*h);
  }
}

void kernel::take_cancel(const io_uring_sqe& entry) noexcept {
  held* const h = find(entry.addr, false);
  if (h == nullptr) {
    return answer(entry, -ENOENT);
  }
  // It is on its way from a thread to a wait, or back: a moment, which need not be met each time.
  const bool moves = h->missed < most_misses && dice_say(moods_.too_late);
  if (!h->polls && (h->under_way || moves)) {
    ++h->missed;
    h->under_way = can_go_on(*h);
    return answer(entry, -EALREADY);
  }
  answer(entry, 0);
  h->ends = true;
  due(*h);
}

// --- the enter

long kernel::enter(unsigned count, unsigned want, unsigned flags, const void* argument,
                   std::size_t size) noexcept {
  if (++vain_enters_ > most_vain_enters) {
    outside_.goes_round();
  }
  now_ += 100 + static_cast<std::int64_t>(dice_.below(1000));
  if (dice_say(moods_.refused)) {
    constexpr std::array errors = {EAGAIN, EBUSY, EINTR, ENOMEM};
    return -dice_.pick(errors);
  }
  const unsigned taken = submit(std::min(count, entry_tail_ - entry_head_));
  long result = 0;
  if ((flags & IORING_ENTER_GETEVENTS) != 0 && taken == count) {
    flush_overflow();
    notice();
    begin_transfers(dice_.one_in(4));
    deliver(std::max(want, 1U));
    if (completions() < want) {
      std::int64_t limit = -1;
      if ((flags & IORING_ENTER_EXT_ARG) != 0 && size == sizeof(io_uring_getevents_arg)) {
        const auto* const more = static_cast<const io_uring_getevents_arg*>(argument);
        const auto* const time = reinterpret_cast<const __kernel_timespec*>(more->ts);
        limit = time == nullptr ? -1 : time->tv_sec * second + time->tv_nsec;
      }
      result = limit == 0 ? -ETIME : await(want, limit);
    }
  }
  show_flags();
  return taken != 0 ? static_cast<long>(taken) : result;
}

long kernel::await(unsigned want, std::int64_t limit) noexcept {
  vain_enters_ = 0;
  for (;;) {
    notice();
    begin_transfers(true);
    if (!due_.empty() || !overflow_.empty()) {
      deliver(1);
      flush_overflow();
    }
    if (completions() >= want) {
      return 0;
    }
    if (!due_.empty() || !overflow_.empty()) {
      continue;
    }
    outside_.at_rest(now_);
    if (dice_say(moods_.interrupted)) {
      return -EINTR;
    }
    if (limit >= 0 && dice_.one_in(3)) {
      now_ += limit;
      return -ETIME;
    }
    if (outside_.act()) {
      return -EINTR;
    }
    const auto passes = static_cast<std::int64_t>(dice_.below(200'000));
    if (limit >= 0 && passes >= limit) {
      now_ += limit;
      return -ETIME;
    }
    now_ += passes;
    limit -= limit >= 0 ? passes : 0;
  }
}

long kernel::call(long number, const long* a) noexcept {
  if (number == SYS_io_uring_enter) {
    return enter(static_cast<unsigned>(a[1]), static_cast<unsigned>(a[2]), static_cast<unsigned>(a[3]),
                 reinterpret_cast<const void*>(a[4]), static_cast<std::size_t>(a[5]));
  }
  if (number == SYS_io_uring_register) {
    if (a[1] == IORING_REGISTER_RESTRICTIONS) {
      restrict_to(reinterpret_cast<const io_uring_restriction*>(a[2]), static_cast<std::size_t>(a[3]));
    }
    return 0;
  }
  const long result = annulet::detail::enter_kernel(number, a[0], a[1], a[2], a[3], a[4], a[5]);
  switch (number) {
    case SYS_fcntl:
    case SYS_getpid:
    case SYS_gettid:
    case SYS_poll:
    case SYS_getsockopt:
    case SYS_statx:
    case SYS_rt_sigprocmask:
      break;
    default:
      happened();  // its other end may have been woken
  }
  return result;
}

}  // namespace simulated
