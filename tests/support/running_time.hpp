// How much of its CPU time a thread was seen to run.
#pragma once

#include "cpu_time.hpp"
#include "files.hpp"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <utility>

#include <linux/perf_event.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

namespace annulet::test {

// Where a virtual machine's host stops a processor, the clock of the thread on it goes on, and the thread
// seems to have run for 5 to 25 ms: a trace of Linux's shows no event in such a time, not even its timer's
// interrupts. So that timer takes a sample of the thread after each `period` of its CPU time
// (perf_event_open(2)), and of a processor that stands still it takes none.
class running_time {
 public:
  static constexpr std::chrono::microseconds period{500};

  struct moment {
    std::chrono::nanoseconds clock{};
    std::uint64_t samples = 0;
  };

  // Of the thread that makes it.
  running_time() noexcept {
    perf_event_attr what{};
    what.type = PERF_TYPE_SOFTWARE;
    what.size = sizeof what;
    what.config = PERF_COUNT_SW_TASK_CLOCK;
    what.sample_period = std::chrono::nanoseconds(period).count();
    what.sample_type = PERF_SAMPLE_TIME;
    event_ =
        descriptor(static_cast<int>(::syscall(SYS_perf_event_open, &what, 0, -1, -1, PERF_FLAG_FD_CLOEXEC)));
    if (event_.get() < 0) {
      std::perror("note: skipped: this thread is not sampled: perf_event_open");
      return;
    }
    void* const ring = ::mmap(nullptr, ring_size(), PROT_READ, MAP_SHARED, event_.get(), 0);
    if (ring == MAP_FAILED) {
      std::perror("note: skipped: this thread is not sampled: mmap");
      return;
    }
    ring_ = static_cast<perf_event_mmap_page*>(ring);
  }
  running_time(const running_time&) = delete;
  running_time& operator=(const running_time&) = delete;
  ~running_time() {
    if (is_sampled()) {
      ::munmap(std::exchange(ring_, nullptr), ring_size());
    }
  }

  [[nodiscard]] bool is_sampled() const noexcept { return ring_ != nullptr; }

  // Not in a forked child, which has no such ring. Nobody reads what the kernel writes there, round and
  // round.
  [[nodiscard]] moment now() const noexcept {
    constexpr std::size_t each = sizeof(perf_event_header) + sizeof(std::uint64_t);
    const auto clock = thread_cpu();  // first: what comes after it counts as having run
    return {clock,
            is_sampled() ? std::atomic_ref(ring_->data_head).load(std::memory_order_relaxed) / each : 0};
  }
  // What is not explained by having run: nothing where there are no samples. A time between two of them may
  // have come before the first, so they explain one `period` more.
  [[nodiscard]] std::chrono::nanoseconds stood_still(moment from, moment to) const noexcept {
    const std::chrono::nanoseconds ran = period * (to.samples - from.samples + 1);
    return is_sampled() ? std::max(to.clock - from.clock - ran, std::chrono::nanoseconds::zero())
                        : std::chrono::nanoseconds::zero();
  }

 private:
  static std::size_t ring_size() noexcept { return 2 * static_cast<std::size_t>(::sysconf(_SC_PAGESIZE)); }

  descriptor event_;
  perf_event_mmap_page* ring_ = nullptr;
};

}  // namespace annulet::test
