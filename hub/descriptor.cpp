#include "descriptor.hpp"

#include "fd_state.hpp"
#include "hub_core.hpp"
#include "io.hpp"
#include "io_error.hpp"
#include "io_step.hpp"
#include "syscalls.hpp"

#include <annulet/runtime/check.hpp>

#include <cerrno>
#include <utility>

#include <fcntl.h>

namespace annulet {

descriptor::descriptor(detail::fd_state& file, std::shared_ptr<detail::hub_link> link) noexcept
    : fd_(file.number()), incarnation_(file.incarnation()), file_(&file), link_(std::move(link)) {}

descriptor::~descriptor() { drop(); }

descriptor::descriptor(descriptor&& other) noexcept
    : fd_(std::exchange(other.fd_, -1)),
      incarnation_(other.incarnation_),
      file_(other.file_),
      link_(std::move(other.link_)) {}

descriptor& descriptor::operator=(descriptor&& other) noexcept {
  if (this != &other) {
    drop();
    fd_ = std::exchange(other.fd_, -1);
    incarnation_ = other.incarnation_;
    file_ = other.file_;
    link_ = std::move(other.link_);
  }
  return *this;
}

void descriptor::drop() noexcept {
  if (fd_ < 0) {
    return;
  }
  const int fd = std::exchange(fd_, -1);
  const auto link = std::move(link_);
  detail::hub_core* const hub = link->hub.load(std::memory_order_acquire);
  detail::check(hub == nullptr || hub == detail::hub_core::current(),
                "a descriptor was destroyed on another thread than its hub's while the hub was alive");
  if (file_->incarnation() != incarnation_) {
    return;  // closed by its number, which may be another's
  }
  if (hub != nullptr) {
    const bool awaited = file_->closing();  // by a dup2 onto it, which will see to the number
    hub->prepare_close(*file_);
    if (awaited || file_->has_requests()) {
      file_->close_after_requests();
      return;
    }
    file_->end_closing();
  }
  (void)detail::kernel(SYS_close, fd);
}

descriptor descriptor::adopt(int fd) {
  constexpr const char* call = "descriptor::adopt";
  detail::hub_core& hub = detail::hub_core::here(call);
  if (const auto open = detail::kernel(SYS_fcntl, fd, F_GETFD); !open.ok()) {
    detail::throw_io_error(open.error(), call, fd);
  }
  detail::fd_state& file = hub.state_of(fd);
  if (file.closing()) {
    detail::throw_io_error(EBADF, call, fd);
  }
  if (file.owned()) {
    detail::throw_io_error(EEXIST, call, fd);
  }
  file.own(detail::kind_of(fd));
  return {file, hub.link()};
}

// Whoever had the number before has lost it: the kernel has given it out anew.
descriptor detail::adopt_new(hub_core& hub, int fd, file_kind kind) {
  try {
    fd_state& file = hub.state_of(fd);
    if (file.in_use() || file.closing()) {
      hub.prepare_close(file);
      file.end_closing();
    }
    file.own(kind);
    return {file, hub.link()};
  } catch (...) {
    (void)kernel(SYS_close, fd);
    throw;
  }
}

// Owns nothing any more, whatever comes of the rest. While a dup2 onto it waits nothing is given up: it may
// fail.
descriptor::given_up descriptor::give_up(const char* call) {
  if (fd_ < 0) {
    detail::throw_io_error(EBADF, call, fd_);
  }
  detail::hub_core& hub = detail::hub_core::of(*link_, call);
  const bool closed = file_->incarnation() != incarnation_;  // by its number
  if (!closed && file_->closing()) {
    detail::throw_io_error(EBADF, call, fd_);
  }
  const int fd = std::exchange(fd_, -1);
  const auto link = std::move(link_);
  if (closed) {
    detail::throw_io_error(EBADF, call, fd);
  }
  return {hub, *file_, fd};
}

int descriptor::release() {
  const given_up own = give_up("descriptor::release");
  own.file.begin_release();  // selectors go on watching it
  own.file.await_requests();
  own.file.end_closing();
  return own.fd;
}

void descriptor::close() {
  constexpr const char* call = "descriptor::close";
  const given_up own = give_up(call);
  own.hub.prepare_close_and_wait(own.file);  // also where the number was closed behind the hub's back
  if (const auto closed = own.hub.close_number(own.fd); !closed.ok()) {
    detail::throw_io_error(closed.error(), call, own.fd);
  }
}

std::size_t descriptor::read(mutable_buffer into, deadline until) const {
  return annulet::read(*this, into, until);
}
std::size_t descriptor::write(const_buffer from, deadline until) const {
  return annulet::write(*this, from, until);
}
std::size_t descriptor::readv(std::span<const iovec> into, deadline until) const {
  return annulet::readv(*this, into, until);
}
std::size_t descriptor::writev(std::span<const iovec> from, deadline until) const {
  return annulet::writev(*this, from, until);
}
std::size_t descriptor::recv(mutable_buffer into, deadline until) const {
  return annulet::recv(*this, into, until);
}
std::size_t descriptor::recv(mutable_buffer into, message_flags flags, deadline until) const {
  return annulet::recv(*this, into, flags, until);
}
std::size_t descriptor::send(const_buffer from, deadline until) const {
  return annulet::send(*this, from, until);
}
std::size_t descriptor::send(const_buffer from, message_flags flags, deadline until) const {
  return annulet::send(*this, from, flags, until);
}
std::size_t descriptor::recvfrom(mutable_buffer into, socket_address& sender, message_flags flags,
                                 deadline until) const {
  return annulet::recvfrom(*this, into, sender, flags, until);
}
std::size_t descriptor::sendto(const_buffer from, const socket_address& receiver, message_flags flags,
                               deadline until) const {
  return annulet::sendto(*this, from, receiver, flags, until);
}
std::size_t descriptor::read_exactly(mutable_buffer into, deadline until, std::size_t* done) const {
  return annulet::read_exactly(*this, into, until, done);
}
void descriptor::write_all(const_buffer from, deadline until, std::size_t* done) const {
  annulet::write_all(*this, from, until, done);
}
descriptor descriptor::accept(deadline until) const { return annulet::accept(*this, until); }
descriptor descriptor::accept(socket_address& peer, deadline until) const {
  return annulet::accept(*this, peer, until);
}
void descriptor::connect(const socket_address& peer, deadline until) const {
  annulet::connect(*this, peer, until);
}
std::optional<std::size_t> descriptor::try_read(mutable_buffer into) const {
  return annulet::try_read(*this, into);
}
std::optional<std::size_t> descriptor::try_write(const_buffer from) const {
  return annulet::try_write(*this, from);
}
std::optional<std::size_t> descriptor::try_recv(mutable_buffer into, message_flags flags) const {
  return annulet::try_recv(*this, into, flags);
}
std::optional<std::size_t> descriptor::try_send(const_buffer from, message_flags flags) const {
  return annulet::try_send(*this, from, flags);
}
std::optional<descriptor> descriptor::try_accept() const { return annulet::try_accept(*this); }

}  // namespace annulet
