// One system call as a fiber makes it: tried without waiting, and what to do where that will not do.
// Internal.
#pragma once

#include "buffer.hpp"
#include "fd_state.hpp"
#include "message_flags.hpp"
#include "request.hpp"
#include "socket_address.hpp"

#include <cstddef>
#include <cstdint>

#include <sys/uio.h>

namespace annulet::detail {

class io_step {
 public:
  enum class outcome : std::uint8_t {
    done,      // result() says what the call would return
    wait,      // it would wait, until the file is ready in this direction
    later,     // it would wait, and no event tells when that is over
    delegate,  // it has no non-blocking form here: the kernel has to carry out as_operation()
  };

  io_step(const char* name, int fd, direction d) noexcept : name_(name), fd_(fd), direction_(d) {}
  virtual ~io_step() = default;
  io_step(const io_step&) = delete;
  io_step& operator=(const io_step&) = delete;

  virtual outcome attempt() noexcept = 0;
  [[nodiscard]] virtual operation as_operation() noexcept = 0;
  // It takes nothing that others may be waiting for, and what the watch tells is not about it: tried at once,
  // whoever has the turn.
  [[nodiscard]] virtual bool out_of_turn() const noexcept { return false; }
  // What is known of the file's readiness answers it: it need not be tried where there is nothing. Else it
  // may be refused whatever the stream has (ENOTSOCK, EISCONN, EMSGSIZE).
  [[nodiscard]] virtual bool asks_the_stream() const noexcept { return false; }
  // The caller wants EAGAIN where it would wait.
  [[nodiscard]] virtual bool never_waits() const noexcept { return false; }
  // After one that is done: whether it has taken all that the file had.
  [[nodiscard]] virtual bool drained() const noexcept { return false; }

  [[nodiscard]] io_result result() const noexcept { return result_; }
  [[nodiscard]] const char* name() const noexcept { return name_; }
  [[nodiscard]] int fd() const noexcept { return fd_; }
  [[nodiscard]] direction way() const noexcept { return direction_; }
  [[nodiscard]] bool reads() const noexcept { return direction_ == direction::reading; }

 protected:
  outcome done(io_result result) noexcept {
    result_ = result;
    return outcome::done;
  }

 private:
  const char* name_;
  int fd_;
  direction direction_;
  io_result result_{0};
};

// read, write and their vectored forms, on files of every kind.
class file_transfer final : public io_step {
 public:
  file_transfer(const char* name, int fd, direction d, std::span<const iovec> vectors,
                file_kind kind) noexcept;

  outcome attempt() noexcept override;
  [[nodiscard]] operation as_operation() noexcept override;
  [[nodiscard]] bool out_of_turn() const noexcept override;
  [[nodiscard]] bool asks_the_stream() const noexcept override {
    return kind_ != file_kind::socket || reads();
  }
  [[nodiscard]] bool drained() const noexcept override;

 private:
  [[nodiscard]] io_result on_socket() const noexcept;
  outcome on_file() noexcept;
  [[nodiscard]] bool is_disk() noexcept;

  std::span<const iovec> vectors_;
  file_kind kind_;
};

// recv, send, recvfrom, sendto.
class socket_transfer final : public io_step {
 public:
  socket_transfer(const char* name, int fd, mutable_buffer into, message_flags flags, socket_address* sender,
                  file_kind kind) noexcept
      : io_step(name, fd, direction::reading),
        data_(into.data()),
        size_(into.size()),
        flags_(flags.bits()),
        sender_(sender),
        kind_(kind) {}
  socket_transfer(const char* name, int fd, const_buffer from, message_flags flags,
                  const socket_address* receiver, file_kind kind) noexcept
      : io_step(name, fd, direction::writing),
        data_(const_cast<std::byte*>(from.data())),
        size_(from.size()),
        flags_(flags.bits()),
        receiver_(receiver),
        kind_(kind) {}

  outcome attempt() noexcept override;
  [[nodiscard]] operation as_operation() noexcept override { return {}; }  // there is always MSG_DONTWAIT
  [[nodiscard]] bool out_of_turn() const noexcept override { return elsewhere(); }
  [[nodiscard]] bool asks_the_stream() const noexcept override {
    return kind_ == file_kind::tcp_socket || (kind_ == file_kind::socket && reads());
  }
  [[nodiscard]] bool never_waits() const noexcept override { return (flags_ & MSG_DONTWAIT) != 0; }
  [[nodiscard]] bool drained() const noexcept override;

 private:
  // About something else than the stream. Linux never waits for these.
  [[nodiscard]] bool elsewhere() const noexcept {
    return reads() && (flags_ & (MSG_OOB | MSG_ERRQUEUE)) != 0;
  }

  std::byte* data_;
  std::size_t size_;
  int flags_;
  socket_address* sender_ = nullptr;
  const socket_address* receiver_ = nullptr;
  file_kind kind_;
};

class accept_step final : public io_step {
 public:
  accept_step(const char* name, int fd, socket_address* peer) noexcept
      : io_step(name, fd, direction::reading), peer_(peer) {}

  outcome attempt() noexcept override;
  [[nodiscard]] operation as_operation() noexcept override;

 private:
  socket_address* peer_;
};

class connect_step final : public io_step {
 public:
  connect_step(int fd, const socket_address& peer) noexcept
      : io_step("connect", fd, direction::writing), peer_(peer), size_(peer.size()) {}

  outcome attempt() noexcept override;
  [[nodiscard]] operation as_operation() noexcept override;

 private:
  outcome progress() noexcept;

  const socket_address& peer_;
  socklen_t size_;
  bool begun_ = false;
};

// How the file behind a number is to be asked.
[[nodiscard]] file_kind kind_of(int fd) noexcept;

}  // namespace annulet::detail
