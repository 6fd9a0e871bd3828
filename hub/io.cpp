#include "io.hpp"

#include "hub_core.hpp"
#include "io_call.hpp"
#include "io_error.hpp"
#include "io_step.hpp"

#include <cerrno>
#include <optional>

namespace annulet {

namespace {

using detail::accept_step;
using detail::connect_step;
using detail::direction;
using detail::file_kind;
using detail::file_transfer;
using detail::io_call;
using detail::io_result;
using detail::io_step;
using detail::socket_transfer;
using detail::throw_io_error;

std::size_t count_of(const std::optional<io_result>& result, const io_step& step) {
  if (!result && step.never_waits()) {
    throw_io_error(EAGAIN, step.name(), step.fd());
  }
  if (!result) {
    detail::throw_deadline_passed(step.name(), step.fd());
  }
  if (!result->ok()) {
    throw_io_error(result->error(), step.name(), step.fd());
  }
  return result->value();
}

std::size_t count(io_call& call, io_step&& step, deadline until) {
  return count_of(call.run(step, step.never_waits() ? deadline::past() : until), step);
}

// Nothing where it would have waited.
std::optional<std::size_t> count_if_any(io_call& call, io_step&& step) {
  const auto result = call.run(step, deadline::past());
  return result && result->error() != EAGAIN ? std::optional(count_of(result, step)) : std::nullopt;
}

iovec vector_of(mutable_buffer into) noexcept { return {into.data(), into.size()}; }
iovec vector_of(const_buffer from) noexcept { return {const_cast<std::byte*>(from.data()), from.size()}; }

// What a TCP listener accepts is TCP.
descriptor accepted(const io_call& call, std::size_t number) {
  const auto fd = static_cast<int>(number);
  return detail::adopt_new(call.hub(), fd,
                           call.kind() == file_kind::tcp_socket ? call.kind() : detail::kind_of(fd));
}

// Until all is transferred or the file ends.
std::size_t transfer_all(const char* name, const file_ref& file, int fd, direction d, iovec rest,
                         deadline until, std::size_t* done) {
  std::size_t unasked = 0;
  std::size_t& moved = done == nullptr ? unasked : *done;
  moved = 0;
  io_call call(file, name);
  std::optional<detail::turn> own;
  for (;;) {
    file_transfer step(name, fd, d, {&rest, 1}, call.kind());
    const std::size_t count = count_of(call.run(step, until, own), step);
    moved += count;
    if (count == rest.iov_len || count == 0) {
      return moved;
    }
    if (until.reached()) {
      detail::throw_deadline_passed(name, fd);
    }
    rest = {static_cast<std::byte*>(rest.iov_base) + count, rest.iov_len - count};
    call.breathe_between(step, own);
  }
}

}  // namespace

std::size_t read(file_ref file, mutable_buffer into, deadline until) {
  io_call call(file, "read");
  const iovec vector = vector_of(into);
  return count(call, file_transfer("read", file.number(), direction::reading, {&vector, 1}, call.kind()),
               until);
}

std::size_t write(file_ref file, const_buffer from, deadline until) {
  io_call call(file, "write");
  const iovec vector = vector_of(from);
  return count(call, file_transfer("write", file.number(), direction::writing, {&vector, 1}, call.kind()),
               until);
}

std::size_t readv(file_ref file, std::span<const iovec> into, deadline until) {
  io_call call(file, "readv");
  return count(call, file_transfer("readv", file.number(), direction::reading, into, call.kind()), until);
}

std::size_t writev(file_ref file, std::span<const iovec> from, deadline until) {
  io_call call(file, "writev");
  return count(call, file_transfer("writev", file.number(), direction::writing, from, call.kind()), until);
}

std::size_t recv(file_ref socket, mutable_buffer into, deadline until) {
  return recv(socket, into, message_flags(), until);
}

std::size_t recv(file_ref socket, mutable_buffer into, message_flags flags, deadline until) {
  io_call call(socket, "recv");
  return count(call, socket_transfer("recv", socket.number(), into, flags, nullptr, call.kind()), until);
}

std::size_t send(file_ref socket, const_buffer from, deadline until) {
  return send(socket, from, message_flags(), until);
}

std::size_t send(file_ref socket, const_buffer from, message_flags flags, deadline until) {
  io_call call(socket, "send");
  return count(call, socket_transfer("send", socket.number(), from, flags, nullptr, call.kind()), until);
}

std::size_t recvfrom(file_ref socket, mutable_buffer into, socket_address& sender, message_flags flags,
                     deadline until) {
  sender = {};
  io_call call(socket, "recvfrom");
  return count(call, socket_transfer("recvfrom", socket.number(), into, flags, &sender, call.kind()), until);
}

std::size_t sendto(file_ref socket, const_buffer from, const socket_address& receiver, message_flags flags,
                   deadline until) {
  io_call call(socket, "sendto");
  return count(call, socket_transfer("sendto", socket.number(), from, flags, &receiver, call.kind()), until);
}

std::size_t read_exactly(file_ref file, mutable_buffer into, deadline until, std::size_t* done) {
  return transfer_all("read_exactly", file, file.number(), direction::reading, vector_of(into), until, done);
}

void write_all(file_ref file, const_buffer from, deadline until, std::size_t* done) {
  const int fd = file.number();
  if (transfer_all("write_all", file, fd, direction::writing, vector_of(from), until, done) < from.size()) {
    throw_io_error(EIO, "write_all", fd);  // a device that takes nothing, and gives no reason
  }
}

descriptor accept(file_ref listener, deadline until) {
  io_call call(listener, "accept");
  return accepted(call, count(call, accept_step("accept", listener.number(), nullptr), until));
}

descriptor accept(file_ref listener, socket_address& peer, deadline until) {
  peer = {};
  io_call call(listener, "accept");
  return accepted(call, count(call, accept_step("accept", listener.number(), &peer), until));
}

void connect(file_ref socket, const socket_address& peer, deadline until) {
  io_call call(socket, "connect");
  (void)count(call, connect_step(socket.number(), peer), until);
}

std::optional<std::size_t> try_read(file_ref file, mutable_buffer into) {
  io_call call(file, "try_read");
  const iovec vector = vector_of(into);
  return count_if_any(
      call, file_transfer("try_read", file.number(), direction::reading, {&vector, 1}, call.kind()));
}

std::optional<std::size_t> try_write(file_ref file, const_buffer from) {
  io_call call(file, "try_write");
  const iovec vector = vector_of(from);
  return count_if_any(
      call, file_transfer("try_write", file.number(), direction::writing, {&vector, 1}, call.kind()));
}

std::optional<std::size_t> try_recv(file_ref socket, mutable_buffer into, message_flags flags) {
  io_call call(socket, "try_recv");
  return count_if_any(call, socket_transfer("try_recv", socket.number(), into, flags, nullptr, call.kind()));
}

std::optional<std::size_t> try_send(file_ref socket, const_buffer from, message_flags flags) {
  io_call call(socket, "try_send");
  return count_if_any(call, socket_transfer("try_send", socket.number(), from, flags, nullptr, call.kind()));
}

std::optional<descriptor> try_accept(file_ref listener) {
  io_call call(listener, "try_accept");
  const auto fd = count_if_any(call, accept_step("try_accept", listener.number(), nullptr));
  return fd ? std::optional(accepted(call, *fd)) : std::nullopt;
}

}  // namespace annulet
