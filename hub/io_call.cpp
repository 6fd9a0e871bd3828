#include "io_call.hpp"

#include "io_error.hpp"
#include "syscalls.hpp"

#include <fcntl.h>

namespace annulet::detail {

// Who runs meanwhile may close the number, and it may be another's afterwards.
void io_call::let_others_run() {
  if (file_ == nullptr) {
    if (const io_result open = kernel(SYS_fcntl, fd_, F_GETFD); !open.ok()) {
      throw_io_error(open.error(), name_, fd_);
    }
    learn_of_file();
  }
  hub_.fibers().breathe_now();
  require_open();
}

void io_call::throw_closed(const char* name, int fd) { throw_io_error(EBADF, name, fd); }

void io_call::breathe_between() {
  if (!has_turn_) {
    (void)take_turn(deadline::never());  // nobody has it: the step before was not in one
  }
  hub_.fibers().breathe(1);
  require_open();
}

void io_call::learn_of_file() {
  file_ = &hub_.state_of(fd_);
  incarnation_ = file_->incarnation();
}

// The ring says EAGAIN of a disk's file that is O_NONBLOCK, where it would have to wait for the disk.
std::optional<io_result> io_call::request_beside(const operation& what, deadline until) {
  if (file_ == nullptr) {
    learn_of_file();
  }
  const auto result = perform(what, until);
  if (!result || result->error() != EAGAIN) {
    return result;
  }
  operation by_thread = what;
  by_thread.by_thread = true;
  return perform(by_thread, until);
}

void io_call::breathe_beside() {
  if (file_ == nullptr) {
    learn_of_file();
  }
  hub_.fibers().breathe(1);
  require_open();
}

bool io_call::stand_in_line(deadline until) {
  if (until.is_past()) {
    return false;
  }
  waiter w(hub_.fibers().running(), name_, fd_);
  file_->side(direction_).line.push_back(w);
  has_turn_ = hub_.fibers().park(w, until, wakers::outside) == wake_reason::ready;
  require_open();
  return has_turn_;
}

}  // namespace annulet::detail
