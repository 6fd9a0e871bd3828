#include "future.hpp"

#include "scheduler.hpp"

#include <string>

namespace annulet::detail {

// Tells the thread behind its door. Until it is rung it belongs to the promised, which has at most one.
class promised::bell final : public posted {
 public:
  explicit bell(std::shared_ptr<door> of) noexcept : door_(std::move(of)) {}

  [[nodiscard]] const door* behind() const noexcept { return door_.get(); }
  void run() override { kept_->waiting_.wake_all(); }

  static void ring(std::unique_ptr<bell> b, const std::shared_ptr<promised>& kept) noexcept {
    const std::shared_ptr<door> out = std::move(b->door_);
    b->kept_ = kept;
    if (out->leave(*b)) {
      (void)b.release();
    }  // else nobody is left who could wait
  }

 private:
  std::shared_ptr<door> door_;
  std::shared_ptr<promised> kept_;
};

promised::promised() = default;
promised::~promised() = default;

bool promised::try_claim() noexcept {
  phase expected = phase::open;
  return phase_.compare_exchange_strong(expected, phase::claimed, std::memory_order_relaxed);
}

void promised::claim(const char* call) {
  if (!try_claim()) {
    throw std::logic_error(std::string("annulet: ") + call + ": it is kept already");
  }
}

void promised::keep(const std::shared_ptr<promised>& self) noexcept {
  std::unique_ptr<bell> b;
  {
    const std::lock_guard lock(mutex_);
    phase_.store(phase::kept, std::memory_order_release);
    b = std::move(bell_);
  }
  if (b == nullptr) {
    return;
  }
  const scheduler* const here = scheduler::current();
  if (here != nullptr && here->way_in().get() == b->behind()) {
    waiting_.wake_all();
  } else {
    bell::ring(std::move(b), self);
  }
}

bool promised::listen(const char* call) {
  if (is_kept()) {
    return true;
  }
  waiting_.require_own_thread(call);
  const auto way_in = scheduler::current()->way_in();
  auto fresh = std::make_unique<bell>(way_in);
  const std::lock_guard lock(mutex_);
  if (is_kept()) {
    return true;
  }
  if (bell_ == nullptr || bell_->behind() != way_in.get()) {
    std::swap(bell_, fresh);
  }
  return false;
}

void promised::stop_listening() noexcept {
  std::unique_ptr<bell> b;
  const std::lock_guard lock(mutex_);
  b.swap(bell_);
}

bool promised::wait(deadline until, const char* call) {
  if (is_kept() && scheduler::current() == nullptr) {
    return true;
  }
  waiting_.begin(call);
  if (listen(call)) {
    wait_queue::breathe();
    return true;
  }
  waiter w(waiting_.running(), call);
  return waiting_.park(w, w, until, wakers::outside);
}

void promised_result::abandon() noexcept {
  if (!core->try_claim()) {
    return;
  }
  try {
    throw broken_promise("annulet: the promise is gone, and was not kept");
  } catch (...) {  // that, or std::bad_alloc
    fail(std::current_exception());
  }
}

void promised_result::begin_taking(const char* call) {
  if (error != nullptr) {
    std::rethrow_exception(error);
  }
  if (std::exchange(taken, true)) {
    throw std::logic_error(std::string("annulet: ") + call + ": the value was taken before");
  }
}

void throw_without_promise(const char* call) {
  throw std::logic_error(std::string("annulet: ") + call +
                         ": it has no promise behind it, or was moved from");
}

}  // namespace annulet::detail
