#include "worker_pool.hpp"

#include "interrupting_signal.hpp"
#include "syscalls.hpp"
#include "wake_up.hpp"

#include <annulet/runtime/check.hpp>

#include <algorithm>
#include <csignal>
#include <cstdint>
#include <limits>
#include <new>

#include <linux/futex.h>
#include <time.h>
#include <unistd.h>

namespace annulet::detail {

worker_pool::~worker_pool() {
  std::unique_lock lock(mutex_);
  over_ = true;
  notify(std::numeric_limits<int>::max());
  while (!alive_.empty() || !leaving_.empty()) {
    const pthread_t next = leaving_.empty() ? alive_.front() : leaving_.front();
    lock.unlock();
    pthread_join(next, nullptr);
    lock.lock();
    std::erase_if(leaving_, [&](pthread_t t) { return pthread_equal(t, next) != 0; });
  }
}

// Refused where there is no thread at all for its kind. Others wait for those that are missing.
bool worker_pool::submit(job& j, urgency how) noexcept {
  const int signal = choose_interrupting_signal();
  const std::unique_lock lock(mutex_);
  bury();
  discount_slow();
  const bool urgent = how == urgency::urgent;
  const bool alone = bounded_running_ + bounded_queued_ + slow_ == 0;
  std::size_t& queued = urgent ? urgent_queued_ : bounded_queued_;
  ++queued;
  (urgent ? urgent_ : bounded_).push_back(j);
  if (!find_threads() && (urgent ? starting_ + idle_ < urgent_queued_ : alone)) {
    j.unlink();
    --queued;
    note_shortage();
    return false;
  }
  j.how_ = how;
  j.signal_ = signal;
  j.queued_ = true;
  return true;
}

// How many bounded jobs may begin at once.
std::size_t worker_pool::startable() const noexcept {
  return std::min(bounded_queued_, bound - bounded_running_);
}

// Whether fewer threads idle, or are about to look for a job, than there is something to do for: one for each
// job that may begin, and one that looks after the others.
bool worker_pool::is_short() const noexcept {
  return starting_ + idle_ < urgent_queued_ + startable() + (wants_watch() ? 1 : 0);
}

void worker_pool::note_shortage() noexcept {
  const bool is = is_short();
  if (is && !short_of_threads_) {
    short_since_ = std::chrono::steady_clock::now();
    shortage_reported_ = false;
  }
  short_of_threads_.store(is, std::memory_order_relaxed);
}

void worker_pool::report_shortage(std::chrono::steady_clock::time_point now) noexcept {
  if (shortage_reported_ || urgent_queued_ + startable() == 0 || now - short_since_ < 50 * patience_) {
    return;
  }
  shortage_reported_ = true;
  report("a call has been waiting for a thread for long, and none is to be had");
}

// Starts those that are missing. False where some are not to be had now.
bool worker_pool::find_threads() noexcept {
  while (is_short()) {
    if (!add_thread()) {
      next_attempt_ = std::chrono::steady_clock::now() + std::chrono::milliseconds(10);
      break;
    }
  }
  note_shortage();
  wake_one();
  return !short_of_threads_;
}

// If there is something to do for it.
void worker_pool::wake_one() noexcept {
  if (urgent_queued_ + startable() != 0 || (wants_watch() && watching_ == 0)) {
    notify(1);
  }
}

bool worker_pool::tend() noexcept {
  if (!short_of_threads_.load(std::memory_order_relaxed)) {
    return true;
  }
  const std::unique_lock lock(mutex_);
  discount_slow();
  const auto now = std::chrono::steady_clock::now();
  if (now < next_attempt_) {
    return false;
  }
  if (!find_threads()) {
    report_shortage(now);
    return false;
  }
  return true;
}

bool worker_pool::withdraw(job& j) noexcept {
  const std::unique_lock lock(mutex_);
  if (!j.queued_) {
    return false;
  }
  j.queued_ = false;
  j.unlink();
  --(j.how_ == urgency::urgent ? urgent_queued_ : bounded_queued_);
  return true;
}

// Under the lock, so that the thread is at this job still, and no signal is left for the next.
pid_t worker_pool::interrupt(job& j) noexcept {
  const std::unique_lock lock(mutex_);
  if (j.running_ && j.signal_ != 0) {
    arm_interrupting_signal(j.signal_);
    pthread_kill(j.thread_, j.signal_);
  }
  return j.running_ ? j.thread_number_ : 0;
}

worker_pool::job* worker_pool::take_ended() noexcept {
  const std::unique_lock lock(mutex_);
  bury();
  return ended_.empty() ? nullptr : &ended_.pop_front();
}

// A thread that has left may still have some way to go to its end: that is not waited for here.
void worker_pool::bury() noexcept {
  std::erase_if(leaving_, [](pthread_t thread) { return pthread_tryjoin_np(thread, nullptr) == 0; });
}

// --- the threads

// Its stack is of the size that the program's threads have: the thread-local variables of all libraries are
// taken out of it, and only what is touched costs memory.
bool worker_pool::add_thread() noexcept {
  // It begins with all signals blocked: they are for the program's own threads.
  sigset_t all;
  sigset_t before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  bool added = false;
  try {
    pthread_t& thread = alive_.emplace_back();
    added = pthread_create(&thread, nullptr, &start, this) == 0;
    if (added) {
      ++starting_;
    } else {
      alive_.pop_back();
    }
  } catch (const std::bad_alloc&) {
    // Then there is no more of them, as where no thread can be had.
  }
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
  return added;
}

void* worker_pool::start(void* pool) noexcept {
  static_cast<worker_pool*>(pool)->work();
  return nullptr;
}

worker_pool::job* worker_pool::next() noexcept {
  if (!urgent_.empty()) {
    --urgent_queued_;
    return &urgent_.pop_front();
  }
  if (!bounded_.empty() && bounded_running_ < bound) {
    --bounded_queued_;
    ++bounded_running_;
    job& j = bounded_.pop_front();
    j.counts_until_ = std::chrono::steady_clock::now() + patience_;
    counted_.push_back(j);
    return &j;
  }
  return nullptr;
}

void worker_pool::discount_slow() noexcept {
  if (counted_.empty()) {
    return;
  }
  const auto now = std::chrono::steady_clock::now();
  while (!counted_.empty() && slow_ < most_slow && counted_.front().counts_until_ <= now) {
    counted_.pop_front();
    --bounded_running_;
    ++slow_;
  }
}

void worker_pool::notify(int how_many) noexcept {
  news_.fetch_add(1, std::memory_order_relaxed);
  if (idle_ != 0) {
    (void)kernel(SYS_futex, &news_, FUTEX_WAKE_PRIVATE, how_many);
  }
}

// Until there is news, or a job has run for so long that a queued one may begin.
void worker_pool::idle(std::unique_lock<std::mutex>& lock) noexcept {
  const std::uint32_t seen = news_.load(std::memory_order_relaxed);
  const std::size_t watches = wants_watch() ? 1 : 0;  // as many as the bound run then, and count
  timespec limit{};
  if (watches != 0) {
    const std::chrono::nanoseconds rest = counted_.front().counts_until_ - std::chrono::steady_clock::now();
    constexpr std::int64_t second = 1'000'000'000;
    const std::int64_t count = std::max<std::int64_t>(rest.count(), 0);
    limit = {count / second, count % second};
  }
  ++idle_;
  watching_ += watches;
  lock.unlock();
  (void)kernel(SYS_futex, &news_, FUTEX_WAIT_PRIVATE, seen, watches != 0 ? &limit : nullptr);
  lock.lock();
  --idle_;
  watching_ -= watches;
  discount_slow();
}

// As many threads are kept for the next jobs as run bounded ones, and one that looks after others; those
// beyond leave.
void worker_pool::work() noexcept {
  std::unique_lock lock(mutex_);
  --starting_;
  for (;;) {
    if (job* const j = next()) {
      if (short_of_threads_) {
        wake_one();
      } else if (!find_threads()) {
        ring();  // from now on the hub comes by
      }
      perform(*j, lock);
    } else if (over_ || (idle_ > bound && (!wants_watch() || watching_ != 0))) {
      break;
    } else {
      idle(lock);
    }
  }
  const auto self =
      std::ranges::find_if(alive_, [](pthread_t t) { return pthread_equal(t, pthread_self()) != 0; });
  leaving_.splice(leaving_.end(), alive_, self);
}

// The signal is let in for the job alone. One that came too late for the job before is taken in at once.
void worker_pool::perform(job& j, std::unique_lock<std::mutex>& lock) noexcept {
  j.queued_ = false;
  j.running_ = true;
  j.thread_ = pthread_self();
  j.thread_number_ = ::gettid();
  lock.unlock();
  sigset_t interrupting;
  sigemptyset(&interrupting);
  if (j.signal_ != 0) {
    sigaddset(&interrupting, j.signal_);
  }
  pthread_sigmask(SIG_UNBLOCK, &interrupting, nullptr);
  j.run();
  pthread_sigmask(SIG_BLOCK, &interrupting, nullptr);
  lock.lock();
  j.running_ = false;
  if (j.linked()) {  // it still counts
    j.unlink();
    --bounded_running_;
  } else if (j.how_ == urgency::bounded) {
    --slow_;
  }
  ended_.push_back(j);
  ++starting_;    // to look for the next job, which may be submitted before it does
  lock.unlock();  // who is rung comes for the job at once
  ring();
  lock.lock();
  --starting_;
}

void worker_pool::ring() const noexcept { wake_up(wake_fd_); }

}  // namespace annulet::detail
