#include "offload.hpp"

#include "hub_core.hpp"
#include "threaded_calls.hpp"

#include <annulet/runtime/errors.hpp>
#include <annulet/runtime/fiber.hpp>
#include <annulet/runtime/switching.hpp>

#include <cerrno>
#include <system_error>

namespace annulet::detail {

namespace {

// Belongs to the fiber until it is submitted, and when it has ended while that waits; else to the pool, and
// ends itself. All but run() is for the hub's thread.
class offload_job final : public worker_pool::job {
 public:
  offload_job(std::unique_ptr<offloaded> work, scheduler& fibers) noexcept
      : work_(std::move(work)), fibers_(fibers) {}

  void run() noexcept override {
    work_->run();
    if (fibers_.is_left_to_parent()) [[unlikely]] {  // it has forked
      scheduler::end_forked_child("an offloaded function", work_->error());
    }
  }
  void ended() noexcept override {
    if (waiting_ == nullptr) {
      end_by_itself(std::unique_ptr<offload_job>(this));
      return;
    }
    collected_ = true;
    waiting_->wake(wake_reason::ready);  // or it was woken otherwise, and finds that
  }

  void wait_with(waiter* w) noexcept { waiting_ = w; }
  [[nodiscard]] bool collected() const noexcept { return collected_; }
  [[nodiscard]] std::unique_ptr<offloaded> take() noexcept { return std::move(work_); }

 private:
  // Destructors of the program's run in a fiber, not inside a wait; once the fibers have ended, there is
  // none.
  static void end_by_itself(std::unique_ptr<offload_job> job) noexcept {
    if (job->fibers_.is_shutting_down()) {
      return;
    }
    try {
      spawn({.name = "offload", .place = {}}, [held = std::move(job)] {}).detach();
    } catch (const std::exception&) {
      // There is no stack to be had: it was destroyed here.
    }
  }

  std::unique_ptr<offloaded> work_;
  scheduler& fibers_;
  waiter* waiting_ = nullptr;
  bool collected_ = false;
};

// Parks until the job has ended. However that ends, the job is the fiber's again, or nobody's.
class stay {
 public:
  stay(threaded_calls& threads, std::unique_ptr<offload_job>& j) noexcept : threads_(threads), job_(j) {}
  ~stay() {
    job_->wait_with(nullptr);
    if (!job_->collected() && !threads_.withdraw(*job_)) {
      (void)job_.release();  // it has begun, and ends itself
    }
  }
  stay(const stay&) = delete;
  stay& operator=(const stay&) = delete;

  [[nodiscard]] bool until(deadline limit, scheduler& here) {
    waiter w(here.running(), "offload");
    job_->wait_with(&w);
    return here.park(w, limit, wakers::outside) == wake_reason::ready;
  }

 private:
  threaded_calls& threads_;
  std::unique_ptr<offload_job>& job_;
};

// Null where something else came first.
std::unique_ptr<offloaded> run_in_pool(hub_core& hub, std::unique_ptr<offloaded> work, deadline until) {
  threaded_calls& threads = hub.io().threads();
  auto job = std::make_unique<offload_job>(std::move(work), hub.fibers());
  if (!threads.submit(*job, worker_pool::urgency::bounded)) {
    throw std::system_error(EAGAIN, std::generic_category(), "annulet: offload: no thread is to be had");
  }
  bool ended = false;
  {
    stay waits(threads, job);
    ended = waits.until(until, hub.fibers());
  }
  return ended ? job->take() : nullptr;
}

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
  auto done = run_in_pool(hub, std::move(work), until);
  if (done == nullptr) {
    throw_late();
  }
  return done;
}

}  // namespace annulet::detail
