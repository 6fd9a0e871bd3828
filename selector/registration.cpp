#include "registration.hpp"

#include "selector_impl.hpp"

#include <cerrno>
#include <utility>

#include <poll.h>

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
  nest_.end();
  record_ = {};
}

std::uint16_t registration::interest() const noexcept {
  return static_cast<std::uint16_t>(nested() ? POLLIN : poll_mask(events()));
}

int registration::nest() noexcept {
  const int refusal = nest_.begin(number(), static_cast<std::uint16_t>(poll_mask(events())));
  if (refusal == 0) {
    retarget(nest_.fd());
  }
  return refusal;
}

int registration::renest() noexcept {
  return nest_.change(number(), static_cast<std::uint16_t>(poll_mask(events())));
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
