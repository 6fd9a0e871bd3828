// How a call goes: try without waiting; where that will not do, take a turn at the descriptor, park until it
// may be ready, try again. What cannot be tried is handed to the kernel.

#include "io.hpp"

#include "fd_state.hpp"
#include "hub_core.hpp"
#include "io_step.hpp"
#include "syscalls.hpp"

#include <cerrno>
#include <string>
#include <utility>

#include <fcntl.h>

namespace annulet {

namespace {

using detail::direction;
using detail::fd_state;
using detail::file_kind;
using detail::hub_core;
using detail::io_result;
using detail::io_step;
using detail::throw_io_error;

// The hub that a call is made on, and what it knows of the descriptor (null where nothing).
struct place {
  hub_core& hub;
  fd_state* file;

  [[nodiscard]] file_kind kind() const noexcept {
    return file == nullptr ? file_kind::unknown : file->kind();
  }
};

place find(const file_ref& file, const char* call) {
  if (file.owner() == nullptr) {
    hub_core& hub = hub_core::here(call);
    fd_state* const state = hub.find_state(file.number());
    if (state != nullptr && state->closing()) {
      throw_io_error(EBADF, call, file.number());
    }
    return {hub, state};
  }
  if (file.link() == nullptr) {
    throw_io_error(EBADF, call, file.number());
  }
  hub_core& hub = hub_core::of(*file.link(), call);
  fd_state* const state = hub.find_state(file.number());
  if (state == nullptr || state->incarnation() != file.incarnation()) {
    throw_io_error(EBADF, call, file.number());  // closed, and not by this object
  }
  return {hub, state};
}

[[noreturn]] void throw_deadline_passed(const char* call, int fd) {
  throw deadline_passed(
      ETIMEDOUT, std::generic_category(),
      std::string("annulet: ") + call + "(" + std::to_string(fd) + "): the deadline passed");
}

// The rest of a call, within its turn, from what a first try has shown. Says nothing where the deadline came.
std::optional<io_result> go_on(detail::turn& own, fd_state& file, io_step& step, io_step::outcome next,
                               deadline until) {
  for (bool last = until.is_past();;) {
    if (next == io_step::outcome::done) {
      if (step.drained()) {
        file.exhausted(step.way(), false);
      }
      return step.result();
    }
    if (next == io_step::outcome::delegate) {
      const auto result = own.perform(step.request(), until);
      if (!result || result->error() != EAGAIN) {
        return result;
      }
      // O_NONBLOCK was set meanwhile.
    }
    file.exhausted(step.way(), true);
    if (last) {
      return std::nullopt;
    }
    last = !(next == io_step::outcome::later ? own.rest(until) : own.await_event(until));
    next = step.attempt();
    if (next != io_step::outcome::done && until.reached()) {
      last = true;  // however many events come for nothing
    }
  }
}

// A descriptor's watch that has said nothing since the last try need not be asked again, unless the caller
// wants to know now.
bool worth_a_try(const fd_state& file, const io_step& step, deadline until) noexcept {
  return file.worth_a_try(step.way()) || until.is_past() || step.out_of_turn();
}

[[gnu::noinline]] std::optional<io_result> run_in_turn(const place& at, io_step& step,
                                                       std::optional<io_step::outcome> tried,
                                                       deadline until) {
  fd_state& file = at.file == nullptr ? at.hub.state_of(step.fd()) : *at.file;
  detail::turn own(at.hub, file, step.way(), step.name());
  if (!own.take(until)) {
    return std::nullopt;
  }
  if (!tried) {
    tried = worth_a_try(file, step, until) ? step.attempt() : io_step::outcome::wait;
  }
  return go_on(own, file, step, *tried, until);
}

// A whole call. Says nothing where the deadline came first.
template <class Step>
std::optional<io_result> run(const place& at, Step& step, deadline until) {
  at.hub.fibers().breathe(1);  // first, for nothing may be thrown once something was transferred
  std::optional<io_step::outcome> tried;
  if (at.file == nullptr || step.out_of_turn() ||
      (at.file->free(step.way()) && worth_a_try(*at.file, step, until))) {
    tried = step.attempt();
    if (tried == io_step::outcome::done) {
      if (at.file != nullptr && step.drained()) {
        at.file->exhausted(step.way(), false);
      }
      return step.result();
    }
  }
  return run_in_turn(at, step, tried, until);
}

std::size_t count_of(const std::optional<io_result>& result, const io_step& step) {
  if (!result && step.never_waits()) {
    throw_io_error(EAGAIN, step.name(), step.fd());
  }
  if (!result) {
    throw_deadline_passed(step.name(), step.fd());
  }
  if (!result->ok()) {
    throw_io_error(result->error(), step.name(), step.fd());
  }
  return result->value();
}

std::optional<std::size_t> count_if_any(const std::optional<io_result>& result, const io_step& step) {
  return result && result->error() != EAGAIN ? std::optional(count_of(result, step)) : std::nullopt;
}

template <class Step>
std::size_t count(const place& at, Step&& step, deadline until) {
  return count_of(run(at, step, step.never_waits() ? deadline::past() : until), step);
}

iovec vector_of(mutable_buffer into) noexcept { return {into.data(), into.size()}; }
iovec vector_of(const_buffer from) noexcept { return {const_cast<std::byte*>(from.data()), from.size()}; }

// What a TCP listener accepts is TCP.
descriptor accepted(const place& at, std::size_t number) {
  const auto fd = static_cast<int>(number);
  return detail::adopt_new(at.hub, fd, at.kind() == file_kind::tcp_socket ? at.kind() : detail::kind_of(fd));
}

// Until all is transferred or the file ends, with one turn held from the first wait on.
std::size_t transfer_all(const char* call, const file_ref& ref, direction d, iovec rest, deadline until,
                         std::size_t* done) {
  std::size_t unasked = 0;
  std::size_t& moved = done == nullptr ? unasked : *done;
  moved = 0;
  const place at = find(ref, call);
  if (rest.iov_len == 0) {
    return count(at, detail::file_transfer(call, ref.number(), d, {&rest, 1}, at.kind()), until);
  }
  at.hub.fibers().breathe(1);
  if (at.file == nullptr) {
    if (const io_result open = detail::kernel(SYS_fcntl, ref.number(), F_GETFD); !open.ok()) {
      throw_io_error(open.error(), call, ref.number());
    }
  }
  fd_state& file = at.file == nullptr ? at.hub.state_of(ref.number()) : *at.file;
  detail::turn own(at.hub, file, d, call);
  if (!own.take(until)) {
    throw_deadline_passed(call, ref.number());
  }
  for (;;) {
    detail::file_transfer step(call, ref.number(), d, {&rest, 1}, at.kind());
    const auto next = worth_a_try(file, step, until) ? step.attempt() : io_step::outcome::wait;
    const std::size_t count = count_of(go_on(own, file, step, next, until), step);
    moved += count;
    if (count == rest.iov_len || count == 0) {
      return moved;
    }
    rest = {static_cast<std::byte*>(rest.iov_base) + count, rest.iov_len - count};
    at.hub.fibers().breathe(1);
    own.require_open();
  }
}

}  // namespace

std::size_t read(file_ref file, mutable_buffer into, deadline until) {
  const place at = find(file, "read");
  const iovec vector = vector_of(into);
  return count(at, detail::file_transfer("read", file.number(), direction::reading, {&vector, 1}, at.kind()),
               until);
}

std::size_t write(file_ref file, const_buffer from, deadline until) {
  const place at = find(file, "write");
  const iovec vector = vector_of(from);
  return count(at, detail::file_transfer("write", file.number(), direction::writing, {&vector, 1}, at.kind()),
               until);
}

std::size_t readv(file_ref file, std::span<const iovec> into, deadline until) {
  const place at = find(file, "readv");
  return count(at, detail::file_transfer("readv", file.number(), direction::reading, into, at.kind()), until);
}

std::size_t writev(file_ref file, std::span<const iovec> from, deadline until) {
  const place at = find(file, "writev");
  return count(at, detail::file_transfer("writev", file.number(), direction::writing, from, at.kind()),
               until);
}

std::size_t recv(file_ref socket, mutable_buffer into, deadline until) {
  return recv(socket, into, 0, until);
}

std::size_t recv(file_ref socket, mutable_buffer into, int flags, deadline until) {
  const place at = find(socket, "recv");
  return count(at, detail::socket_transfer("recv", socket.number(), into, flags, nullptr, at.kind()), until);
}

std::size_t send(file_ref socket, const_buffer from, deadline until) { return send(socket, from, 0, until); }

std::size_t send(file_ref socket, const_buffer from, int flags, deadline until) {
  const place at = find(socket, "send");
  return count(at, detail::socket_transfer("send", socket.number(), from, flags, nullptr), until);
}

std::size_t recvfrom(file_ref socket, mutable_buffer into, socket_address& sender, int flags,
                     deadline until) {
  const place at = find(socket, "recvfrom");
  return count(at, detail::socket_transfer("recvfrom", socket.number(), into, flags, &sender, at.kind()),
               until);
}

std::size_t sendto(file_ref socket, const_buffer from, const socket_address& receiver, int flags,
                   deadline until) {
  const place at = find(socket, "sendto");
  return count(at, detail::socket_transfer("sendto", socket.number(), from, flags, &receiver), until);
}

std::size_t read_exactly(file_ref file, mutable_buffer into, deadline until, std::size_t* done) {
  return transfer_all("read_exactly", file, direction::reading, vector_of(into), until, done);
}

void write_all(file_ref file, const_buffer from, deadline until, std::size_t* done) {
  if (transfer_all("write_all", file, direction::writing, vector_of(from), until, done) < from.size()) {
    throw_io_error(EIO, "write_all", file.number());  // a device that takes nothing, and gives no reason
  }
}

descriptor accept(file_ref listener, deadline until) {
  detail::accept_step step(listener.number(), nullptr);
  const place at = find(listener, step.name());
  return accepted(at, count(at, step, until));
}

descriptor accept(file_ref listener, socket_address& peer, deadline until) {
  detail::accept_step step(listener.number(), &peer);
  const place at = find(listener, step.name());
  return accepted(at, count(at, step, until));
}

void connect(file_ref socket, const socket_address& peer, deadline until) {
  detail::connect_step step(socket.number(), peer);
  (void)count(find(socket, step.name()), step, until);
}

std::optional<std::size_t> try_read(file_ref file, mutable_buffer into) {
  const place at = find(file, "read");
  const iovec vector = vector_of(into);
  detail::file_transfer step("read", file.number(), direction::reading, {&vector, 1}, at.kind());
  return count_if_any(run(at, step, deadline::past()), step);
}

std::optional<std::size_t> try_write(file_ref file, const_buffer from) {
  const place at = find(file, "write");
  const iovec vector = vector_of(from);
  detail::file_transfer step("write", file.number(), direction::writing, {&vector, 1}, at.kind());
  return count_if_any(run(at, step, deadline::past()), step);
}

std::optional<std::size_t> try_recv(file_ref socket, mutable_buffer into, int flags) {
  const place at = find(socket, "recv");
  detail::socket_transfer step("recv", socket.number(), into, flags, nullptr, at.kind());
  return count_if_any(run(at, step, deadline::past()), step);
}

std::optional<std::size_t> try_send(file_ref socket, const_buffer from, int flags) {
  const place at = find(socket, "send");
  detail::socket_transfer step("send", socket.number(), from, flags, nullptr);
  return count_if_any(run(at, step, deadline::past()), step);
}

std::optional<descriptor> try_accept(file_ref listener) {
  detail::accept_step step(listener.number(), nullptr);
  const place at = find(listener, step.name());
  const auto fd = count_if_any(run(at, step, deadline::past()), step);
  return fd ? std::optional(accepted(at, *fd)) : std::nullopt;
}

}  // namespace annulet
