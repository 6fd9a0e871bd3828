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

[[noreturn, gnu::cold]] void throw_outcome(const std::optional<io_result>& result, const io_call& call,
                                           const io_step& step) {
  if (result) {
    throw_io_error(result->error(), call.name(), call.fd());
  }
  if (step.about().never_waits) {
    throw_io_error(EAGAIN, call.name(), call.fd());
  }
  detail::throw_deadline_passed(call.name(), call.fd());
}

inline std::size_t count_of(const std::optional<io_result>& result, const io_call& call,
                            const io_step& step) {
  if (!result || !result->ok()) [[unlikely]] {
    throw_outcome(result, call, step);
  }
  detail::sanitize_after(call.way());
  return result->value();
}

template <class Step>
[[gnu::always_inline]] inline std::size_t count(io_call& call, Step&& step, deadline until) {
  return count_of(call.run(step, step.about().never_waits ? deadline::past() : until), call, step);
}

// Nothing where it would have waited.
template <class Step>
std::optional<std::size_t> count_if_any(io_call& call, Step&& step) {
  const auto result = call.run(step, deadline::past());
  return result && result->error() != EAGAIN ? std::optional(count_of(result, call, step)) : std::nullopt;
}

[[gnu::always_inline]] inline file_transfer transfer_of(const io_call& call, std::span<const iovec> vectors,
                                                        file_transfer::form how) noexcept {
  return {call.fd(), call.way(), vectors, how, call.kind(), call.hub().transfers()};
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
[[gnu::always_inline]] inline std::size_t transfer_all(io_call&& call, iovec rest, deadline until,
                                                       std::size_t& moved) {
  moved = 0;
  for (;;) {
    file_transfer step = transfer_of(call, {&rest, 1}, file_transfer::form::plain);
    const std::size_t count = count_of(call.run(step, until), call, step);
    moved += count;
    if (count == rest.iov_len || count == 0) {
      return moved;
    }
    if (until.reached()) {
      detail::throw_deadline_passed(call.name(), call.fd());
    }
    rest = {static_cast<std::byte*>(rest.iov_base) + count, rest.iov_len - count};
    call.breathe_between();
  }
}

}  // namespace

std::size_t read(file_ref file, mutable_buffer into, deadline until) {
  io_call call(file, direction::reading, "read");
  const iovec vector = vector_of(into);
  return count(call, transfer_of(call, {&vector, 1}, file_transfer::form::plain), until);
}

std::size_t write(file_ref file, const_buffer from, deadline until) {
  io_call call(file, direction::writing, "write");
  const iovec vector = vector_of(from);
  return count(call, transfer_of(call, {&vector, 1}, file_transfer::form::plain), until);
}

std::size_t readv(file_ref file, std::span<const iovec> into, deadline until) {
  io_call call(file, direction::reading, "readv");
  return count(call, transfer_of(call, into, file_transfer::form::vectored), until);
}

std::size_t writev(file_ref file, std::span<const iovec> from, deadline until) {
  io_call call(file, direction::writing, "writev");
  return count(call, transfer_of(call, from, file_transfer::form::vectored), until);
}

std::size_t recv(file_ref socket, mutable_buffer into, deadline until) {
  return recv(socket, into, message_flags(), until);
}

std::size_t recv(file_ref socket, mutable_buffer into, message_flags flags, deadline until) {
  io_call call(socket, direction::reading, "recv");
  return count(call, socket_transfer(call.fd(), into, flags, nullptr, call.kind()), until);
}

std::size_t send(file_ref socket, const_buffer from, deadline until) {
  return send(socket, from, message_flags(), until);
}

std::size_t send(file_ref socket, const_buffer from, message_flags flags, deadline until) {
  io_call call(socket, direction::writing, "send");
  return count(call, socket_transfer(call.fd(), from, flags, nullptr, call.kind()), until);
}

std::size_t recvfrom(file_ref socket, mutable_buffer into, socket_address& sender, message_flags flags,
                     deadline until) {
  sender = {};
  io_call call(socket, direction::reading, "recvfrom");
  return count(call, socket_transfer(call.fd(), into, flags, &sender, call.kind()), until);
}

std::size_t sendto(file_ref socket, const_buffer from, const socket_address& receiver, message_flags flags,
                   deadline until) {
  io_call call(socket, direction::writing, "sendto");
  return count(call, socket_transfer(call.fd(), from, flags, &receiver, call.kind()), until);
}

std::size_t read_exactly(file_ref file, mutable_buffer into, deadline until, std::size_t* done) {
  std::size_t moved = 0;
  return transfer_all(io_call(file, direction::reading, "read_exactly"), vector_of(into), until,
                      done == nullptr ? moved : *done);
}

void write_all(file_ref file, const_buffer from, deadline until, std::size_t* done) {
  std::size_t moved = 0;
  if (transfer_all(io_call(file, direction::writing, "write_all"), vector_of(from), until,
                   done == nullptr ? moved : *done) < from.size()) {
    throw_io_error(EIO, "write_all", file.number());  // a device that takes nothing, and gives no reason
  }
}

descriptor accept(file_ref listener, deadline until) {
  io_call call(listener, direction::reading, "accept");
  return accepted(call, count(call, accept_step(call.fd(), nullptr), until));
}

descriptor accept(file_ref listener, socket_address& peer, deadline until) {
  peer = {};
  io_call call(listener, direction::reading, "accept");
  socket_address who;  // where it throws, nothing of an attempt is to be seen
  auto made = accepted(call, count(call, accept_step(call.fd(), &who), until));
  peer = who;
  return made;
}

void connect(file_ref socket, const socket_address& peer, deadline until) {
  io_call call(socket, direction::writing, "connect");
  (void)count(call, connect_step(call.fd(), peer), until);
}

std::optional<std::size_t> try_read(file_ref file, mutable_buffer into) {
  io_call call(file, direction::reading, "try_read");
  const iovec vector = vector_of(into);
  return count_if_any(call, transfer_of(call, {&vector, 1}, file_transfer::form::plain));
}

std::optional<std::size_t> try_write(file_ref file, const_buffer from) {
  io_call call(file, direction::writing, "try_write");
  const iovec vector = vector_of(from);
  return count_if_any(call, transfer_of(call, {&vector, 1}, file_transfer::form::plain));
}

std::optional<std::size_t> try_recv(file_ref socket, mutable_buffer into, message_flags flags) {
  io_call call(socket, direction::reading, "try_recv");
  return count_if_any(call, socket_transfer(call.fd(), into, flags, nullptr, call.kind()));
}

std::optional<std::size_t> try_send(file_ref socket, const_buffer from, message_flags flags) {
  io_call call(socket, direction::writing, "try_send");
  return count_if_any(call, socket_transfer(call.fd(), from, flags, nullptr, call.kind()));
}

std::optional<descriptor> try_accept(file_ref listener) {
  io_call call(listener, direction::reading, "try_accept");
  const auto fd = count_if_any(call, accept_step(call.fd(), nullptr));
  return fd ? std::optional(accepted(call, *fd)) : std::nullopt;
}

}  // namespace annulet
