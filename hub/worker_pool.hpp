// Threads for calls that have no other way of not stopping the hub's thread. Internal.
//
// - bounded jobs (disks, computations) begin first come first served, when one of `bound` threads is free.
//   One that has run for long counts no more, for it waits for somebody, as it seems (there are regular
//   files behind which somebody has to act, and disks that never answer), and must not hold up the others.
//   But where many such run all the same, those that come wait for one of them to end;
// - urgent ones (calls that may wait for a peer) begin at once, beyond the bound if need be: a silent peer
//   holds up nobody else.
//
// A job is somewhere between submit and done in exactly one of these states: queued, running, ended. What a
// running one waits for in the kernel can be cut short by a signal that is directed at its thread.
//
// While bounded jobs are queued a thread without a job looks after them: it sleeps until the first of those
// that run has run for long, and begins the next. The first of the queued brings it along, and when it finds
// something to do itself another takes its place.
#pragma once

#include <annulet/runtime/intrusive_list.hpp>

#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <list>
#include <mutex>

#include <pthread.h>
#include <sys/types.h>

namespace annulet::detail {

class worker_pool {
 public:
  enum class urgency { bounded, urgent };

  // Belongs to who submits it, and stays until take_ended() has given it back, or withdraw() has.
  class job : public list_hook<> {
   public:
    // Called once, by a thread of the pool, with all signals blocked but the one that interrupts.
    virtual void run() noexcept = 0;
    // Called once on the hub's thread, by who has collected it when that was over. May delete it.
    virtual void ended() noexcept = 0;

   protected:
    virtual ~job() = default;

   private:
    friend class worker_pool;
    urgency how_ = urgency::bounded;
    bool queued_ = false;
    bool running_ = false;
    int signal_ = 0;      // that interrupts it; 0 where there is none to be had
    pthread_t thread_{};  // while it runs
    pid_t thread_number_ = 0;
    std::chrono::steady_clock::time_point counts_until_;
  };

  // `wake_fd`: an eventfd that is written to when a job has ended, or threads are missing. `patience`: how
  // long a bounded job counts.
  explicit worker_pool(int wake_fd,
                       std::chrono::nanoseconds patience = std::chrono::milliseconds(100)) noexcept
      : wake_fd_(wake_fd), patience_(patience) {}
  // No job may be left.
  ~worker_pool();
  worker_pool(const worker_pool&) = delete;
  worker_pool& operator=(const worker_pool&) = delete;

  // Those below are for the hub's thread.

  // False where there is no thread for it, and none can be had: then nothing has changed. A bounded one that
  // others are before waits for theirs, also where these do not end; it is told on stderr if that takes long.
  [[nodiscard]] bool submit(job& j, urgency how) noexcept;
  // True where it had not begun: it is not run.
  [[nodiscard]] bool withdraw(job& j) noexcept;
  // Ends what it waits for in the kernel with EINTR, if it waits. To be repeated until it has ended: it may
  // be just about to wait. The signals of repetitions do not pile up, however long it takes none. Returns the
  // number of the thread that runs it, for messages; 0 where none does.
  pid_t interrupt(job& j) noexcept;
  // One that has ended, or null.
  [[nodiscard]] job* take_ended() noexcept;
  // Where threads were not to be had that there is something to do for, tries again, now and then. False
  // where they are still missing: to be called again within some milliseconds, or a job may wait for ever.
  [[nodiscard]] bool tend() noexcept;

 private:
  static constexpr std::size_t bound = 4;
  static constexpr std::size_t most_slow = 60;  // so that bounded jobs have 64 threads at most

  static void* start(void* pool) noexcept;
  void work() noexcept;
  [[nodiscard]] job* next() noexcept;
  void perform(job& j, std::unique_lock<std::mutex>& lock) noexcept;
  void idle(std::unique_lock<std::mutex>& lock) noexcept;
  void notify(int how_many) noexcept;
  void discount_slow() noexcept;
  [[nodiscard]] std::size_t startable() const noexcept;
  // Whether others are queued, and may begin before one that runs has ended.
  [[nodiscard]] bool wants_watch() const noexcept {
    return bounded_queued_ > startable() && slow_ < most_slow;
  }
  [[nodiscard]] bool is_short() const noexcept;
  void note_shortage() noexcept;
  void report_shortage(std::chrono::steady_clock::time_point now) noexcept;
  bool find_threads() noexcept;
  void wake_one() noexcept;
  [[nodiscard]] bool add_thread() noexcept;
  void bury() noexcept;
  void ring() const noexcept;

  const int wake_fd_;
  const std::chrono::nanoseconds patience_;
  std::mutex mutex_;  // for all that follows
  // A futex, changed whenever there is news for those who idle. No condition variable: glibc's could lose a
  // wake-up (its bug 25847), and a job would wait for ever.
  std::atomic<std::uint32_t> news_{0};
  intrusive_list<job> urgent_;
  intrusive_list<job> bounded_;
  intrusive_list<job> counted_;  // bounded ones that run, the first to have begun at the front
  intrusive_list<job> ended_;
  std::list<pthread_t> alive_;
  std::list<pthread_t> leaving_;  // to be joined
  std::size_t urgent_queued_ = 0;
  std::size_t bounded_queued_ = 0;
  std::size_t bounded_running_ = 0;  // and count
  std::size_t slow_ = 0;             // bounded ones that run, and count no more
  std::size_t starting_ = 0;         // threads that are about to look for a job
  std::size_t idle_ = 0;
  std::size_t watching_ = 0;                            // of those, and look after the queued
  std::atomic<bool> short_of_threads_{false};           // changed under the mutex only
  std::chrono::steady_clock::time_point next_attempt_;  // to have one more
  std::chrono::steady_clock::time_point short_since_;
  bool shortage_reported_ = false;
  bool over_ = false;
};

}  // namespace annulet::detail
