#include "file_waits.hpp"

#include "call_signals.hpp"
#include "hub_core.hpp"

#include <annulet/runtime/switching.hpp>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <utility>

#include <poll.h>

namespace annulet::detail {

void file_waits::file::begin(file_waits& owner, int number, std::uint16_t mask) noexcept {
  owner_ = &owner;
  number_ = number;
  mask_ = static_cast<std::uint16_t>(mask | POLLERR | POLLHUP);
}

// EBADF needs no further word: poll(2) says that the number is closed.
void file_waits::file::on_event(io_result mask) noexcept {
  if (mask.error() == EINVAL && !nest_.exists()) {
    refused_ = true;
  } else if (!mask.ok() && mask.error() != EBADF) {
    unwatched_ = owner_->any_unwatched_ = true;
  }
  owner_->tell();
}

void file_waits::file::on_close() noexcept {
  closed = owner_->any_closed_ = true;
  owner_->tell();
}

file_waits::~file_waits() {
  if (count_ != 0) {
    hub_.detach({watches_, count_});
  }
}

void file_waits::make_room(std::size_t files) {
  if (files > some) {
    many_ = std::make_unique<file[]>(files);
    many_watches_ = std::make_unique<watch*[]>(files);
    files_ = many_.get();
    watches_ = many_watches_.get();
  }
}

void file_waits::add(int fd, std::uint16_t mask) {
  file& f = files_[count_];
  f.begin(*this, fd, mask);
  hub_.attach(f, fd);
  watches_[count_++] = &f;
  if (const fd_state* const known = hub_.find_state(fd); known != nullptr && known->closing()) {
    f.closed = any_closed_ = true;  // all but its number
  }
}

void file_waits::arm(file& f) noexcept {
  if (f.closed || f.armed() || f.unwatched_) {
    return;
  }
  // One event ends the request, which then has not to be taken back. But one that was nothing, a hang-up that
  // the call does not ask about, would come again at once; so from then on a request stays, and tells it
  // once. One that does not stay has a file with nothing to wait for, of which epoll knows that.
  f.once_ = f.armings_ == 0;
  if ((std::exchange(f.refused_, false) || f.armings_ > 1) && !f.nest_.exists()) {
    if (f.nest_.begin(f.number_, f.mask_) != 0) {
      f.unwatched_ = any_unwatched_ = true;
      return;
    }
    f.retarget(f.nest_.fd());
  }
  f.armings_ = static_cast<std::uint8_t>(std::min(f.armings_ + 1, 2));
  hub_.io().set_interest(f, f.nest_.exists() ? std::uint16_t{POLLIN} : f.mask_);
}

void file_waits::tell() noexcept {
  if (sleeper_ != nullptr) {
    std::exchange(sleeper_, nullptr)->wake(wake_reason::ready);
  }
}

wake_reason file_waits::park(deadline until, const signal_terms& signals) {
  scheduler& fibers = hub_.fibers();
  if (fibers.is_interrupted()) {
    fibers.breathe_quietly(1);  // its caller may try for ever
    return wake_reason::interrupted;
  }
  if (any_closed_) {
    return wake_reason::ready;
  }
  for (std::size_t i = 0; i < count_; ++i) {
    arm(files_[i]);
  }
  waiter w(fibers.running(), name_, fd_);
  parked_call self(w, signals.mask, signals.restarts);
  hub_.signals().add(self);
  sleeper_ = &w;
  const deadline look = any_unwatched_ ? deadline(std::chrono::milliseconds(1)) : deadline::never();
  const wake_reason why = fibers.park_and_tell(w, std::min(until, look), wakers::outside);
  sleeper_ = nullptr;
  hub_.signals().remove(self);
  return why == wake_reason::timed_out && look < until ? wake_reason::ready : why;
}

}  // namespace annulet::detail
