#include "name_threads.hpp"

#include <csignal>
#include <system_error>
#include <thread>
#include <utility>

namespace annulet::detail {

namespace {

// They are for the program's own threads.
class all_signals_blocked {
 public:
  all_signals_blocked() noexcept {
    sigset_t all;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before_);
  }
  ~all_signals_blocked() { pthread_sigmask(SIG_SETMASK, &before_, nullptr); }
  all_signals_blocked(const all_signals_blocked&) = delete;
  all_signals_blocked& operator=(const all_signals_blocked&) = delete;

 private:
  sigset_t before_{};
};

}  // namespace

void name_threads::submit(const std::shared_ptr<name_threads>& these, std::shared_ptr<resolution> asked) {
  const std::lock_guard lock(these->mutex_);
  these->queued_.push_back(std::move(asked));
  if (these->threads_ == most) {
    return;
  }
  try {
    start(these);
    ++these->threads_;
  } catch (...) {
    if (these->threads_ == 0) {
      these->queued_.pop_back();
      throw;
    }  // else one that there is comes to it
  }
}

void name_threads::withdraw(const resolution& asked) noexcept {
  const std::lock_guard lock(mutex_);
  std::erase_if(queued_, [&](const auto& one) { return one.get() == &asked; });
}

void name_threads::start(const std::shared_ptr<name_threads>& these) {
  const all_signals_blocked for_it;
  std::thread([these] { work(these); }).detach();
}

std::shared_ptr<name_threads::resolution> name_threads::next() noexcept {
  const std::lock_guard lock(mutex_);
  if (queued_.empty()) {
    --threads_;
    return nullptr;
  }
  auto first = std::move(queued_.front());
  queued_.pop_front();
  return first;
}

void name_threads::work(const std::shared_ptr<name_threads>& these) noexcept {
  while (const auto asked = these->next()) {
    asked->run();
    (void)asked->done->try_claim();
    asked->done->keep(asked->done);
  }
}

}  // namespace annulet::detail
