// The demo's echo server: one piece of code over either of two pollers, so that nothing else differs.
#pragma once

#include "demo_client.hpp"
#include "demo_meter.hpp"

#include <annulet/runtime/this_fiber.hpp>
#include <annulet/selector/selector.hpp>

#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>
#include <algorithm>
#include <array>
#include <cerrno>
#include <span>
#include <stdexcept>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

namespace demo {

using annulet::io_event;
using clock = std::chrono::steady_clock;

struct connection {
  explicit connection(int open) : fd(open) {}
  [[nodiscard]] int fileno() const { return fd; }

  int fd;
  std::string unsent;  // what the socket did not take yet; until it has, nothing more is read
  io_event waits_for = io_event::read;
};

// A poller's wait() calls a function with each connection that is ready; it returns false where none was
// until the time given.

class selector_poller {
 public:
  void add(connection& c) { selector_.register_(c, c.waits_for, &c); }
  void change(connection& c) { selector_.modify(c, c.waits_for, &c); }
  void remove(connection& c) { selector_.unregister(c); }

  template <class F>
  bool wait(clock::time_point until, F on_ready) {
    selector_.select(ready_, until);
    for (const auto& [key, events] : ready_) {
      on_ready(*key->data);
      annulet::this_fiber::yield();  // many may be ready at once: the others need not wait for all of them
    }
    return !ready_.empty();
  }

 private:
  using selector = annulet::basic_selector<connection*>;
  selector selector_;
  std::vector<selector::ready_type> ready_;
};

class epoll_poller {
 public:
  epoll_poller() {
    if (epoll_ < 0) {
      fail("epoll_create1");
    }
  }
  ~epoll_poller() { ::close(epoll_); }
  epoll_poller(const epoll_poller&) = delete;
  epoll_poller& operator=(const epoll_poller&) = delete;

  void add(connection& c) { control(EPOLL_CTL_ADD, c); }
  void change(connection& c) { control(EPOLL_CTL_MOD, c); }
  void remove(connection& c) { control(EPOLL_CTL_DEL, c); }

  template <class F>
  bool wait(clock::time_point until, F on_ready) {
    const auto left = std::chrono::ceil<std::chrono::milliseconds>(until - clock::now()).count();
    int count = 0;
    do {
      count = ::epoll_wait(epoll_, ready_.data(), static_cast<int>(ready_.size()),
                           static_cast<int>(std::max<decltype(left)>(left, 0)));
    } while (count < 0 && errno == EINTR);
    if (count < 0) {
      fail("epoll_wait");
    }
    for (const epoll_event& event : std::span(ready_).first(static_cast<std::size_t>(count))) {
      on_ready(*static_cast<connection*>(event.data.ptr));
    }
    return count > 0;
  }

 private:
  void control(int operation, connection& c) {
    epoll_event event{.events = has(c.waits_for, io_event::read) ? EPOLLIN : EPOLLOUT, .data = {.ptr = &c}};
    if (::epoll_ctl(epoll_, operation, c.fd, &event) != 0) {
      fail("epoll_ctl");
    }
  }

  int epoll_ = ::epoll_create1(EPOLL_CLOEXEC);
  std::array<epoll_event, 512> ready_;
};

// What the whole turn has to do with.
struct assignment {
  int listener;
  const client& peer;
  const syscall_counter* counter;  // null: only the clocks are read
  std::size_t connections;
  std::chrono::milliseconds time;
};

// From the moment that all connections are there until the client has all its echoes.
struct turn_result {
  std::uint64_t connections = 0, echoes = 0, bytes = 0;
  std::uint64_t events = 0;               // connections that the poller found ready
  std::optional<std::uint64_t> syscalls;  // where they were counted
  std::chrono::nanoseconds time{}, cpu{};
  std::chrono::nanoseconds waited{};  // ready to run, while others had the CPU
};

template <class Poller>
class server {
 public:
  explicit server(const assignment& a) : order_(a), listener_(a.listener), control_(a.peer.fileno()) {}
  ~server() {
    for (auto& [fd, c] : connections_) {
      ::close(fd);
    }
  }
  server(const server&) = delete;
  server& operator=(const server&) = delete;

  // Throws std::runtime_error where anything is not as it must be.
  turn_result run() {
    poller_.add(listener_);
    poller_.add(control_);
    order_.peer.order(order_.time);
    const auto latest = clock::now() + order_.time + std::chrono::seconds(15);
    while (!ended_ || !connections_.empty()) {
      if (!poller_.wait(latest, [this](connection& c) { serve(c); })) {
        throw std::runtime_error("a turn has not ended 15 s after its time");
      }
    }
    if (received_ != result_.bytes || sent_ != result_.bytes) {
      throw std::runtime_error("the server took " + std::to_string(received_) + " bytes and gave " +
                               std::to_string(sent_) + ", but the client counted " +
                               std::to_string(result_.bytes));
    }
    return result_;
  }

 private:
  void serve(connection& c) {
    if (&c == &listener_) {
      accept();
      return;
    }
    if (&c == &control_) {
      end();
      return;
    }
    if (began_ && !ended_) {
      ++result_.events;
    }
    if (c.unsent.empty()) {
      read(c);
    } else {
      write(c, c.unsent);
    }
  }

  void accept() {
    const int fd = ::accept4(listener_.fd, nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd < 0 && (errno == EAGAIN || errno == EINTR)) {
      return;
    }
    if (fd < 0) {
      fail("accept4");
    }
    connection& c = connections_.try_emplace(fd, fd).first->second;
    poller_.add(c);
    if (++result_.connections == order_.connections) {
      begin();
    }
  }

  // These two bound what is measured.
  void begin() {
    result_.waited = waited_for_cpu();
    began_ = clock::now();
    result_.cpu = thread_cpu();
    result_.syscalls = syscalls_so_far();
    order_.peer.start();
  }
  void end() {
    if (result_.syscalls) {
      *result_.syscalls = syscalls_so_far().value_or(0) - *result_.syscalls;
    }
    result_.cpu = thread_cpu() - result_.cpu;
    result_.time = clock::now() - *began_;
    result_.waited = waited_for_cpu() - result_.waited;
    const client_report report = order_.peer.report();
    result_.echoes = report.echoes;
    result_.bytes = report.bytes;
    ended_ = true;
    poller_.remove(control_);
  }
  [[nodiscard]] std::optional<std::uint64_t> syscalls_so_far() const {
    return order_.counter == nullptr ? std::nullopt : order_.counter->count();
  }

  // Straight from the buffer in the common case.
  void read(connection& c) {
    const ssize_t got = ::recv(c.fd, buffer_.data(), buffer_.size(), 0);
    if (got > 0) {
      const auto size = static_cast<std::size_t>(got);
      received_ += size;
      write(c, std::string_view(buffer_.data(), size));
    } else if (got == 0) {
      poller_.remove(c);
      ::close(c.fd);
      connections_.erase(c.fd);
    } else if (errno != EAGAIN && errno != EINTR) {
      fail("recv");
    }
  }

  void write(connection& c, std::string_view bytes) {
    ssize_t sent = ::send(c.fd, bytes.data(), bytes.size(), MSG_NOSIGNAL);
    if (sent < 0 && errno != EAGAIN && errno != EINTR) {
      fail("send");
    }
    const auto taken = static_cast<std::size_t>(std::max<ssize_t>(sent, 0));
    sent_ += taken;
    const io_event next = taken < bytes.size() ? io_event::write : io_event::read;
    if (taken < bytes.size() || !c.unsent.empty()) {
      c.unsent = std::string(bytes.substr(taken));
    }
    if (next != c.waits_for) {
      c.waits_for = next;
      poller_.change(c);
    }
  }

  const assignment& order_;
  connection listener_, control_;
  std::unordered_map<int, connection> connections_;
  std::array<char, 16 * 1024> buffer_;
  std::uint64_t received_ = 0, sent_ = 0;
  std::optional<clock::time_point> began_;
  bool ended_ = false;
  turn_result result_;
  Poller poller_;  // ends first: it watches all of these
};

}  // namespace demo
