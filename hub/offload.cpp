#include "offload.hpp"

#include "hub_core.hpp"
#include "threaded_calls.hpp"

#include <annulet/runtime/errors.hpp>

#include <atomic>
#include <cerrno>
#include <cstdint>
#include <system_error>

namespace annulet::detail {

namespace {

// Belongs to the fiber until it is submitted, and when it has ended while that waits; else to the pool, and
// ends itself.
class offload_job final : public worker_pool::job {
 public:
  explicit offload_job(std::unique_ptr<offloaded> work) noexcept : work_(std::move(work)) {}

  void run() noexcept override {
    work_->run();
    if (fate_.exchange(fate::over, std::memory_order_acq_rel) == fate::dropped) {
      work_.reset();
    }
  }
  void ended() noexcept override {
    if (waiting_ == nullptr) {
      delete this;
      return;
    }
    collected_ = true;
    waiting_->wake(wake_reason::ready);  // or it was woken otherwise, and finds that
  }

  void wait_with(waiter* w) noexcept { waiting_ = w; }
  [[nodiscard]] bool collected() const noexcept { return collected_; }
  // Nobody wants it any more, and it has begun: it ends itself.
  void drop() noexcept {
    waiting_ = nullptr;
    if (fate_.exchange(fate::dropped, std::memory_order_acq_rel) == fate::over) {
      work_.reset();
    }
  }
  [[nodiscard]] std::unique_ptr<offloaded> take() noexcept { return std::move(work_); }

 private:
  enum class fate : std::uint8_t { open, over, dropped };

  std::unique_ptr<offloaded> work_;
  std::atomic<fate> fate_{fate::open};
  waiter* waiting_ = nullptr;  // this and the next: the hub's thread only
  bool collected_ = false;
};

// Parks until the job has ended. However that ends, the job is the fiber's again, or nobody's.
class stay {
 public:
  stay(threaded_calls& threads, std::unique_ptr<offload_job>& j) noexcept : threads_(threads), job_(j) {}
  ~stay() {
    job_->wait_with(nullptr);
    if (!job_->collected() && !threads_.withdraw(*job_)) {
      job_.release()->drop();
    }
  }
  stay(const stay&) = delete;
  stay& operator=(const stay&) = delete;

  [[nodiscard]] bool until(deadline limit, scheduler& here) {
    waiter w(here.running());
    job_->wait_with(&w);
    return here.park(w, limit, wakers::outside) == wake_reason::ready;
  }

 private:
  threaded_calls& threads_;
  std::unique_ptr<offload_job>& job_;
};

[[noreturn]] void throw_late() { throw deadline_passed("annulet: offload: the deadline passed"); }

}  // namespace

std::unique_ptr<offloaded> run_offloaded(std::unique_ptr<offloaded> work, deadline until) {
  hub_core& hub = hub_core::here("offload");
  if (hub.fibers().is_shutting_down()) {
    throw hub_gone("annulet: offload: the hub is ending");
  }
  hub.fibers().throw_if_interrupted();
  if (until.is_past()) {
    hub.fibers().breathe(1);
    throw_late();
  }
  threaded_calls& threads = hub.io().threads();
  auto job = std::make_unique<offload_job>(std::move(work));
  if (!threads.submit(*job, worker_pool::urgency::bounded)) {
    throw std::system_error(EAGAIN, std::generic_category(), "annulet: offload: no thread is to be had");
  }
  bool ended = false;
  {
    stay waits(threads, job);
    ended = waits.until(until, hub.fibers());
  }
  if (!ended) {
    throw_late();
  }
  return job->take();
}

}  // namespace annulet::detail
