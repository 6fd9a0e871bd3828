#include "io_call.hpp"

#include "io_error.hpp"
#include "syscalls.hpp"

#include <fcntl.h>

namespace annulet::detail {

hub_core& io_call::hub_of(const file_ref& file, const char* name) {
  if (file.owner_ == nullptr) {
    return hub_core::here(name);
  }
  if (file.owner_->link_ == nullptr) {
    throw_io_error(EBADF, name, file.fd_);  // it owns nothing
  }
  return hub_core::of(*file.owner_->link_, name);
}

io_call::io_call(const file_ref& file, direction d, const char* name)
    : hub_(hub_of(file, name)),
      file_(file.owner_ != nullptr ? file.owner_->file_ : hub_.find_state(file.fd_)),
      name_(name),
      fd_(file.fd_),
      incarnation_(file_ == nullptr ? 0 : file_->incarnation()),
      direction_(d),
      owner_asks_(file.owner_ != nullptr) {
  const bool lost = owner_asks_ && incarnation_ != file.owner_->incarnation_;
  if (lost || (file_ != nullptr && file_->closing())) [[unlikely]] {
    throw_io_error(EBADF, name, fd_);
  }
  if (hub_.fibers().due_to_breathe(1)) [[unlikely]] {
    let_others_run();
  }
}

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

void io_call::throw_closed() const { throw_io_error(EBADF, name_, fd_); }

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

bool io_call::stand_in_line(deadline until) {
  if (until.is_past()) {
    return false;
  }
  waiter w(hub_.fibers().running());
  file_->side(direction_).line.push_back(w);
  has_turn_ = hub_.fibers().park(w, until, wakers::outside) == wake_reason::ready;
  require_open();
  return has_turn_;
}

void io_call::give_turn_back() noexcept {
  if (file_->incarnation() != incarnation_) {
    return;
  }
  fd_state::lane& lane = file_->side(direction_);
  if (!lane.line.empty()) {
    lane.line.front().wake(wake_reason::ready);  // it is handed on
    return;
  }
  lane.held = false;
  if (!file_->owned() && file_->free(direction::reading) && file_->free(direction::writing)) {
    file_->disarm();
  }
}

}  // namespace annulet::detail
