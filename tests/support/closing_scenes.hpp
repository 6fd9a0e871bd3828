// The files that are closed: sockets, connections, listeners, ends of pipes, and ttys, each with a call that
// waits on it, and with how its end shows at the other side.
#pragma once

#include "files.hpp"
#include "texts.hpp"

#include <annulet/hub/io.hpp>
#include <annulet/runtime/deadline.hpp>
#include <annulet/runtime/fiber.hpp>

#include <array>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <fstream>
#include <string>
#include <string_view>
#include <utility>

#include <fcntl.h>
#include <pty.h>
#include <termios.h>

namespace annulet::test {

// A file, a call on it that waits, and how its end shows at the other side.
class scene {
 public:
  scene() = default;
  virtual ~scene() = default;
  scene(const scene&) = delete;
  scene& operator=(const scene&) = delete;

  [[nodiscard]] int number() const noexcept { return ours.get(); }
  // For whoever closes it.
  int give() noexcept { return ours.release(); }
  virtual void call(file_ref file, deadline until) {
    char byte = 0;
    (void)annulet::read(file, {&byte, 1}, until);
  }
  // Lets one call complete.
  virtual bool let_complete() { return false; }

  virtual bool end_is_there() = 0;
  // Looked for once, without any call of annulet. Of one that is late, says whether it comes without one.
  bool shows_the_end() {
    if (end_is_there()) {
      return true;
    }
    using clock = std::chrono::steady_clock;
    const int first = seen;
    const auto begin = clock::now();
    bool came = false;
    while (!came && clock::now() - begin < std::chrono::milliseconds(100)) {
      came = end_is_there();
    }
    const std::chrono::duration<double, std::micro> time = clock::now() - begin;
    std::printf("note: an end was late: first %d, %s %.1f us without any call of annulet\n", first,
                came ? "then it came after" : "and had not come after", time.count());
    return false;
  }

 protected:
  void block() const { require_ok(::fcntl(ours.get(), F_SETFL, 0), "fcntl"); }

  descriptor ours;
  descriptor theirs;
  int seen = 0;  // what the last look at the other side gave
};

template <bool blocking>
class unix_socket final : public scene {
 public:
  unix_socket() {
    auto pair = make_socket_pair();
    ours = std::move(pair.first);
    theirs = std::move(pair.second);
    if (blocking) {
      block();
    }
  }
  bool let_complete() override {
    send_byte(theirs.get());
    return true;
  }
  bool end_is_there() override { return (seen = try_read(theirs.get())) == 0; }
};

class connection final : public scene {
 public:
  connection() {
    static const tcp_listener listener = make_tcp_listener();
    auto pair = connect_to(listener);
    theirs = std::move(pair.first);
    ours = std::move(pair.second);
    reset_on_close(theirs.get());
  }
  bool let_complete() override {
    send_byte(theirs.get());
    return true;
  }
  bool end_is_there() override {
    seen = try_read(theirs.get());
    if (seen == -EAGAIN && has_sent_fin()) {
      std::printf("note: a connection was closed in time, and its FIN still on the way\n");
      return true;
    }
    return seen == 0;
  }

  // Loopback hands packets on in a softirq, which a busy machine puts off. Our end tells whether it was
  // closed: a file that is held keeps it ESTABLISHED.
  [[nodiscard]] bool has_sent_fin() const {
    const std::string ends =
        text_of(theirs.get(), ::getpeername) + " " + text_of(theirs.get(), ::getsockname);
    std::ifstream connections("/proc/net/tcp");
    for (std::string line; std::getline(connections, line);) {
      if (const auto at = line.find(ends); at != std::string::npos) {
        const std::string state = line.substr(at + ends.size() + 1, 2);
        return state == "04" || state == "05";  // FIN_WAIT1 and FIN_WAIT2
      }
    }
    return false;
  }

 private:
  // As that file has it: the address as it lies in memory, the port in host order.
  static std::string text_of(int socket, int (*which)(int, sockaddr*, socklen_t*)) {
    sockaddr_in address{};
    socklen_t size = sizeof(address);
    require_ok(which(socket, reinterpret_cast<sockaddr*>(&address), &size), "a socket's address");
    std::array<char, 16> text;
    std::snprintf(text.data(), text.size(), "%08X:%04X", address.sin_addr.s_addr,
                  static_cast<unsigned>(ntohs(address.sin_port)));
    return text.data();
  }
};

template <bool blocking>
class port final : public scene {
 public:
  port() {
    auto made = make_tcp_listener();
    ours = std::move(made.socket);
    port_ = made.port;
    if (blocking) {
      block();
    }
  }
  void call(file_ref file, deadline until) override { (void)annulet::accept(file, until); }
  bool end_is_there() override {
    try {
      return make_tcp_listener(port_).port == port_;
    } catch (const std::system_error&) {
      return false;
    }
  }

 private:
  std::uint16_t port_ = 0;
};

class pipe_writer final : public scene {
 public:
  pipe_writer() {
    auto [reader, writer] = make_pipe();
    require_ok(::fcntl(writer.get(), F_SETPIPE_SZ, 4096), "F_SETPIPE_SZ");
    (void)fill(writer.get());
    ours = std::move(writer);
    theirs = std::move(reader);
  }
  void call(file_ref file, deadline until) override {
    (void)annulet::write(file, std::string_view("x"), until);
  }
  bool let_complete() override {
    drain(theirs.get());
    return true;
  }
  bool end_is_there() override {
    drain(theirs.get());
    return (seen = try_read(theirs.get())) == 0;
  }
};

class pipe_reader final : public scene {
 public:
  pipe_reader() {
    auto [reader, writer] = make_pipe();
    ours = std::move(reader);
    theirs = std::move(writer);
  }
  bool let_complete() override {
    send_byte(theirs.get());
    return true;
  }
  bool end_is_there() override { return ((seen = revents_of(theirs.get(), POLLOUT)) & POLLERR) != 0; }
};

template <bool blocking>
class tty final : public scene {
 public:
  tty() {
    int ends[2];
    termios raw{};
    ::cfmakeraw(&raw);
    raw.c_cc[VMIN] = 1;
    require_ok(::openpty(&ends[0], &ends[1], nullptr, &raw, nullptr), "openpty");
    theirs = descriptor(ends[0]);
    ours = descriptor(ends[1]);
    require_ok(::fcntl(theirs.get(), F_SETFL, O_NONBLOCK), "fcntl");
    require_ok(::fcntl(ours.get(), F_SETFL, blocking ? 0 : O_NONBLOCK), "fcntl");
  }
  // A call on a blocking one is made by a worker thread of the kernel's. It may drop the request after the
  // call is over, and the hub's next look at the ring then frees it, with the file.
  bool end_is_there() override {
    const deadline soon = blocking ? deadline(std::chrono::milliseconds(100)) : deadline::past();
    while ((seen = try_read(theirs.get())) != -EIO) {
      if (soon.reached()) {
        return false;
      }
      this_fiber::sleep_for(std::chrono::milliseconds(1));
    }
    return true;
  }
};

}  // namespace annulet::test
