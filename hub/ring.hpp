// io_uring as the engine uses it: set-up with its ladder of flags, the submission queue, one enter, and
// reaping. The only file that includes liburing; internal, not installed.
//
// The enter is made by hand because liburing's wrappers can say neither "run so many completions but do not
// wait for them" nor "this wait is no I/O wait"; and inline, for each return behind it is predicted wrongly
// (syscalls.hpp).
#pragma once

#include "engine.hpp"
#include "hub_options.hpp"
#include "syscalls.hpp"

#include <annulet_plants.hpp>

#include <liburing.h>

#include <cerrno>
#include <cstdint>
#include <optional>
#include <string>
#include <system_error>
#include <vector>

namespace annulet::detail {

// The kernel, or a filter before it, refuses io_uring as such. That descriptors ran out is a plain
// std::system_error instead, for no engine does with fewer.
class ring_refused : public std::system_error {
 public:
  // `before` tells what else was tried.
  ring_refused(const char* call, int error, std::vector<std::string> before);

  // Which calls were refused, with which errno; and of the last, what would allow it.
  [[nodiscard]] const std::vector<std::string>& reasons() const noexcept { return reasons_; }

 private:
  std::vector<std::string> reasons_;
};

// For the message of a process that ends because an enter failed with this errno.
[[nodiscard]] std::string words_on_lost_ring(int error);

class ring {
 public:
  // Throws std::invalid_argument for an option out of its bounds.
  static void require_valid(const hub_options& options);

  // Sets the ring up and has it carry out a request, to know that it serves. Throws ring_refused, or
  // std::system_error where descriptors ran out.
  ring(const hub_options& options, engine_info& info);
  ~ring() { tear_down(); }
  ring(const ring&) = delete;
  ring& operator=(const ring&) = delete;

  // In a forked child, which has none of its memory: closes its descriptor there.
  void leave_to_parent() noexcept;

  // An empty entry to fill in, or null where the queue is full: enter first.
  [[nodiscard]] io_uring_sqe* next_sqe() noexcept {
    io_uring_sqe* const entry = io_uring_get_sqe(&ring_);
    requests_ += entry != nullptr ? 1 : 0;
    return entry;
  }
  [[nodiscard]] int fileno() const noexcept { return ring_.ring_fd; }
  // Entries that the kernel has not seen.
  [[nodiscard]] unsigned queued() const noexcept {
    return ring_.sq.sqe_tail - io_uring_smp_load_acquire(ring_.sq.khead);
  }

  [[nodiscard]] std::uint64_t enters() const noexcept { return enters_; }
  // Entries that were given out.
  [[nodiscard]] std::uint64_t requests() const noexcept { return requests_; }
  [[nodiscard]] bool full() const noexcept { return queued() == ring_.sq.ring_entries; }

  // Work is pending in the kernel that becomes completions only by an enter.
  [[nodiscard]] bool needs_enter() const noexcept {
    const unsigned overflow = planted(plant::ignored_overflow) ? 0 : IORING_SQ_CQ_OVERFLOW;
    return (IO_URING_READ_ONCE(*ring_.sq.kflags) & (overflow | IORING_SQ_TASKRUN)) != 0;
  }

  [[nodiscard]] bool has_completions() const noexcept {
    return io_uring_smp_load_acquire(ring_.cq.ktail) != *ring_.cq.khead;
  }

  [[nodiscard]] bool can_skip_success() const noexcept {
    return (ring_.features & IORING_FEAT_CQE_SKIP) != 0;
  }

  // Submits what is queued. Returns 0 or the errno.
  int submit() noexcept { return enter(0, 0, nullptr, nullptr); }
  // Submits, and has at least `count` completions made if so many are due; waits for none.
  // Asking for more than are due costs a sleep of a timer's length (38 us), so never ask for more than are
  // likely.
  int run_pending(unsigned count) noexcept {
    __kernel_timespec none{};
    return enter(count, IORING_ENTER_GETEVENTS, &none, nullptr);
  }
  // Submits and waits for one completion, at most so many nanoseconds (nullopt: no limit).
  // `mask`: the thread's meanwhile, or null.
  int wait(std::optional<std::int64_t> nanoseconds, const signal_mask* mask) noexcept;

  // Calls fn(user_data, res, flags) for each completion there is, each consumed before fn sees it. Returns
  // how many. Some places before, far(user_data) is told of it, to fetch what fn will need into the cache,
  // and then near(user_data), to fetch what that points at.
  template <class Fn, class Far, class Near>
  unsigned reap(Fn&& fn, Far&& far, Near&& near) noexcept {
    constexpr unsigned places_far = 6;
    constexpr unsigned places_near = 3;
    const auto data_at = [this](unsigned place) {
      return ring_.cq.cqes[place & ring_.cq.ring_mask].user_data;
    };
    unsigned count = 0;
    unsigned head = *ring_.cq.khead;
    for (;;) {
      const unsigned tail = io_uring_smp_load_acquire(ring_.cq.ktail);
      if (head == tail) {
        return count;
      }
      for (unsigned place = head; place != tail && place - head < places_far; ++place) {
        far(data_at(place));
      }
      for (unsigned place = head; place != tail && place - head < places_near; ++place) {
        near(data_at(place));
      }
      for (; head != tail; ++count) {
        if (tail - head > places_far) {
          far(data_at(head + places_far));
        }
        if (tail - head > places_near) {
          near(data_at(head + places_near));
        }
        const io_uring_cqe cqe = ring_.cq.cqes[head & ring_.cq.ring_mask];
        ++head;
        io_uring_smp_store_release(ring_.cq.khead, head);
        fn(cqe.user_data, cqe.res, cqe.flags);
      }
    }
  }

 private:
  void set_up(const hub_options& options, engine_info& info);
  void tear_down() noexcept;
  // Of all that is shared with the kernel.
  void for_each_page(void (*fn)(void* page)) const noexcept;
  void register_itself(engine_info& info);
  void confine(const engine_info& info);
  void try_nop(const engine_info& info);
  int enter(unsigned want, unsigned flags, __kernel_timespec* timeout, const signal_mask* mask) noexcept;

  io_uring ring_{};
  unsigned enter_flags_ = 0;  // of every enter
  unsigned no_iowait_ = 0;    // of those that wait
  std::uint64_t enters_ = 0;
  std::uint64_t requests_ = 0;
};

[[gnu::always_inline]] inline int ring::enter(unsigned want, unsigned flags, __kernel_timespec* timeout,
                                              const signal_mask* mask) noexcept {
  const unsigned to_submit = queued();
  if (to_submit == 0 && flags == 0) {
    return 0;
  }
  ++enters_;
  io_uring_smp_store_release(ring_.sq.ktail, ring_.sq.sqe_tail);
  ring_.sq.sqe_head = ring_.sq.sqe_tail;
  io_uring_getevents_arg arg{};
  void* extra = nullptr;
  std::size_t extra_size = _NSIG / 8;
  if ((timeout != nullptr || mask != nullptr) && want != 0) {
    arg.ts = reinterpret_cast<std::uintptr_t>(timeout);
    arg.sigmask = reinterpret_cast<std::uintptr_t>(mask);
    arg.sigmask_sz = sizeof(*mask);
    extra = &arg;
    extra_size = sizeof(arg);
    flags |= IORING_ENTER_EXT_ARG;
  }
  return kernel(SYS_io_uring_enter, ring_.enter_ring_fd, to_submit, want, flags | enter_flags_, extra,
                extra_size)
      .error();
}

[[gnu::always_inline]] inline int ring::wait(std::optional<std::int64_t> nanoseconds,
                                             const signal_mask* mask) noexcept {
  constexpr std::int64_t second = 1'000'000'000;
  __kernel_timespec limit{};
  if (nanoseconds) {
    limit.tv_sec = *nanoseconds / second;
    limit.tv_nsec = *nanoseconds % second;
  }
  return enter(1, IORING_ENTER_GETEVENTS | no_iowait_, nanoseconds ? &limit : nullptr, mask);
}

}  // namespace annulet::detail
