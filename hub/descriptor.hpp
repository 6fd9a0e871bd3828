// A descriptor that owns its file: closed when it is destroyed, moved and never copied.
//
//   annulet::descriptor conn = listener.accept();
//   std::array<char, 4096> buffer;
//   while (const std::size_t n = conn.recv(buffer)) {
//     conn.write_all({buffer.data(), n});
//   }
//
// The hub keeps one poll request armed for it, so that waiting costs no request and a receive after its event
// is one call. It may be moved while other fibers are in its calls. Selectors may watch it at the same time.
//
// TCP's urgent data is not seen by it: what follows urgent data may wait for the next event. Who uses that
// calls by the plain number, annulet::recv(conn.fileno(), ...), which remembers nothing.
//
// It belongs to the thread of the hub on which it was made. Calls elsewhere throw wrong_thread, and hub_gone
// when the hub has ended; the destructor then still closes, but on a foreign thread, while the hub lives, it
// ends the process with a message. Where it outlives its hub, nothing else may close its number. To hand the
// file to another thread, release() it here and adopt() it there.
#pragma once

#include "buffer.hpp"
#include "message_flags.hpp"
#include "socket_address.hpp"

#include <annulet/runtime/deadline.hpp>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>

#include <sys/uio.h>

namespace [[gnu::visibility("default")]] annulet {

class descriptor;

namespace detail {

class fd_state;
class hub_core;
class hub_link;
class io_call;
enum class file_kind : std::uint8_t;
// The owner of what a call of ours has just opened; closes it where it throws.
[[nodiscard]] descriptor adopt_new(hub_core& hub, int fd, file_kind kind);

}  // namespace detail

class descriptor {
 public:
  // Owns nothing: every call but the destructor says EBADF.
  descriptor() noexcept = default;
  // Closes the file, without parking. Where the kernel still carries out a call of another fiber on it, that
  // is cancelled and the file is closed when it has ended. With SO_LINGER close(2) itself takes its time, and
  // the thread waits: call close().
  ~descriptor();
  descriptor(descriptor&& other) noexcept;
  descriptor& operator=(descriptor&& other) noexcept;

  // Becomes the owner of an open descriptor, whose flags stay as they are. Throws std::system_error: EBADF
  // where it is not open, EEXIST where another annulet::descriptor of this hub owns it; no_hub;
  // std::bad_alloc. The caller is its owner still where it throws.
  [[nodiscard]] static descriptor adopt(int fd);
  // Gives it up, open, and returns the number. Calls of other fibers on it end with EBADF; parks until the
  // kernel holds none of them any more. Throws EBADF where there is nothing to give up.
  [[nodiscard]] int release();
  // annulet::close for it. Throws EBADF where there is nothing to close.
  // While a dup2 onto its number is parked, release and close throw EBADF, and it stays the owner; where the
  // destructor comes then, the file is closed whatever becomes of the dup2.
  void close();

  // The number, or -1. It stays this object's.
  [[nodiscard]] int fileno() const noexcept { return fd_; }
  [[nodiscard]] explicit operator bool() const noexcept { return fd_ >= 0; }

  // The calls of io.hpp, for this descriptor; what they promise stands there. Const, for what they change is
  // the file, not who owns it.
  std::size_t read(mutable_buffer into, deadline until = deadline::never()) const;
  std::size_t write(const_buffer from, deadline until = deadline::never()) const;
  std::size_t readv(std::span<const iovec> into, deadline until = deadline::never()) const;
  std::size_t writev(std::span<const iovec> from, deadline until = deadline::never()) const;
  std::size_t recv(mutable_buffer into, deadline until = deadline::never()) const;
  std::size_t recv(mutable_buffer into, message_flags flags, deadline until = deadline::never()) const;
  std::size_t send(const_buffer from, deadline until = deadline::never()) const;
  std::size_t send(const_buffer from, message_flags flags, deadline until = deadline::never()) const;
  std::size_t recvfrom(mutable_buffer into, socket_address& sender, message_flags flags = {},
                       deadline until = deadline::never()) const;
  std::size_t sendto(const_buffer from, const socket_address& receiver, message_flags flags = {},
                     deadline until = deadline::never()) const;
  std::size_t read_exactly(mutable_buffer into, deadline until = deadline::never(),
                           std::size_t* done = nullptr) const;
  void write_all(const_buffer from, deadline until = deadline::never(), std::size_t* done = nullptr) const;
  [[nodiscard]] descriptor accept(deadline until = deadline::never()) const;
  [[nodiscard]] descriptor accept(socket_address& peer, deadline until = deadline::never()) const;
  void connect(const socket_address& peer, deadline until = deadline::never()) const;
  std::optional<std::size_t> try_read(mutable_buffer into) const;
  std::optional<std::size_t> try_write(const_buffer from) const;
  std::optional<std::size_t> try_recv(mutable_buffer into, message_flags flags = {}) const;
  std::optional<std::size_t> try_send(const_buffer from, message_flags flags = {}) const;
  [[nodiscard]] std::optional<descriptor> try_accept() const;

 private:
  friend class detail::io_call;
  friend descriptor detail::adopt_new(detail::hub_core& hub, int fd, detail::file_kind kind);

  descriptor(detail::fd_state& file, std::shared_ptr<detail::hub_link> link) noexcept;
  void drop() noexcept;
  struct given_up {
    detail::hub_core& hub;
    detail::fd_state& file;
    int fd;
  };
  given_up give_up(const char* call);

  int fd_ = -1;
  std::uint32_t incarnation_ = 0;  // of the number: it may be closed, and be another's, without us
  detail::fd_state* file_ = nullptr;
  std::shared_ptr<detail::hub_link> link_;  // which keeps what file_ points at, also after the hub
};

// What a call is about: a plain number, or a descriptor, which it does not own.
class file_ref {
 public:
  file_ref(int fd) noexcept : fd_(fd) {}
  file_ref(const descriptor& file) noexcept : fd_(file.fileno()), owner_(&file) {}

  [[nodiscard]] int number() const noexcept { return fd_; }

 private:
  friend class detail::io_call;

  int fd_;
  const descriptor* owner_ = nullptr;
};

}  // namespace annulet
