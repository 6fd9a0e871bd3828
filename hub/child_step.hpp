// The look at a child's end that does not wait, by a pidfd; its readiness tells when to look again. Internal.
#pragma once

#include "child.hpp"
#include "io_step.hpp"

#include <optional>

namespace annulet::detail {

class child_step final : public io_step {
 public:
  // Whether the status is taken, and the child gone, or it is only to have ended.
  enum class form { take, leave };

  child_step(int pidfd, form how) noexcept : io_step(pidfd, direction::reading), form_(how) {}

  outcome attempt() noexcept;
  [[nodiscard]] operation as_operation() const noexcept { return {}; }  // it always has an answer
  // Takes the status of one that is ending. The thread waits.
  static void await(int pidfd) noexcept;

  // After one that is done, and in order.
  [[nodiscard]] const std::optional<exit_status>& status() const noexcept { return status_; }

 private:
  form form_;
  std::optional<exit_status> status_;
};

// A pidfd of a process: the number, or -errno.
[[nodiscard]] io_result open_pidfd(pid_t pid) noexcept;

}  // namespace annulet::detail
