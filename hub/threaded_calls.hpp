// What an engine has threads do, requests and other jobs, and the way back to the hub's thread. Internal.
#pragma once

#include "threaded_call.hpp"
#include "worker_pool.hpp"

#include <annulet/runtime/deadline.hpp>

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <optional>

namespace annulet::detail {

// For the hub's thread. All that was submitted must have been collected before it is destroyed.
class threaded_calls {
 public:
  // `wake_fd`: an eventfd that is written to when a call has ended.
  explicit threaded_calls(int wake_fd) noexcept : wake_fd_(wake_fd) {}

  // From now on it is a thread's. False where there is none to be had: its request has completed, with
  // ENOMEM.
  bool submit(threaded_call& call) noexcept;
  // The same for any other job. Where there is no thread to be had nothing has happened.
  bool submit(worker_pool::job& j, worker_pool::urgency how) noexcept;
  // True where it had not begun: it is not run, and the caller's again.
  bool withdraw(worker_pool::job& j) noexcept;
  // Whether nothing is under way.
  [[nodiscard]] bool none() const noexcept { return submitted_ == 0; }

  // One that waits for a thread completes as cancelled; one that a thread has is interrupted, if it waits.
  void cancel(threaded_call& call) noexcept;
  // Tells those that have ended. Costs nothing where none is under way.
  void collect() noexcept;
  // Where threads are missing, asks for them again now and then. False where they still are: to be called
  // again soon. Costs nothing where no call is under way.
  bool tend() noexcept { return submitted_ == 0 || pool_->tend(); }
  // Before a wait: how long it may be.
  [[nodiscard]] deadline limit(deadline until) noexcept {
    return tend() ? until : std::min(until, deadline(std::chrono::milliseconds(10)));
  }

  // Completes the request and forgets the call.
  static void finish(threaded_call& call, io_result result) noexcept;

 private:
  const int wake_fd_;
  std::size_t submitted_ = 0;
  std::optional<worker_pool> pool_;  // when it is first needed
};

}  // namespace annulet::detail
