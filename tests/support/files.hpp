// Descriptors for tests: owned, made in pairs, and counted.
#pragma once

#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>

#include <fcntl.h>
#include <netinet/in.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

namespace annulet::test {

// The result of a system call that a test cannot go on without.
inline int require_ok(int result, const char* call) {
  if (result < 0) {
    throw std::system_error(errno, std::generic_category(), call);
  }
  return result;
}

// Closes what it owns with a plain close(2).
class descriptor {
 public:
  descriptor() noexcept = default;
  explicit descriptor(int fd) noexcept : fd_(fd) {}
  descriptor(descriptor&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  descriptor& operator=(descriptor&& other) noexcept {
    std::swap(fd_, other.fd_);
    return *this;
  }
  ~descriptor() { close(); }

  [[nodiscard]] int get() const noexcept { return fd_; }
  [[nodiscard]] int fileno() const noexcept { return fd_; }
  int release() noexcept { return std::exchange(fd_, -1); }
  void close() noexcept {
    if (fd_ >= 0) {
      ::close(std::exchange(fd_, -1));
    }
  }

 private:
  int fd_ = -1;
};

struct pipe_pair {
  descriptor reader;
  descriptor writer;
};

inline pipe_pair make_pipe(int flags = O_NONBLOCK | O_CLOEXEC) {
  int ends[2];
  require_ok(::pipe2(ends, flags), "pipe2");
  return {descriptor(ends[0]), descriptor(ends[1])};
}

struct socket_pair {
  descriptor first;
  descriptor second;
};

inline socket_pair make_socket_pair(int type = SOCK_STREAM) {
  int ends[2];
  require_ok(::socketpair(AF_UNIX, type | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, ends), "socketpair");
  return {descriptor(ends[0]), descriptor(ends[1])};
}

inline descriptor make_eventfd(unsigned count = 0) {
  return descriptor(require_ok(::eventfd(count, EFD_NONBLOCK | EFD_CLOEXEC), "eventfd"));
}

struct tcp_listener {
  descriptor socket;
  std::uint16_t port;
};

// An address of this process alone, of the many that are loopback: no other program's sockets take its ports.
inline sockaddr_in loopback(std::uint16_t port) noexcept {
  const auto process = static_cast<std::uint32_t>(::getpid());
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(port);
  address.sin_addr.s_addr = htonl(0x7f400001U + (process % 0x10000U << 6U));
  return address;
}

// Port 0: one that the kernel chooses.
inline tcp_listener make_tcp_listener(std::uint16_t port = 0) {
  descriptor socket(require_ok(::socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0), "socket"));
  sockaddr_in address = loopback(port);
  auto* const generic = reinterpret_cast<sockaddr*>(&address);
  require_ok(::bind(socket.get(), generic, sizeof(address)), "bind");
  require_ok(::listen(socket.get(), 64), "listen");
  socklen_t size = sizeof(address);
  require_ok(::getsockname(socket.get(), generic, &size), "getsockname");
  return {std::move(socket), ntohs(address.sin_port)};
}

// Both ends of a connection.
inline socket_pair connect_to(const tcp_listener& listener) {
  descriptor client(require_ok(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), "socket"));
  sockaddr_in address = loopback(listener.port);
  require_ok(::connect(client.get(), reinterpret_cast<sockaddr*>(&address), sizeof(address)), "connect");
  require_ok(::fcntl(client.get(), F_SETFL, O_NONBLOCK), "fcntl");
  // Connected on loopback is accepted: it is in the queue already.
  descriptor server(require_ok(
      ::accept4(listener.socket.get(), nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC), "accept4"));
  return {std::move(client), std::move(server)};
}

inline socket_pair make_tcp_pair() { return connect_to(make_tcp_listener()); }

// Closing it forgets the connection at both ends: without TIME_WAIT a test can make any number of them.
inline void reset_on_close(int fd) {
  const linger none{1, 0};
  require_ok(::setsockopt(fd, SOL_SOCKET, SO_LINGER, &none, sizeof(none)), "setsockopt SO_LINGER");
}

inline void send_byte(int fd) { require_ok(static_cast<int>(::write(fd, "x", 1)), "write of one byte"); }

// What a read that does not wait gives: a count, 0 at the end of file, or -errno.
inline int try_read(int fd) noexcept {
  char buffer[4096];
  const auto got = ::read(fd, buffer, sizeof(buffer));
  return got < 0 ? -errno : static_cast<int>(got);
}

// Reads until nothing is left; false where it met the end of file.
inline bool drain(int fd) noexcept {
  for (;;) {
    const int got = try_read(fd);
    if (got <= 0) {
      return got != 0;
    }
  }
}

inline void add_to_eventfd(int fd) {
  const std::uint64_t one = 1;
  require_ok(static_cast<int>(::write(fd, &one, sizeof(one))), "write to an eventfd");
}

inline bool is_open(int fd) noexcept { return ::fcntl(fd, F_GETFD) >= 0; }

inline std::size_t open_descriptors() {
  std::size_t count = 0;
  for ([[maybe_unused]] const auto& entry : std::filesystem::directory_iterator("/proc/self/fd")) {
    ++count;
  }
  return count - 1;  // without the directory itself
}

// How many lines of a file contain a text.
inline std::size_t lines_with(const std::string& path, std::string_view text) {
  std::ifstream file(path);
  std::size_t count = 0;
  for (std::string line; std::getline(file, line);) {
    count += line.find(text) != std::string::npos ? 1U : 0U;
  }
  return count;
}

// What the kernel holds for this process's hubs: poll requests of their rings, entries of their epoll sets.
inline std::size_t held_by_the_kernel() {
  std::size_t count = 0;
  for (const auto& entry : std::filesystem::directory_iterator("/proc/self/fdinfo")) {
    count += lines_with(entry.path(), "op=") + lines_with(entry.path(), "tfd:");
  }
  return count;
}

// The value of a line "name: value" in a file of /proc; 0 where there is none.
inline std::uint64_t proc_value(const std::string& path, const std::string& name, int base = 10) {
  std::ifstream file(path);
  for (std::string line; std::getline(file, line);) {
    if (line.starts_with(name + ":")) {
      return std::strtoull(line.c_str() + name.size() + 1, nullptr, base);
    }
  }
  return 0;
}

}  // namespace annulet::test
