#include "descriptor.hpp"

#include "fd_state.hpp"
#include "hub_core.hpp"
#include "io.hpp"
#include "io_step.hpp"
#include "syscalls.hpp"

#include <annulet/runtime/check.hpp>

#include <cerrno>
#include <utility>

#include <fcntl.h>

namespace annulet {

namespace {

// What the hub knows of it, where it is this object's still. Null where the number was closed meanwhile.
detail::fd_state* own_state(detail::hub_core& hub, int fd, std::uint32_t incarnation) noexcept {
  detail::fd_state* const file = hub.find_state(fd);
  return file != nullptr && file->incarnation() == incarnation ? file : nullptr;
}

}  // namespace

descriptor::descriptor(int fd, std::uint32_t incarnation, std::shared_ptr<detail::hub_link> link) noexcept
    : fd_(fd), incarnation_(incarnation), link_(std::move(link)) {}

descriptor::~descriptor() { drop(); }

descriptor::descriptor(descriptor&& other) noexcept
    : fd_(std::exchange(other.fd_, -1)), incarnation_(other.incarnation_), link_(std::move(other.link_)) {}

descriptor& descriptor::operator=(descriptor&& other) noexcept {
  if (this != &other) {
    drop();
    fd_ = std::exchange(other.fd_, -1);
    incarnation_ = other.incarnation_;
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
  if (hub == nullptr) {
    (void)detail::kernel(SYS_close, fd);
    return;
  }
  detail::check(hub == detail::hub_core::current(),
                "a descriptor was destroyed on another thread than its hub's while the hub was alive");
  detail::fd_state* const file = own_state(*hub, fd, incarnation_);
  if (file == nullptr) {
    return;  // closed by its number, which may be another's
  }
  hub->prepare_close(*file);
  if (file->has_requests()) {
    file->close_after_requests();
  } else {
    file->end_closing();
    (void)detail::kernel(SYS_close, fd);
  }
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
  return {fd, file.incarnation(), hub.link()};
}

// Whoever owned the number before has lost it: the kernel has given it out anew.
descriptor detail::adopt_new(hub_core& hub, int fd, file_kind kind) {
  try {
    fd_state& file = hub.state_of(fd);
    if (file.in_use()) {
      hub.prepare_close(file);
      file.end_closing();
    }
    file.own(kind);
    return {fd, file.incarnation(), hub.link()};
  } catch (...) {
    (void)kernel(SYS_close, fd);
    throw;
  }
}

int descriptor::release() {
  constexpr const char* call = "descriptor::release";
  if (fd_ < 0) {
    detail::throw_io_error(EBADF, call, fd_);
  }
  detail::hub_core& hub = detail::hub_core::of(*link_, call);
  detail::fd_state* const file = own_state(hub, fd_, incarnation_);
  const int fd = std::exchange(fd_, -1);
  const auto link = std::move(link_);
  if (file == nullptr) {
    detail::throw_io_error(EBADF, call, fd);
  }
  file->begin_closing();  // selectors go on watching it
  file->await_requests();
  file->end_closing();
  return fd;
}

void descriptor::close() {
  constexpr const char* call = "descriptor::close";
  if (fd_ < 0) {
    detail::throw_io_error(EBADF, call, fd_);
  }
  detail::hub_core& hub = detail::hub_core::of(*link_, call);
  detail::fd_state* const file = own_state(hub, fd_, incarnation_);
  const int fd = std::exchange(fd_, -1);
  const auto link = std::move(link_);
  if (file == nullptr) {
    detail::throw_io_error(EBADF, call, fd);
  }
  hub.prepare_close_and_wait(*file);  // also where the number was closed behind the hub's back
  if (const auto closed = detail::kernel(SYS_close, fd); !closed.ok() && closed.error() != EINTR) {
    detail::throw_io_error(closed.error(), call, fd);
  }
}

std::size_t descriptor::read(mutable_buffer into, deadline until) {
  return annulet::read(*this, into, until);
}
std::size_t descriptor::write(const_buffer from, deadline until) {
  return annulet::write(*this, from, until);
}
std::size_t descriptor::readv(std::span<const iovec> into, deadline until) {
  return annulet::readv(*this, into, until);
}
std::size_t descriptor::writev(std::span<const iovec> from, deadline until) {
  return annulet::writev(*this, from, until);
}
std::size_t descriptor::recv(mutable_buffer into, deadline until) {
  return annulet::recv(*this, into, 0, until);
}
std::size_t descriptor::recv(mutable_buffer into, int flags, deadline until) {
  return annulet::recv(*this, into, flags, until);
}
std::size_t descriptor::send(const_buffer from, deadline until) {
  return annulet::send(*this, from, 0, until);
}
std::size_t descriptor::send(const_buffer from, int flags, deadline until) {
  return annulet::send(*this, from, flags, until);
}
std::size_t descriptor::recvfrom(mutable_buffer into, socket_address& sender, int flags, deadline until) {
  return annulet::recvfrom(*this, into, sender, flags, until);
}
std::size_t descriptor::sendto(const_buffer from, const socket_address& receiver, int flags, deadline until) {
  return annulet::sendto(*this, from, receiver, flags, until);
}
std::size_t descriptor::read_exactly(mutable_buffer into, deadline until, std::size_t* done) {
  return annulet::read_exactly(*this, into, until, done);
}
void descriptor::write_all(const_buffer from, deadline until, std::size_t* done) {
  annulet::write_all(*this, from, until, done);
}
descriptor descriptor::accept(deadline until) { return annulet::accept(*this, until); }
descriptor descriptor::accept(socket_address& peer, deadline until) {
  return annulet::accept(*this, peer, until);
}
void descriptor::connect(const socket_address& peer, deadline until) { annulet::connect(*this, peer, until); }
std::optional<std::size_t> descriptor::try_read(mutable_buffer into) {
  return annulet::try_read(*this, into);
}
std::optional<std::size_t> descriptor::try_write(const_buffer from) {
  return annulet::try_write(*this, from);
}
std::optional<std::size_t> descriptor::try_recv(mutable_buffer into, int flags) {
  return annulet::try_recv(*this, into, flags);
}
std::optional<std::size_t> descriptor::try_send(const_buffer from, int flags) {
  return annulet::try_send(*this, from, flags);
}
std::optional<descriptor> descriptor::try_accept() { return annulet::try_accept(*this); }

}  // namespace annulet
