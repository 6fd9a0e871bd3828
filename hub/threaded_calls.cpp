#include "threaded_calls.hpp"

#include <cerrno>

namespace annulet::detail {

bool threaded_calls::submit(threaded_call& call) noexcept {
  call.submitted = submit(call, call.how_urgent());
  if (!call.submitted) {
    finish(call, io_result(-ENOMEM));
    return false;
  }
  return true;
}

bool threaded_calls::submit(worker_pool::job& j, worker_pool::urgency how) noexcept {
  if (!pool_) {
    pool_.emplace(wake_fd_);
  }
  if (!pool_->submit(j, how)) {
    return false;
  }
  ++submitted_;
  return true;
}

bool threaded_calls::withdraw(worker_pool::job& j) noexcept {
  if (!pool_->withdraw(j)) {
    return false;
  }
  --submitted_;
  return true;
}

// One that is urgent has a thread, if only on its way: it has its look, as a deadline in the past wants it,
// and is interrupted when that has begun.
void threaded_calls::cancel(threaded_call& call) noexcept {
  if (call.how_urgent() == worker_pool::urgency::bounded && withdraw(call)) {
    finish(call, io_result(-ECANCELED));
  } else {
    const pid_t thread = pool_->interrupt(call);
    call.report_if_stuck(thread);
  }
}

void threaded_calls::collect() noexcept {
  while (submitted_ != 0) {
    worker_pool::job* const ended = pool_->take_ended();
    if (ended == nullptr) {
      (void)pool_->tend();
      return;
    }
    --submitted_;
    ended->ended();
  }
}

void threaded_calls::finish(threaded_call& call, io_result result) noexcept {
  request& r = call.of();
  delete &call;
  r.complete(result);
}

}  // namespace annulet::detail
