// Linux with faults, for a program that is linked with what plants bugs: it carries out what the hub asks
// for, but every so many calls it refuses one, as it does where memory is short or a signal comes, and of
// what it has been given it cuts some short and ends some early.
//
// While one of these lives; for one hub, on the hub's thread. A transfer that is cut short or cancelled here
// was made whole, so it has to be one at a position, of which the same comes again. For one source of a
// program, which is linked with --wrap=io_uring_queue_init_params: from that the ring is known.
#pragma once

#include "../oracle/dice.hpp"

#include <annulet/hub/syscalls.hpp>
#include <annulet_plants.hpp>

#include <liburing.h>

#include <array>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <thread>
#include <unordered_map>

#include <sys/epoll.h>
#include <sys/uio.h>

namespace annulet::test {

class faulty_kernel {
 public:
  struct counts {
    std::uint64_t enters_refused = 0;
    std::uint64_t controls_refused = 0;  // of an epoll set
    std::uint64_t short_of_memory = 0;   // of these; the others were interrupted
    std::uint64_t waits_refused = 0;     // for one
    std::uint64_t polls_ended = 0;       // that would have told more
    std::uint64_t polls_cancelled = 0;
    std::uint64_t transfers_short = 0;
    std::uint64_t transfers_cancelled = 0;
    std::uint64_t not_in_memory = 0;
  };

  // Every how many calls one is refused, of each sort; and the disk's file.
  faulty_kernel(unsigned every, int disk, std::uint64_t seed) : every_(every), disk_(disk), dice_(seed) {
    current = this;
    detail::stand_in = [](long number, const long* arguments) noexcept {
      return current->call(number, arguments);
    };
  }
  ~faulty_kernel() {
    detail::stand_in = nullptr;
    current = nullptr;
  }
  faulty_kernel(const faulty_kernel&) = delete;
  faulty_kernel& operator=(const faulty_kernel&) = delete;

  // What a hub is made with is not refused.
  void begin() noexcept { begun_ = true; }
  [[nodiscard]] const counts& so_far() const noexcept { return counts_; }

  static inline io_uring* ring = nullptr;  // the last that was made

 private:
  // What comes of a request that the kernel has.
  enum class fate : std::uint8_t { cut_short, cancelled, ended, ended_by_cancelling };

  static long make(long number, const long* a) noexcept {
    return detail::enter_kernel(number, a[0], a[1], a[2], a[3], a[4], a[5]);
  }

  long call(long number, const long* arguments) noexcept {
    if (!begun_ || std::this_thread::get_id() != thread_) {
      return make(number, arguments);
    }
    switch (number) {
      case SYS_io_uring_enter:
        return enter(arguments);
      case SYS_epoll_ctl:
        if (++controls_ % every_ == 0) {
          const bool interrupted = ++counts_.controls_refused % 2 == 0 || arguments[1] == EPOLL_CTL_DEL;
          counts_.short_of_memory += interrupted ? 0 : 1;
          return interrupted ? -EINTR : -ENOMEM;
        }
        break;
      case SYS_epoll_pwait:
      case SYS_epoll_pwait2:
        if (++waits_ % every_ == 0) {
          ++counts_.waits_refused;
          return counts_.waits_refused % 2 == 0 ? -EINTR : -ENOMEM;
        }
        break;
      case SYS_preadv2:
      case SYS_pwritev2:
        if (arguments[0] == disk_ && (arguments[5] & RWF_NOWAIT) != 0 && dice_.one_in(2)) {
          ++counts_.not_in_memory;
          return -EAGAIN;
        }
        break;
      default:
        break;
    }
    return make(number, arguments);
  }

  long enter(const long* arguments) noexcept {
    constexpr std::array errors = {EINTR, EAGAIN, EBUSY, ENOMEM};
    if (++enters_ % every_ == 0) {
      return -errors[counts_.enters_refused++ % errors.size()];
    }
    for (unsigned i = 0; i < static_cast<unsigned>(arguments[1]); ++i) {
      const unsigned at = *ring->sq.khead + i;
      foresee(ring->sq.sqes[at & ring->sq.ring_mask]);
    }
    const long result = make(SYS_io_uring_enter, arguments);
    spoil_completions();
    return result;
  }

  // One that is handed over again, where an enter took but some, has its fate anew.
  void foresee(io_uring_sqe& entry) noexcept {
    fates_.erase(entry.user_data);
    const bool transfers = entry.opcode == IORING_OP_READV || entry.opcode == IORING_OP_WRITEV;
    if (transfers && entry.fd == disk_ && dice_.one_in(2)) {
      fates_[entry.user_data] = dice_.one_in(2) ? fate::cut_short : fate::cancelled;
    }
    const bool lasts = (entry.len & IORING_POLL_ADD_MULTI) != 0;
    if (entry.opcode == IORING_OP_POLL_ADD && lasts && dice_.one_in(4)) {
      entry.len &= ~IORING_POLL_ADD_MULTI;
      fates_[entry.user_data] = dice_.one_in(2) ? fate::ended : fate::ended_by_cancelling;
    }
  }

  // Of those that have come: the hub has not seen them yet.
  void spoil_completions() noexcept {
    const unsigned tail = io_uring_smp_load_acquire(ring->cq.ktail);
    for (unsigned at = *ring->cq.khead; at != tail; ++at) {
      io_uring_cqe& completion = ring->cq.cqes[at & ring->cq.ring_mask];
      const auto found = fates_.find(completion.user_data);
      if (found != fates_.end() && (completion.flags & IORING_CQE_F_MORE) == 0) {
        spoil(completion, found->second);
        fates_.erase(found);
      }
    }
  }

  void spoil(io_uring_cqe& completion, fate what) noexcept {
    if (completion.res < 0) {
      return;  // of its own accord
    }
    switch (what) {
      case fate::cut_short:
        if (completion.res > 1) {
          completion.res = 1 + static_cast<int>(dice_.below(static_cast<std::size_t>(completion.res) - 1));
          ++counts_.transfers_short;
        }
        break;
      case fate::cancelled:
        completion.res = -ECANCELED;
        ++counts_.transfers_cancelled;
        break;
      case fate::ended:
        ++counts_.polls_ended;
        break;
      case fate::ended_by_cancelling:
        completion.res = -ECANCELED;
        ++counts_.polls_cancelled;
        break;
    }
  }

  static inline faulty_kernel* current = nullptr;

  const unsigned every_;
  const int disk_;
  const std::thread::id thread_ = std::this_thread::get_id();
  oracle::dice dice_;
  bool begun_ = false;
  std::uint64_t enters_ = 0, controls_ = 0, waits_ = 0;
  counts counts_;
  std::unordered_map<std::uint64_t, fate> fates_;  // by the data of each
};

}  // namespace annulet::test

extern "C" {

int __real_io_uring_queue_init_params(unsigned entries, io_uring* ring, io_uring_params* params);

int __wrap_io_uring_queue_init_params(unsigned entries, io_uring* ring, io_uring_params* params) {
  annulet::test::faulty_kernel::ring = ring;
  return __real_io_uring_queue_init_params(entries, ring, params);
}
}
