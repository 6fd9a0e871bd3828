#include "run_on_all_cores.hpp"

#include "hub.hpp"
#include "hub_core.hpp"

#include <annulet/runtime/check.hpp>
#include <annulet/runtime/errors.hpp>

#include <atomic>
#include <cstdint>
#include <exception>
#include <mutex>
#include <stdexcept>
#include <string>
#include <system_error>
#include <thread>
#include <vector>

#include <pthread.h>
#include <sched.h>

namespace annulet {

namespace {

constexpr std::size_t most_threads = 4096;

void check_result(int error, const char* what) {
  if (error != 0) {
    throw std::system_error(error, std::generic_category(),
                            std::string("annulet: run_on_all_cores: ") + what);
  }
}

// Which CPUs a thread may run on, and had before.
class cpu_set {
 public:
  cpu_set() {
    check_result(::pthread_getaffinity_np(::pthread_self(), sizeof(set_), &set_), "the CPUs of this thread");
    for (std::size_t cpu = 0; cpu < CPU_SETSIZE; ++cpu) {
      if (CPU_ISSET(cpu, &set_)) {
        cpus_.push_back(cpu);
      }
    }
  }
  [[nodiscard]] std::size_t size() const noexcept { return cpus_.size(); }
  void pin(std::size_t index) const {
    cpu_set_t one;
    CPU_ZERO(&one);
    CPU_SET(cpus_[index % cpus_.size()], &one);
    check_result(::pthread_setaffinity_np(::pthread_self(), sizeof(one), &one), "a CPU");
  }
  void unpin() const noexcept { (void)::pthread_setaffinity_np(::pthread_self(), sizeof(set_), &set_); }

 private:
  cpu_set_t set_{};
  std::vector<std::size_t> cpus_;
};

// What the threads share: the start, and the first error. None begins before all have their hubs.
class crew {
 public:
  explicit crew(std::size_t size) noexcept : missing_(size) {}

  // Waits for the others. False where one of them has failed.
  [[nodiscard]] bool is_complete() noexcept {
    if (missing_.fetch_sub(1, std::memory_order_acq_rel) == 1) {
      decide(verdict::go);
    }
    verdict_.wait(verdict::open, std::memory_order_acquire);
    return verdict_.load(std::memory_order_acquire) == verdict::go;
  }
  // One could not begin, and none will. What kept the first from it may keep them all, and is told once.
  void fail(const std::exception_ptr& error) noexcept {
    {
      const std::lock_guard lock(mutex_);
      if (error_ == nullptr) {
        error_ = error;
      }
    }
    decide(verdict::leave);
  }
  void note(const std::exception_ptr& error) noexcept {
    const std::lock_guard lock(mutex_);
    if (error_ == nullptr) {
      error_ = error;
    } else {
      detail::report_uncollected("a call of run_on_all_cores", error);
    }
  }
  // When all have ended.
  void rethrow() const {
    if (error_ != nullptr) {
      std::rethrow_exception(error_);
    }
  }

 private:
  enum class verdict : std::uint8_t { open, go, leave };

  void decide(verdict v) noexcept {
    verdict expected = verdict::open;
    if (verdict_.compare_exchange_strong(expected, v, std::memory_order_acq_rel)) {
      verdict_.notify_all();
    }
  }

  std::atomic<std::size_t> missing_;
  std::atomic<verdict> verdict_{verdict::open};
  std::mutex mutex_;
  std::exception_ptr error_;
};

std::size_t checked(std::size_t count, const cpu_set& cpus) {
  if (count > most_threads) {
    throw std::invalid_argument("annulet: run_on_all_cores: more than " + std::to_string(most_threads) +
                                " threads");
  }
  if (detail::hub_core::current() != nullptr) {
    throw std::logic_error("annulet: run_on_all_cores: this thread has a hub, and each call gets its own");
  }
  return count == 0 ? cpus.size() : count;
}

}  // namespace

void run_on_all_cores(const std::function<void(hub&, std::size_t)>& fn, const cores_options& options) {
  if (fn == nullptr) {
    throw std::invalid_argument("annulet: run_on_all_cores: no function");
  }
  const cpu_set cpus;
  const std::size_t count = checked(options.count, cpus);
  crew all(count);
  const auto run = [&](std::size_t index) noexcept {
    try {
      if (options.pinned) {
        cpus.pin(index);
      }
      hub own(options.hub);
      if (all.is_complete()) {
        std::exception_ptr error;
        try {
          fn(own, index);
        } catch (...) {
          error = std::current_exception();
        }
        if (detail::core_of(own).is_left_to_parent()) {  // it has forked, and the other threads are not here
          detail::scheduler::end_forked_child("a call of run_on_all_cores", error);
        }
        if (error != nullptr) {
          all.note(error);
        }
      }
    } catch (...) {
      all.fail(std::current_exception());
    }
  };
  std::vector<std::thread> others;
  try {
    others.reserve(count - 1);
    while (others.size() + 1 < count) {
      others.emplace_back(run, others.size() + 1);
    }
  } catch (const std::system_error& e) {
    all.fail(std::make_exception_ptr(
        std::system_error(e.code(), "annulet: run_on_all_cores: a thread is not to be had")));
  } catch (...) {
    all.fail(std::current_exception());
  }
  if (others.size() + 1 == count) {
    run(0);
  }
  for (std::thread& other : others) {
    other.join();
  }
  if (options.pinned) {
    cpus.unpin();
  }
  all.rethrow();
}

}  // namespace annulet
