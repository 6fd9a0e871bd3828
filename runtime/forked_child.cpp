// What becomes of a scheduler in a forked child, where none of its fibers runs but the one that called fork.

#include "errors.hpp"
#include "scheduler.hpp"

#include <cstdlib>
#include <utility>

namespace annulet::detail {

constinit scheduler* scheduler::left_ = nullptr;

// What its fibers wait for may go before them: that makes them ready here, where they never run.
void scheduler::leave_to_parent() noexcept {
  left_to_parent_ = true;
  next_left_ = std::exchange(left_, this);
  if (current_ == this) {
    current_ = nullptr;
  }
}

bool scheduler::is_left_to_parent(const scheduler* maybe) noexcept {
  const scheduler* each = left_;
  while (each != nullptr && each != maybe) {
    each = each->next_left_;
  }
  return each != nullptr;
}

void scheduler::end_forked_child(const char* whose, const std::exception_ptr& error) noexcept {
  if (error != nullptr) {
    report_uncollected(whose, error);
  }
  std::exit(error != nullptr ? EXIT_FAILURE : EXIT_SUCCESS);
}

}  // namespace annulet::detail
