#include "registration.hpp"

#include "selector_impl.hpp"

#include <annulet/hub/syscalls.hpp>

#include <cerrno>
#include <utility>

#include <sys/epoll.h>

namespace annulet::detail {

short poll_mask(io_event events) noexcept {
  return static_cast<short>((has(events, io_event::read) ? POLLIN : 0) |
                            (has(events, io_event::write) ? POLLOUT : 0));
}

io_event events_of(short revents) noexcept {
  io_event events = io_event::none;
  if ((revents & ~POLLOUT) != 0) {
    events |= io_event::read;
  }
  if ((revents & ~POLLIN) != 0) {
    events |= io_event::write;
  }
  return events;
}

std::string number_text(int fd) { return "descriptor " + std::to_string(fd); }

void registration::begin(const any_record& its_record) noexcept {
  (void)replace(its_record);
  unseen = 0;
  told = false;
  error = 0;
  closed = false;
}

any_record registration::replace(const any_record& its_record) noexcept {
  number_ = its_record.address()->fd;
  events_ = its_record.address()->events;
  return std::exchange(record_, its_record);
}

void registration::end() noexcept {
  leave_nest();
  record_ = {};
}

std::uint16_t registration::interest() const noexcept {
  return static_cast<std::uint16_t>(nested() ? POLLIN : poll_mask(events()));
}

namespace {

// The errno of what cannot be watched, or 0. EBADF is for poll(2) to tell (POLLNVAL); what epoll refuses with
// EPERM is always ready, and so is asked about in every select.
int watch_by_epoll(int epoll, int operation, int fd, short mask) noexcept {
  epoll_event event{static_cast<std::uint32_t>(mask), {}};  // EPOLLIN and EPOLLOUT have poll(2)'s values
  const int error = kernel(SYS_epoll_ctl, epoll, operation, fd, &event).error();
  return error == EBADF || error == EPERM ? 0 : error;
}

}  // namespace

int registration::nest() noexcept {
  const auto made = kernel(SYS_epoll_create1, EPOLL_CLOEXEC);
  if (!made.ok()) {
    return made.error();
  }
  nest_ = static_cast<int>(made.value());
  if (const int refusal = watch_by_epoll(nest_, EPOLL_CTL_ADD, number(), poll_mask(events())); refusal != 0) {
    leave_nest();
    return refusal;
  }
  retarget(nest_);
  return 0;
}

int registration::renest() noexcept {
  const int refusal = watch_by_epoll(nest_, EPOLL_CTL_MOD, number(), poll_mask(events()));
  // Closed behind the hub's back, and the number has another file now.
  return refusal == ENOENT ? watch_by_epoll(nest_, EPOLL_CTL_ADD, number(), poll_mask(events())) : refusal;
}

void registration::leave_nest() noexcept {
  if (nest_ >= 0) {
    (void)kernel(SYS_close, nest_);
    nest_ = -1;
  }
}

void registration::on_event(io_result mask) noexcept {
  told = true;
  // EBADF needs no further word: the descriptor was closed behind the hub's back, and poll(2) will say so.
  if (!mask.ok() && mask.error() != EBADF) {
    error = mask.error();
  }
  owner_.note_event(*this);
}

void registration::on_close() noexcept {
  closed = true;
  owner_.note(*this);
}

}  // namespace annulet::detail
