// Has the kernel carry out one operation, and parks meanwhile, to its last completion. Internal.
#pragma once

#include "file_waits.hpp"
#include "hub_core.hpp"
#include "request.hpp"

#include <annulet/runtime/deadline.hpp>
#include <annulet/runtime/scheduler.hpp>

#include <cerrno>
#include <optional>

namespace annulet::detail {

// One attempt.
class carrying {
 public:
  // `name` and `fd`: for lists of what fibers wait for. `signals`: how they end it; without, none does. With
  // `park_uninterrupted` neither they do, nor a kill or a guard.
  using park_function = wake_reason (scheduler::*)(waiter&, deadline, wakers);
  carrying(hub_core& hub, request& r, const char* name, int fd, const signal_terms* signals = nullptr,
           park_function park = &scheduler::park_and_tell) noexcept
      : hub_(hub), request_(r), name_(name), fd_(fd), signals_(signals), park_(park) {}

  // Returns when the request is complete; it was called off where something came before that.
  void out(const operation& what, deadline until);
  // The same for one on a descriptor, whose closing has to wait for it.
  void out_on(fd_state& file, const operation& what, deadline until);
  // What came first: `ready`, or why it was called off. It may have been done all the same.
  [[nodiscard]] wake_reason why() const noexcept { return why_; }
  // It has done nothing: it was called off in time, or a signal came.
  [[nodiscard]] bool ended_early() const noexcept {
    const int error = request_.result().error();
    return error == EINTR || (error == ECANCELED && why_ != wake_reason::ready);
  }

 private:
  wake_reason await_completion(deadline until, park_function park);
  void call_off();

  hub_core& hub_;
  request& request_;
  const char* const name_;
  const int fd_;
  const signal_terms* const signals_;
  const park_function park_;
  wake_reason why_ = wake_reason::none;
};

// For an operation on no descriptor. Says nothing where the deadline came first; throws interruptions. What
// the kernel has done counts, whatever came between.
[[nodiscard]] std::optional<io_result> carry_out(hub_core& hub, const char* name, const operation& what,
                                                 deadline until);

}  // namespace annulet::detail
