// Blocking calls on descriptors that park the fiber and never the thread: read, write, recv, send, accept,
// connect and their kin. close and dup2 are in close.hpp.
//
// They take a plain number or an annulet::descriptor, blocking or O_NONBLOCK alike, and change no flag of it.
// Sockets, pipes, ttys, regular files, eventfds and whatever else read(2) takes all work. With a plain number
// nothing is remembered from one call to the next, and nothing stays armed when a call has returned.
//
// Each call
// - returns what its system call returns: a count, which may be less than was asked for; 0 at the end of the
//   file;
// - throws std::system_error with the errno of Linux, naming call and descriptor. SIGPIPE is never raised;
// - throws deadline_passed when its deadline came first. A deadline of zero or in the past looks once. A
//   transfer to or from a disk that has begun is not cut short: it ends when it ends, and returns what it
//   did;
// - can be killed and timed out while it waits, and has then transferred nothing; where the kernel had
//   transferred something after all it returns that, and the kill or guard stays pending;
// - ends with EBADF when the descriptor is closed through the hub meanwhile;
// - lets other fibers run now and then, also where it always finds something, before it transfers anything.
//
// Any number of fibers may wait on one descriptor: readers and writers each in the order in which they came.
// For the hub's thread; throws no_hub on a thread without one.
//
// What has no non-blocking form costs more, for the kernel or a thread then carries it out: ttys, accept and
// connect on blocking sockets, writes to disks and reads of what is not in memory. A process that reads its
// terminal from the background is told EIO, and not stopped by SIGTTIN.
//
// Where ported code may trip:
// - write and send may take less than they were given, on blocking descriptors too: write_all takes all.
// - SO_RCVTIMEO and SO_SNDTIMEO play no part: give a deadline.
// - A bare close(2) of a number on which a fiber waits tells it nothing: the fiber waits on, and who gets the
//   number next waits behind it. Close it by annulet::close.
#pragma once

#include "buffer.hpp"
#include "close.hpp"
#include "descriptor.hpp"
#include "message_flags.hpp"
#include "socket_address.hpp"

#include <annulet/runtime/deadline.hpp>
#include <annulet/runtime/errors.hpp>

#include <cstddef>
#include <optional>
#include <span>

#include <sys/uio.h>

namespace [[gnu::visibility("default")]] annulet {

std::size_t read(file_ref file, mutable_buffer into, deadline until = deadline::never());
std::size_t write(file_ref file, const_buffer from, deadline until = deadline::never());
std::size_t readv(file_ref file, std::span<const iovec> into, deadline until = deadline::never());
std::size_t writev(file_ref file, std::span<const iovec> from, deadline until = deadline::never());

// Sockets only (ENOTSOCK). Flags as in recv(2) and send(2). MSG_DONTWAIT throws EAGAIN where it would have
// waited; MSG_WAITALL does nothing, see read_exactly. The sender's address is empty where recvfrom throws.
std::size_t recv(file_ref socket, mutable_buffer into, deadline until = deadline::never());
std::size_t recv(file_ref socket, mutable_buffer into, message_flags flags,
                 deadline until = deadline::never());
std::size_t send(file_ref socket, const_buffer from, deadline until = deadline::never());
std::size_t send(file_ref socket, const_buffer from, message_flags flags, deadline until = deadline::never());
std::size_t recvfrom(file_ref socket, mutable_buffer into, socket_address& sender, message_flags flags = {},
                     deadline until = deadline::never());
std::size_t sendto(file_ref socket, const_buffer from, const socket_address& receiver,
                   message_flags flags = {}, deadline until = deadline::never());

// All of it, or up to the end of the file: less than asked for means that it ended. No other fiber's
// transfer in that direction comes in between. `done` is kept at the count so far, also when something is
// thrown, the deadline among it: those bytes are transferred.
std::size_t read_exactly(file_ref file, mutable_buffer into, deadline until = deadline::never(),
                         std::size_t* done = nullptr);
void write_all(file_ref file, const_buffer from, deadline until = deadline::never(),
               std::size_t* done = nullptr);

// The new descriptor is close-on-exec and otherwise as Linux makes it. EMFILE and its like leave the
// connection in the backlog.
[[nodiscard]] descriptor accept(file_ref listener, deadline until = deadline::never());
[[nodiscard]] descriptor accept(file_ref listener, socket_address& peer, deadline until = deadline::never());
// Where it throws, whatever the cause, the attempt may go on in the kernel: close the socket.
void connect(file_ref socket, const socket_address& peer, deadline until = deadline::never());

// Look once, and do not wait for the file: nothing where the call would have waited, or other fibers wait
// before this one. What the kernel has to carry out (see above) still parks for as long as that takes.
std::optional<std::size_t> try_read(file_ref file, mutable_buffer into);
std::optional<std::size_t> try_write(file_ref file, const_buffer from);
std::optional<std::size_t> try_recv(file_ref socket, mutable_buffer into, message_flags flags = {});
std::optional<std::size_t> try_send(file_ref socket, const_buffer from, message_flags flags = {});
[[nodiscard]] std::optional<descriptor> try_accept(file_ref listener);

}  // namespace annulet
