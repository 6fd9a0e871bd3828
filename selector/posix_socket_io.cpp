// The calls that only sockets have.

#include "caller_memory.hpp"
#include "posix.h"
#include "stream_rest.hpp"

#include <annulet/hub/io_call.hpp>
#include <annulet/hub/syscalls.hpp>

#include <algorithm>
#include <optional>

#include <poll.h>

namespace annulet::detail {

namespace {

bool is_stream(int socket) noexcept { return option_of(socket, SO_TYPE) == SOCK_STREAM; }

// About something else than what the socket waits for, or not to wait at all: such a call is over when it was
// made. To Unix sockets MSG_ERRQUEUE says nothing, and MSG_OOB nothing to those of datagrams.
bool never_waits(int socket, int flags, direction way) noexcept {
  if (way == direction::writing || (flags & MSG_DONTWAIT) != 0) {
    return (flags & MSG_DONTWAIT) != 0;
  }
  return ((flags & MSG_OOB) != 0 && is_stream(socket)) || ((flags & MSG_ERRQUEUE) != 0 && !is_unix(socket));
}

// make(flags): the plain call. Once something has come of it, or an error.
template <class Make>
io_result once_it_need_not_wait(blocking_call& waiting, int socket, int flags, direction way, Make&& make) {
  for (bool woken = false, ended = false;;) {
    const io_result made = make(flags | MSG_DONTWAIT);
    const bool connects = made.error() == EINPROGRESS && (flags & MSG_FASTOPEN) != 0;
    if ((made.error() != EAGAIN && !connects) || never_waits(socket, flags, way) || !waiting.may_wait()) {
      return made;
    }
    if (ended) {
      return io_result(0);
    }
    ended = woken && way == direction::reading && is_shut_down(socket);
    if (ended) {
      continue;  // what came before the end may have come after the call
    }
    if (connects) {
      flags &= ~MSG_FASTOPEN;  // the connection is begun, and nothing sent
    }
    if (const int error = waiting.wait(true); error != 0) {
      return io_result(-error);
    }
    woken = true;
  }
}

// Whether a call that was to be whole, and has moved so much, goes on.
bool goes_on(blocking_call& waiting, int socket, int flags, direction way, std::size_t moved,
             std::size_t asked) noexcept {
  return moved != 0 && moved < asked && !never_waits(socket, flags, way) && waiting.may_wait() &&
         is_stream(socket);
}

// A look at what is there takes nothing, so no event tells of more: looks again and again, also where another
// has taken what was there. Of a Unix socket it is content with the first.
template <class Make>
io_result peek_at_all(blocking_call& waiting, int socket, int flags, io_result seen, std::size_t asked,
                      Make&& make) {
  while (!is_unix(socket) && seen.ok() && seen.value() < asked) {
    std::array<pollfd, 1> ended{pollfd{socket, POLLRDHUP, 0}};
    if ((poll_now(ended).ok() && ended[0].revents != 0) || waiting.rest(false) != 0) {
      break;
    }
    const io_result now = make(flags | MSG_DONTWAIT);
    seen = now.error() == EAGAIN ? seen : now;
  }
  return seen;
}

template <class Make>
ssize_t receive(hub_core& hub, const char* name, int socket, int flags, Make&& make) noexcept {
  try {
    breathe(hub);
    blocking_call waiting(hub, name, socket, direction::reading);
    const io_result got = once_it_need_not_wait(waiting, socket, flags, direction::reading, make);
    if (!got.ok()) {
      return as_returned(got);
    }
    sanitize_after(direction::reading);
    return got.value();
  } catch (const std::bad_alloc&) {
    return as_returned(io_result(-ENOMEM));
  }
}

// MSG_WAITALL, which has to see what comes with each part.
ssize_t receive_all(hub_core& hub, const char* name, int socket, msghdr& message, int flags) noexcept {
  try {
    breathe(hub);
    blocking_call waiting(hub, name, socket, direction::reading);
    const msghdr given = message;
    const auto make = [&](int with) {
      message = given;
      return kernel(SYS_recvmsg, socket, &message, with);
    };
    const io_result got = once_it_need_not_wait(waiting, socket, flags, direction::reading, make);
    if (!got.ok()) {
      return as_returned(got);
    }
    sanitize_after(direction::reading);
    const std::size_t asked = total_of(given.msg_iov, given.msg_iovlen);
    if (!goes_on(waiting, socket, flags, direction::reading, got.value(), asked)) {
      return got.value();
    }
    if ((flags & MSG_PEEK) != 0) {
      return as_returned(peek_at_all(waiting, socket, flags, got, asked, make));
    }
    remaining left(given.msg_iov, given.msg_iovlen);
    left.advance(got.value());
    return static_cast<ssize_t>(got.value() + receive_rest(waiting, socket, left, flags, given, message));
  } catch (const std::bad_alloc&) {
    return as_returned(io_result(-ENOMEM));
  }
}

// Each part of a send that is spared the copy would have its own notice, and it could come before the send is
// over.
bool is_to_be_whole(blocking_call& waiting, int socket, int flags) noexcept {
  return (flags & MSG_ZEROCOPY) != 0 && !never_waits(socket, flags, direction::writing) &&
         is_stream(socket) && option_of(socket, SO_ZEROCOPY) != 0 && waiting.may_wait();
}

// A signal that comes with an error went to the thread that made the call.
io_result send_whole(blocking_call& waiting, int socket, const msghdr* message, int flags) {
  const io_result sent = waiting.carry_out({.what = operation::call::sendmsg,
                                            .fd = socket,
                                            .message = message,
                                            .flags = flags | MSG_NOSIGNAL,
                                            .file = identity_of(socket)});
  if (sent.error() == EPIPE && (flags & MSG_NOSIGNAL) == 0) {
    (void)kernel(SYS_tgkill, kernel(SYS_getpid).value(), kernel(SYS_gettid).value(), SIGPIPE);
  }
  return sent;
}

// `given`: what `make` sends. The kernel looks at it first.
template <class Make>
ssize_t send_on(hub_core& hub, const char* name, int socket, int flags, const msghdr* given,
                Make&& make) noexcept {
  try {
    breathe(hub);
    sanitize_before(direction::writing);
    blocking_call waiting(hub, name, socket, direction::writing);
    if (is_to_be_whole(waiting, socket, flags)) {
      return as_returned(send_whole(waiting, socket, given, flags));
    }
    const io_result sent = once_it_need_not_wait(waiting, socket, flags, direction::writing, make);
    if (!sent.ok()) {
      return as_returned(sent);
    }
    const msghdr& message = *given;
    const std::size_t asked = total_of(message.msg_iov, message.msg_iovlen);
    if (!goes_on(waiting, socket, flags, direction::writing, sent.value(), asked)) {
      return sent.value();
    }
    remaining left(message.msg_iov, message.msg_iovlen);
    left.advance(sent.value());
    return static_cast<ssize_t>(sent.value() + send_rest(waiting, socket, left, flags, message));
  } catch (const std::bad_alloc&) {
    return as_returned(io_result(-ENOMEM));
  }
}

msghdr message_of(iovec& all) noexcept {
  msghdr message{};
  message.msg_iov = &all;
  message.msg_iovlen = 1;
  return message;
}

// Tells the sender's name as the kernel does: what there is room for, and how long it is. The errno, or 0.
int give_name(const msghdr& message, sockaddr* name, socklen_t* size) noexcept {
  int room = 0;
  if (!copy_from_caller(&room, size, sizeof(room))) {
    return EFAULT;
  }
  if (room < 0) {
    return EINVAL;
  }
  const std::size_t given = std::min<std::size_t>(static_cast<unsigned>(room), message.msg_namelen);
  const bool told = copy_to_caller(size, &message.msg_namelen, sizeof(*size)) &&
                    (given == 0 || copy_to_caller(name, message.msg_name, given));
  return told ? 0 : EFAULT;
}

int accept_on(hub_core& hub, const char* name, int socket, sockaddr* peer, socklen_t* peer_size,
              int flags) noexcept {
  try {
    breathe(hub);
    blocking_call waiting(hub, name, socket, direction::reading);
    const bool refused = (flags & ~(SOCK_NONBLOCK | SOCK_CLOEXEC)) != 0;
    if (refused || !waiting.may_wait()) {
      return as_returned(kernel(SYS_accept4, socket, peer, peer_size, flags));
    }
    return as_returned(waiting.carry_out({.what = operation::call::accept,
                                          .fd = socket,
                                          .address = peer,
                                          .address_size = peer_size,
                                          .flags = flags,
                                          .file = identity_of(socket)}));
  } catch (const std::bad_alloc&) {
    return as_returned(io_result(-ENOMEM));
  }
}

io_result connect_on(hub_core& hub, int socket, const sockaddr* peer, socklen_t peer_size) {
  breathe(hub);
  const auto plain = [&] { return kernel(SYS_connect, socket, peer, peer_size); };
  blocking_call waiting(hub, "connect", socket, direction::writing);
  if (!waiting.may_wait()) {
    return plain();
  }
  socklen_t size = peer_size;
  const io_result made = waiting.carry_out({.what = operation::call::connect,
                                            .fd = socket,
                                            .address = const_cast<sockaddr*>(peer),
                                            .address_size = &size,
                                            .file = identity_of(socket)});
  if (made.error() == EAGAIN && !is_unix(socket)) {
    return io_result(-EINPROGRESS);  // the time is over, and it goes on by itself
  }
  if (made.error() != EALREADY) {
    return made;
  }
  // An earlier call has begun it.
  if (const int error = waiting.wait(true); error != 0) {
    return io_result(error == EAGAIN ? -EALREADY : -error);
  }
  return plain();
}

}  // namespace

}  // namespace annulet::detail

using namespace annulet::detail;

ssize_t annulet_recv(int socket, void* into, std::size_t size, int flags) {
  return annulet_recvfrom(socket, into, size, flags, nullptr, nullptr);
}

ssize_t annulet_recvfrom(int socket, void* into, std::size_t size, int flags, sockaddr* sender,
                         socklen_t* sender_size) {
  hub_core* const hub = hub_core::of_caller();
  const auto make = [&](int with) {
    return kernel(SYS_recvfrom, socket, into, size, with, sender, sender_size);
  };
  if (hub == nullptr) {
    return as_returned(make(flags));
  }
  if ((flags & MSG_WAITALL) != 0) {
    iovec all{into, std::min(size, most_at_once())};
    msghdr message = message_of(all);
    sockaddr_storage name{};
    message.msg_name = sender == nullptr ? nullptr : &name;
    message.msg_namelen = sizeof(name);
    const ssize_t got = receive_all(*hub, "recvfrom", socket, message, flags);
    const int error = got < 0 || sender == nullptr ? 0 : give_name(message, sender, sender_size);
    return error == 0 ? got : as_returned(io_result(-error));
  }
  return receive(*hub, "recvfrom", socket, flags, make);
}

ssize_t annulet_recvmsg(int socket, msghdr* message, int flags) {
  hub_core* const hub = hub_core::of_caller();
  const auto make = [&](int with) { return kernel(SYS_recvmsg, socket, message, with); };
  if (hub == nullptr) {
    return as_returned(make(flags));
  }
  msghdr copy{};
  if ((flags & MSG_WAITALL) != 0 && copy_from_caller(&copy, message, sizeof(copy))) {
    return receive_all(*hub, "recvmsg", socket, *message, flags);
  }
  return receive(*hub, "recvmsg", socket, flags, make);
}

ssize_t annulet_send(int socket, const void* from, std::size_t size, int flags) {
  return annulet_sendto(socket, from, size, flags, nullptr, 0);
}

ssize_t annulet_sendto(int socket, const void* from, std::size_t size, int flags, const sockaddr* receiver,
                       socklen_t receiver_size) {
  hub_core* const hub = hub_core::of_caller();
  const auto make = [&](int with) {
    return kernel(SYS_sendto, socket, from, size, with, receiver, receiver_size);
  };
  const bool refused = receiver != nullptr && receiver_size > sizeof(sockaddr_storage);
  if (hub == nullptr || refused) {
    return as_returned(make(flags));
  }
  iovec all{const_cast<void*>(from), std::min(size, most_at_once())};
  msghdr message = message_of(all);
  message.msg_name = const_cast<sockaddr*>(receiver);
  message.msg_namelen = receiver_size;
  return send_on(*hub, "sendto", socket, flags, &message, make);
}

ssize_t annulet_sendmsg(int socket, const msghdr* message, int flags) {
  hub_core* const hub = hub_core::of_caller();
  const auto make = [&](int with) { return kernel(SYS_sendmsg, socket, message, with); };
  return hub == nullptr ? as_returned(make(flags)) : send_on(*hub, "sendmsg", socket, flags, message, make);
}

int annulet_accept(int socket, sockaddr* peer, socklen_t* peer_size) {
  hub_core* const hub = hub_core::of_caller();
  return hub == nullptr ? as_returned(kernel(SYS_accept4, socket, peer, peer_size, 0))
                        : accept_on(*hub, "accept", socket, peer, peer_size, 0);
}

int annulet_accept4(int socket, sockaddr* peer, socklen_t* peer_size, int flags) {
  hub_core* const hub = hub_core::of_caller();
  return hub == nullptr ? as_returned(kernel(SYS_accept4, socket, peer, peer_size, flags))
                        : accept_on(*hub, "accept4", socket, peer, peer_size, flags);
}

int annulet_connect(int socket, const sockaddr* peer, socklen_t peer_size) {
  hub_core* const hub = hub_core::of_caller();
  if (hub == nullptr) {
    return as_returned(kernel(SYS_connect, socket, peer, peer_size));
  }
  try {
    return as_returned(connect_on(*hub, socket, peer, peer_size));
  } catch (const std::bad_alloc&) {
    return as_returned(io_result(-ENOMEM));
  }
}
