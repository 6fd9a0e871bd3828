#include "name_threads.hpp"

#include "signal_mask.hpp"

#include <exception>
#include <thread>
#include <utility>

namespace annulet::detail {

namespace {

class signals_blocked {
 public:
  signals_blocked() = default;
  ~signals_blocked() { set_thread_mask(before_); }
  signals_blocked(const signals_blocked&) = delete;
  signals_blocked& operator=(const signals_blocked&) = delete;

 private:
  const signal_mask before_ = set_thread_mask(all_signals);
};

}  // namespace

void name_threads::submit(const std::shared_ptr<resolution>& asked) {
  {
    const std::lock_guard lock(mutex_);
    queued_.push_back(asked);
    if (!has_room()) {
      return;
    }
    ++threads_;
  }
  try {
    start();
  } catch (...) {
    const std::lock_guard lock(mutex_);
    --threads_;
    if (std::erase(queued_, asked) != 0) {
      throw;
    }  // else one that was through with its own has taken it
  }
}

void name_threads::abandon(resolution& asked) noexcept {
  {
    const std::lock_guard lock(mutex_);
    if (!asked.runs_) {
      std::erase_if(queued_, [&](const auto& one) { return one.get() == &asked; });
      return;
    }
    asked.abandoned_ = true;
    ++abandoned_;
    if (queued_.empty() || !has_room()) {
      return;
    }
    ++threads_;
  }
  try {
    start();
  } catch (const std::exception&) {
    const std::lock_guard lock(mutex_);
    --threads_;  // those that there are come to the queued ones
  }
}

// Its signals are for the program's own threads.
void name_threads::start() {
  const signals_blocked for_it;
  std::thread([these = shared_from_this()] { these->work(); }).detach();
}

void name_threads::work() noexcept {
  std::shared_ptr<resolution> asked;
  while ((asked = next(asked.get())) != nullptr) {
    asked->run();
    (void)asked->done->try_claim();
    asked->done->keep(asked->done);
  }
}

std::shared_ptr<name_threads::resolution> name_threads::next(resolution* done_with) noexcept {
  const std::lock_guard lock(mutex_);
  if (done_with != nullptr) {
    done_with->runs_ = false;
    abandoned_ -= done_with->abandoned_ ? 1 : 0;
  }
  if (queued_.empty() || threads_ - abandoned_ > most) {
    --threads_;
    return nullptr;
  }
  auto first = std::move(queued_.front());
  queued_.pop_front();
  first->runs_ = true;
  return first;
}

}  // namespace annulet::detail
