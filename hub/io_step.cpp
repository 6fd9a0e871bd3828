#include "io_step.hpp"

#include "syscalls.hpp"

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <climits>
#include <optional>

#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <sys/stat.h>

namespace annulet::detail {

namespace {

constexpr long rwf_nosignal = 0x100;  // Linux 6.18; newer than Debian 12's headers
constexpr long own_position = -1;

// Makes a call that may raise SIGPIPE, and takes the signal back if it did. Three calls more, for kernels
// that cannot be told.
template <class Call>
io_result without_sigpipe(Call&& call) noexcept {
  sigset_t pipe_signal;
  sigset_t before;
  sigset_t pending;
  sigemptyset(&pipe_signal);
  sigaddset(&pipe_signal, SIGPIPE);
  sigpending(&pending);
  pthread_sigmask(SIG_BLOCK, &pipe_signal, &before);
  const io_result result = call();
  if (result.error() == EPIPE && sigismember(&pending, SIGPIPE) == 0) {
    const timespec none{};
    while (sigtimedwait(&pipe_signal, nullptr, &none) < 0 && errno == EINTR) {
    }
  }
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
  return result;
}

// Whether writes can be told not to raise SIGPIPE. Asked once, of a pipe of our own: a write of nothing is
// not checked for its flags.
bool knows_nosignal() noexcept {
  enum : int { unasked, yes, no };
  static std::atomic<int> answer{unasked};
  const int now = answer.load(std::memory_order_relaxed);
  if (now != unasked) {
    return now == yes;
  }
  std::array<int, 2> ends{};
  if (!kernel(SYS_pipe2, ends.data(), O_CLOEXEC).ok()) {
    return false;  // asked again next time
  }
  char byte = 0;
  const iovec one{&byte, 1};
  const bool takes_it = kernel(SYS_pwritev2, ends[1], &one, 1, own_position, own_position, rwf_nosignal).ok();
  (void)kernel(SYS_close, ends[0]);
  (void)kernel(SYS_close, ends[1]);
  answer.store(takes_it ? yes : no, std::memory_order_relaxed);
  return takes_it;
}

io_result write_without_waiting(int fd, std::span<const iovec> from) noexcept {
  const auto write = [&](long flags) {
    return uninterrupted([&] {
      return kernel(SYS_pwritev2, fd, from.data(), from.size(), own_position, own_position,
                    RWF_NOWAIT | flags);
    });
  };
  return knows_nosignal() ? write(rwf_nosignal) : without_sigpipe([&] { return write(0); });
}

// For files that know no RWF_NOWAIT, with O_NONBLOCK set.
io_result plain(direction d, int fd, std::span<const iovec> vectors) noexcept {
  const auto call = [&](long number) {
    return uninterrupted([&] { return kernel(number, fd, vectors.data(), vectors.size()); });
  };
  return d == direction::reading ? call(SYS_readv) : without_sigpipe([&] { return call(SYS_writev); });
}

// The bits of its mode that tell the type. To answer fstat(2) a server far away may have to be asked, while
// the hub's thread waits; so that is for kernels and filters without statx(2).
std::optional<mode_t> type_of(int fd) noexcept {
  struct statx about {};
  const io_result asked = kernel(SYS_statx, fd, "", AT_EMPTY_PATH | AT_STATX_DONT_SYNC,
                                 static_cast<unsigned>(STATX_TYPE), &about);
  if (asked.ok()) {
    return about.stx_mode & S_IFMT;
  }
  struct stat all {};
  const bool refused = asked.error() == ENOSYS || asked.error() == EPERM;
  return refused && ::fstat(fd, &all) == 0 ? std::optional(all.st_mode & S_IFMT) : std::nullopt;
}

}  // namespace

file_kind kind_of(int fd) noexcept {
  const std::optional<mode_t> type = type_of(fd);
  if (!type) {
    return file_kind::unknown;
  }
  switch (*type) {
    case S_IFSOCK: {
      int protocol = 0;
      socklen_t size = sizeof(protocol);
      const auto known = kernel(SYS_getsockopt, fd, SOL_SOCKET, SO_PROTOCOL, &protocol, &size);
      return known.ok() && protocol == IPPROTO_TCP ? file_kind::tcp_socket : file_kind::socket;
    }
    case S_IFREG:
    case S_IFBLK:
    case S_IFDIR:
      return file_kind::disk;
    default:
      return file_kind::other;
  }
}

// --- read, write

io_step::outcome file_transfer::after_socket(io_result moved) noexcept {
  if (moved.error() == EAGAIN) {
    return outcome::wait;
  }
  if (kind() == file_kind::tcp_socket) {
    return done_with_stream(moved, total(vectors_));
  }
  if (moved.error() != ENOTSOCK || kind() == file_kind::socket) {
    return done(moved);
  }
  is_no_socket();
  return on_file();
}

io_step::outcome file_transfer::attempt_otherwise() noexcept {
  if (vectors_.size() > IOV_MAX) {
    return done(io_result(-EINVAL));  // as read and write have it; on sockets the calls below say EMSGSIZE
  }
  return may_be_socket() ? after_socket(on_socket()) : on_file();
}

io_result file_transfer::on_socket() const noexcept {
  const bool nothing = total(vectors_) == 0;
  if (nothing && (reads() || form_ == form::vectored)) {  // transfers nothing, and does not wait
    return kernel(reads() ? SYS_readv : SYS_writev, fd(), vectors_.data(), vectors_.size());
  }
  msghdr message{};
  message.msg_iov = const_cast<iovec*>(vectors_.data());
  message.msg_iovlen = vectors_.size();
  if (way() == direction::writing) {
    return uninterrupted([&] { return kernel(SYS_sendmsg, fd(), &message, MSG_DONTWAIT | MSG_NOSIGNAL); });
  }
  return uninterrupted([&] { return kernel(SYS_recvmsg, fd(), &message, MSG_DONTWAIT); });
}

io_step::outcome file_transfer::on_file() noexcept {
  if (!others_.none() && is_disk() && others_.find(fd()) != nullptr) {
    return outcome::occupied;  // it would wait for the position's lock
  }
  const io_result moved =
      way() == direction::writing ? write_without_waiting(fd(), vectors_) : uninterrupted([&] {
        return kernel(SYS_preadv2, fd(), vectors_.data(), vectors_.size(), own_position, own_position,
                      RWF_NOWAIT);
      });
  return after_nowait(moved, [&] { return plain(way(), fd(), vectors_); });
}

bool file_step::is_disk() noexcept {
  if (kind_ == file_kind::unknown || kind_ == file_kind::no_socket) {
    kind_ = kind_of(fd());
  }
  return kind_ == file_kind::disk;
}

operation file_step::transfer_of(std::span<const iovec> vectors) noexcept {
  return {.what = reads() ? operation::call::readv : operation::call::writev,
          .fd = fd(),
          .vectors = vectors.data(),
          .vector_count = static_cast<unsigned>(vectors.size()),
          .by_worker = !is_disk(),
          .on_disk = is_disk(),
          .file = identity_of(fd())};
}

// --- sockets

namespace {

io_traits traits_of(direction d, int flags, file_kind kind) noexcept {
  const bool reads = d == direction::reading;
  return {
      // About something else than the stream. Linux never waits for these.
      .out_of_turn = reads && (flags & (MSG_OOB | MSG_ERRQUEUE)) != 0,
      .asks_the_stream = kind == file_kind::tcp_socket || (kind == file_kind::socket && reads),
      .never_waits = (flags & MSG_DONTWAIT) != 0,
  };
}

}  // namespace

socket_transfer::socket_transfer(int fd, mutable_buffer into, message_flags flags, socket_address* sender,
                                 file_kind kind) noexcept
    : io_step(fd, direction::reading, traits_of(direction::reading, flags.bits(), kind)),
      data_(into.data()),
      size_(into.size()),
      flags_(flags.bits()),
      kind_(kind),
      sender_(sender) {}

socket_transfer::socket_transfer(int fd, const_buffer from, message_flags flags,
                                 const socket_address* receiver, file_kind kind) noexcept
    : io_step(fd, direction::writing, traits_of(direction::writing, flags.bits(), kind)),
      data_(const_cast<std::byte*>(from.data())),
      size_(from.size()),
      flags_(flags.bits()),
      kind_(kind),
      receiver_(receiver) {}

io_step::outcome socket_transfer::after_call(io_result moved) noexcept {
  if (!moved.ok() && sender_ != nullptr) {
    *sender_ = {};
  }
  if (moved.error() == EAGAIN && !about().out_of_turn) {
    return outcome::wait;
  }
  const bool of_the_stream =
      kind_ == file_kind::tcp_socket && (flags_ & (MSG_OOB | MSG_ERRQUEUE | MSG_PEEK | MSG_TRUNC)) == 0;
  return of_the_stream ? done_with_stream(moved, size_) : done(moved);
}

// --- accept, connect

io_step::outcome accept_step::attempt() noexcept {
  return where_nonblocking([&] {
    const io_result got = uninterrupted([&] {
      sockaddr* const room = peer_ == nullptr ? nullptr : peer_->room();
      return kernel(SYS_accept4, fd(), room, room == nullptr ? nullptr : peer_->room_size(), SOCK_CLOEXEC);
    });
    if (!got.ok() && peer_ != nullptr) {
      *peer_ = {};
    }
    return got.error() == EAGAIN ? outcome::wait : done(got);
  });
}

operation accept_step::as_operation() noexcept {
  return {.what = operation::call::accept,
          .fd = fd(),
          .address = peer_ == nullptr ? nullptr : peer_->room(),
          .address_size = peer_ == nullptr ? nullptr : peer_->room_size(),
          .flags = SOCK_CLOEXEC,
          .file = identity_of(fd())};
}

io_step::outcome connect_step::attempt() noexcept {
  return begun_ ? progress() : where_nonblocking([&] { return begin(); });
}

io_step::outcome connect_step::begin() noexcept {
  const io_result made = kernel(SYS_connect, fd(), peer_.data(), peer_.size());
  if (made.error() == EAGAIN && peer_.family() == AF_UNIX) {
    return outcome::later;  // the listener's queue is full
  }
  if (made.error() != EINPROGRESS && made.error() != EINTR) {
    return done(made);
  }
  begun_ = true;
  return outcome::wait;
}

// It has ended when the socket is writable, and SO_ERROR says how.
io_step::outcome connect_step::progress() noexcept {
  std::array<pollfd, 1> socket{pollfd{fd(), POLLOUT, 0}};
  if (const io_result ready = poll_now(socket); !ready.ok() || ready.value() == 0) {
    return ready.ok() ? outcome::wait : done(ready);
  }
  int error = 0;
  socklen_t size = sizeof(error);
  const io_result asked = kernel(SYS_getsockopt, fd(), SOL_SOCKET, SO_ERROR, &error, &size);
  return done(asked.ok() ? io_result(-error) : asked);
}

operation connect_step::as_operation() noexcept {
  return {.what = operation::call::connect,
          .fd = fd(),
          .address = const_cast<sockaddr*>(peer_.data()),
          .address_size = &size_,
          .file = identity_of(fd())};
}

}  // namespace annulet::detail
