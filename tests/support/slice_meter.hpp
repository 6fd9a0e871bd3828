// How long a thread runs between two switches of its fibers, at most.
#pragma once

#include "cpu_time.hpp"
#include "files.hpp"

#include <annulet/hub/c.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <cstdio>

#include <linux/perf_event.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

namespace annulet::test {

// Where a virtual machine's host stops a processor, the clock of the thread that it runs goes on, and it
// seems to have run for many milliseconds: a bare loop sees that too, and in a trace of Linux's nothing
// happens meanwhile, not even its timer's interrupts. So the kernel counts here: after each `period` of the
// thread's CPU time, its timer takes a sample of it (perf_event_open(2)), and in a processor that stands
// still takes none. What runs for a time has a sample for each period of it that is whole.
class cpu_samples {
 public:
  static constexpr std::chrono::microseconds period{500};

  // Of the thread that makes it.
  cpu_samples() {
    perf_event_attr what{};
    what.type = PERF_TYPE_SOFTWARE;
    what.size = sizeof what;
    what.config = PERF_COUNT_SW_TASK_CLOCK;
    what.sample_period = std::chrono::nanoseconds(period).count();
    what.sample_type = PERF_SAMPLE_TIME;
    event_ =
        descriptor(static_cast<int>(::syscall(SYS_perf_event_open, &what, 0, -1, -1, PERF_FLAG_FD_CLOEXEC)));
    void* const ring = ::mmap(nullptr, ring_size(), PROT_READ, MAP_SHARED, event_.get(), 0);
    if (ring == MAP_FAILED) {
      std::perror("note: no samples, so slices are what the clock says: perf_event_open");
      return;
    }
    ring_ = static_cast<perf_event_mmap_page*>(ring);
  }
  cpu_samples(const cpu_samples&) = delete;
  cpu_samples& operator=(const cpu_samples&) = delete;
  ~cpu_samples() {
    if (ring_ != nullptr) {
      ::munmap(ring_, ring_size());
    }
  }

  [[nodiscard]] bool are_taken() const noexcept { return ring_ != nullptr; }
  // So far. The ring is read by nobody, and the kernel writes round and round.
  [[nodiscard]] std::uint64_t count() const noexcept {
    constexpr std::size_t each = sizeof(perf_event_header) + sizeof(std::uint64_t);
    return are_taken() ? std::atomic_ref(ring_->data_head).load(std::memory_order_relaxed) / each : 0;
  }

 private:
  static std::size_t ring_size() noexcept { return 2 * static_cast<std::size_t>(::sysconf(_SC_PAGESIZE)); }

  descriptor event_;
  perf_event_mmap_page* ring_ = nullptr;
};

// Somebody calls end() at each switch. A fiber that parks and goes on without a switch has two slices, which
// count as one here: so no slice is longer than `longest`.
class slice_meter {
 public:
  using nanoseconds = std::chrono::nanoseconds;

  void begin() noexcept {
    longest = longest_by_clock = {};
    start();
  }
  void end() noexcept {
    const nanoseconds by_clock = thread_cpu() - began_;
    if (by_clock > longest) {
      longest_by_clock = std::max(longest_by_clock, by_clock);
      const auto at_most = cpu_samples::period * (samples_.count() - sampled_ + 1);
      const nanoseconds ran = samples_.are_taken() ? std::min<nanoseconds>(by_clock, at_most) : by_clock;
      if (ran > longest) {
        longest = ran;
        whose = running_;
      }
    }
    start();
  }

  nanoseconds longest{};
  nanoseconds longest_by_clock{};
  std::uint64_t whose = 0;  // the longest is

 private:
  void start() noexcept {
    began_ = thread_cpu();
    sampled_ = samples_.count();
    running_ = annulet_fiber_self();
  }

  cpu_samples samples_;
  nanoseconds began_{};
  std::uint64_t sampled_ = 0;
  std::uint64_t running_ = 0;  // the fiber
};

}  // namespace annulet::test
