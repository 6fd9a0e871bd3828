// One system call as a fiber makes it: tried without waiting, and what to do where that will not do.
// Internal.
//
// A step has attempt() and as_operation(). Those of the calls that a server makes most are inline down to the
// system call (syscalls.hpp says why).
#pragma once

#include "buffer.hpp"
#include "disk_transfers.hpp"
#include "fd_state.hpp"
#include "message_flags.hpp"
#include "request.hpp"
#include "socket_address.hpp"
#include "syscalls.hpp"

#include <cerrno>
#include <cstddef>
#include <cstdint>

#include <fcntl.h>
#include <sys/socket.h>
#include <sys/uio.h>

namespace annulet::detail {

// What is to be known of a call before it is tried.
struct io_traits {
  // It takes nothing that others may be waiting for, and what the watch tells is not about it: tried at
  // once, whoever has the turn.
  bool out_of_turn = false;
  // What is known of the file's readiness answers it: it need not be tried where there is nothing. Else it
  // may be refused whatever the stream has (ENOTSOCK, EISCONN, EMSGSIZE).
  bool asks_the_stream = false;
  // The caller wants EAGAIN where it would wait.
  bool never_waits = false;
};

class io_step {
 public:
  enum class outcome : std::uint8_t {
    done,      // result() says what the call would return
    wait,      // it would wait, until the file is ready in this direction
    later,     // it would wait, and no event tells when that is over
    delegate,  // it has no non-blocking form here: the kernel has to carry out as_operation()
    occupied,  // a thread makes another transfer by the same open file: disk_transfers.hpp
  };

  io_step(int fd, direction d, const io_traits& about = {}) noexcept
      : fd_(fd), direction_(d), about_(about) {}
  io_step(const io_step&) = delete;
  io_step& operator=(const io_step&) = delete;

  [[nodiscard]] const io_traits& about() const noexcept { return about_; }
  // After one that is done: whether it has taken all that the file had.
  [[nodiscard]] bool drained() const noexcept { return drained_; }
  [[nodiscard]] io_result result() const noexcept { return result_; }
  [[nodiscard]] int fd() const noexcept { return fd_; }
  [[nodiscard]] direction way() const noexcept { return direction_; }
  [[nodiscard]] bool reads() const noexcept { return direction_ == direction::reading; }

 protected:
  outcome done(io_result result) noexcept {
    result_ = result;
    return outcome::done;
  }
  // O_NONBLOCK is as the file's user has set it; without it, a call that cannot be told not to wait may wait.
  template <class Call>
  outcome where_nonblocking(Call&& call) noexcept {
    const io_result flags = kernel(SYS_fcntl, fd_, F_GETFL);
    if (!flags.ok()) {
      return done(flags);
    }
    return (flags.value() & O_NONBLOCK) == 0 ? outcome::delegate : call();
  }
  // A short read of a TCP stream has.
  outcome done_with_stream(io_result result, std::size_t asked_for) noexcept {
    drained_ = reads() && result.ok() && result.value() != 0 && result.value() < asked_for;
    return done(result);
  }

 private:
  int fd_;
  direction direction_;
  io_traits about_;
  bool drained_ = false;
  io_result result_{0};
};

// A transfer that may be one of a file that is no socket.
class file_step : public io_step {
 public:
  [[nodiscard]] bool is_disk() noexcept;

 protected:
  file_step(int fd, direction d, const io_traits& about, file_kind kind) noexcept
      : io_step(fd, d, about), kind_(kind) {}

  // moved: what it came to with RWF_NOWAIT. plain() makes it without, if files of this kind do not know that.
  template <class Plain>
  outcome after_nowait(io_result moved, Plain&& plain) noexcept {
    if (moved.error() == EAGAIN) {
      return is_disk() ? outcome::delegate : outcome::wait;
    }
    if (moved.error() != EOPNOTSUPP) {
      return done(moved);
    }
    return is_disk() ? outcome::delegate : where_nonblocking([&] {
      const io_result now = plain();
      return now.error() == EAGAIN ? outcome::wait : done(now);
    });
  }
  [[nodiscard]] file_kind kind() const noexcept { return kind_; }
  void is_no_socket() noexcept { kind_ = file_kind::no_socket; }

  // A tty, an inotify descriptor and their like have no way of not waiting: the ring calls them where poll(2)
  // has said that something can be done, and a tty then waits for the rest of its line or of what is to be
  // written. So a worker thread of the ring's makes the call, and not this one.
  [[nodiscard]] operation transfer_of(std::span<const iovec> vectors) noexcept;

 private:
  file_kind kind_;
};

// read, write and their vectored forms, on files of every kind.
class file_transfer final : public file_step {
 public:
  // What they are called by shows only where they transfer nothing: write sends an empty datagram, and writev
  // nothing at all.
  enum class form : std::uint8_t { plain, vectored };

  // Of nothing: it is not waited for. Writes of datagrams are tried whatever there is room for: one may be
  // too long.
  file_transfer(int fd, direction d, std::span<const iovec> vectors, form how, file_kind kind,
                disk_transfers& others) noexcept
      : file_step(fd, d,
                  {.out_of_turn = total(vectors) == 0,
                   .asks_the_stream = kind != file_kind::socket || d == direction::reading},
                  kind),
        vectors_(vectors),
        form_(how),
        others_(others) {}

  outcome attempt() noexcept;
  [[nodiscard]] operation as_operation() noexcept { return transfer_of(vectors_); }

 private:
  [[nodiscard]] static std::size_t total(std::span<const iovec> vectors) noexcept;
  [[nodiscard]] bool may_be_socket() const noexcept {
    return kind() == file_kind::tcp_socket || kind() == file_kind::socket || kind() == file_kind::unknown;
  }
  [[nodiscard]] io_result on_socket() const noexcept;
  outcome after_socket(io_result moved) noexcept;
  outcome attempt_otherwise() noexcept;
  outcome on_file() noexcept;

  std::span<const iovec> vectors_;
  form form_;
  disk_transfers& others_;
};

// recv, send, recvfrom, sendto.
class socket_transfer final : public io_step {
 public:
  socket_transfer(int fd, mutable_buffer into, message_flags flags, socket_address* sender,
                  file_kind kind) noexcept;
  socket_transfer(int fd, const_buffer from, message_flags flags, const socket_address* receiver,
                  file_kind kind) noexcept;

  outcome attempt() noexcept;
  [[nodiscard]] operation as_operation() const noexcept { return {}; }  // there is always MSG_DONTWAIT

 private:
  outcome after_call(io_result moved) noexcept;

  std::byte* data_;
  std::size_t size_;
  int flags_;
  file_kind kind_;
  socket_address* sender_ = nullptr;
  const socket_address* receiver_ = nullptr;
};

class accept_step final : public io_step {
 public:
  accept_step(int fd, socket_address* peer) noexcept : io_step(fd, direction::reading), peer_(peer) {}

  outcome attempt() noexcept;
  [[nodiscard]] operation as_operation() noexcept;

 private:
  socket_address* peer_;
};

class connect_step final : public io_step {
 public:
  connect_step(int fd, const socket_address& peer) noexcept
      : io_step(fd, direction::writing), peer_(peer), size_(peer.size()) {}

  outcome attempt() noexcept;
  [[nodiscard]] operation as_operation() noexcept;

 private:
  outcome begin() noexcept;
  outcome progress() noexcept;

  const socket_address& peer_;
  socklen_t size_;
  bool begun_ = false;
};

inline std::size_t file_transfer::total(std::span<const iovec> vectors) noexcept {
  std::size_t sum = 0;
  for (const iovec& v : vectors) {
    sum += v.iov_len;
  }
  return sum;
}

// One buffer and a socket, as it seems: less for the kernel to read and check than a message.
[[gnu::always_inline]] inline io_step::outcome file_transfer::attempt() noexcept {
  if (!may_be_socket() || vectors_.size() != 1 || about().out_of_turn) {
    return attempt_otherwise();
  }
  const iovec& all = vectors_[0];
  return after_socket(uninterrupted([&] {
    return reads()
               ? kernel(SYS_recvfrom, fd(), all.iov_base, all.iov_len, MSG_DONTWAIT, nullptr, nullptr)
               : kernel(SYS_sendto, fd(), all.iov_base, all.iov_len, MSG_DONTWAIT | MSG_NOSIGNAL, nullptr, 0);
  }));
}

[[gnu::always_inline]] inline io_step::outcome socket_transfer::attempt() noexcept {
  return after_call(uninterrupted([&] {
    if (!reads()) {
      return kernel(SYS_sendto, fd(), data_, size_, flags_ | MSG_DONTWAIT | MSG_NOSIGNAL,
                    receiver_ == nullptr ? nullptr : receiver_->data(),
                    receiver_ == nullptr ? 0 : receiver_->size());
    }
    sockaddr* const room = sender_ == nullptr ? nullptr : sender_->room();
    return kernel(SYS_recvfrom, fd(), data_, size_, flags_ | MSG_DONTWAIT, room,
                  room == nullptr ? nullptr : sender_->room_size());
  }));
}

// How the file behind a number is to be asked.
[[nodiscard]] file_kind kind_of(int fd) noexcept;

}  // namespace annulet::detail
