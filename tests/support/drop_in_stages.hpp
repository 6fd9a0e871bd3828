// What a drop-in waits for, made to come at a moment of the test's choice, with an account of what went in
// and what came out: bytes or connections.
#pragma once

#include "../drop_in_calls.h"
#include "files.hpp"

#include <doctest/doctest.h>

#include <array>
#include <cerrno>
#include <cstddef>
#include <memory>
#include <utility>
#include <vector>

#include <fcntl.h>
#include <poll.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/un.h>

namespace annulet::test {

class drop_in_stage {
 public:
  virtual ~drop_in_stage() = default;

  // Before each call.
  virtual void prepare(bool) {}
  // What the call waits for comes.
  virtual void provoke() = 0;
  [[nodiscard]] virtual bool would_wait() const = 0;
  // After the call, which returned this: nothing is lost, and all is as it was at first.
  virtual void settle(long result) = 0;

  [[nodiscard]] const drop_in_ends& ends() const noexcept { return ends_; }

 protected:
  [[nodiscard]] static bool is_ready(int fd, short events) {
    pollfd one{fd, events, 0};
    return require_ok(::poll(&one, 1, 0), "poll") == 1;
  }
  [[nodiscard]] static std::pair<descriptor, descriptor> blocking_pair() {
    std::array<int, 2> pair{};
    require_ok(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair.data()), "socketpair");
    return {descriptor(pair[0]), descriptor(pair[1])};
  }
  [[nodiscard]] static descriptor unix_socket() {
    return descriptor(require_ok(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0), "socket"));
  }

  drop_in_ends ends_{.fd = -1, .epoll = -1, .bytes = nullptr, .size = 0, .peer = nullptr, .peer_size = 0};
};

class byte_stage final : public drop_in_stage {
 public:
  explicit byte_stage(bool takes) : takes_(takes) {
    epoll_event event{EPOLLIN, {}};
    require_ok(::epoll_ctl(set_.get(), EPOLL_CTL_ADD, pair_.first.get(), &event), "epoll_ctl");
    ends_.fd = pair_.first.get();
    ends_.epoll = set_.get();
  }
  void provoke() override {
    send_byte(pair_.second.get());
    ++sent_;
  }
  [[nodiscard]] bool would_wait() const override { return !is_ready(ends_.fd, POLLIN); }
  void settle(long result) override {
    const std::size_t taken = takes_ && result > 0 ? 1 : 0;
    std::array<char, 8> rest{};
    const ssize_t left = ::recv(ends_.fd, rest.data(), rest.size(), MSG_DONTWAIT);
    CHECK(taken + static_cast<std::size_t>(left > 0 ? left : 0) == sent_);
    sent_ = 0;
  }

 private:
  const bool takes_;
  std::pair<descriptor, descriptor> pair_ = blocking_pair();
  descriptor set_{require_ok(::epoll_create1(EPOLL_CLOEXEC), "epoll_create1")};
  std::size_t sent_ = 0;
};

// Full, so that one byte has to wait, and much has to wait again.
class room_stage final : public drop_in_stage {
 public:
  room_stage() {
    const int least = 1;
    require_ok(::setsockopt(pair_.first.get(), SOL_SOCKET, SO_SNDBUF, &least, sizeof(least)), "setsockopt");
    ends_.fd = pair_.first.get();
    ends_.bytes = bytes_.data();
    fill();
  }
  void prepare(bool much) override { ends_.size = much ? bytes_.size() : 1; }
  void provoke() override {
    std::array<char, 16384> into{};
    for (;;) {
      const ssize_t got = ::recv(pair_.second.get(), into.data(), into.size(), MSG_DONTWAIT);
      if (got <= 0) {
        break;
      }
      came_out_ += static_cast<std::size_t>(got);
    }
  }
  [[nodiscard]] bool would_wait() const override { return !is_ready(ends_.fd, POLLOUT); }
  void settle(long result) override {
    went_in_ += result > 0 ? static_cast<std::size_t>(result) : 0;
    provoke();
    CHECK(came_out_ == went_in_);
    fill();
  }

 private:
  void fill() {
    for (;;) {
      const ssize_t sent = ::send(ends_.fd, bytes_.data(), 512, MSG_DONTWAIT);
      if (sent <= 0) {
        break;
      }
      went_in_ += static_cast<std::size_t>(sent);
    }
  }

  std::pair<descriptor, descriptor> pair_ = blocking_pair();
  std::vector<char> bytes_ = std::vector<char>(32768);
  std::size_t went_in_ = 0;
  std::size_t came_out_ = 0;
};

// A listener with a name that the kernel chose.
class listening_stage : public drop_in_stage {
 protected:
  explicit listening_stage(int backlog) {
    sockaddr_un any{};
    any.sun_family = AF_UNIX;
    require_ok(::bind(listener_.get(), reinterpret_cast<const sockaddr*>(&any), sizeof(any.sun_family)),
               "bind");
    require_ok(::getsockname(listener_.get(), reinterpret_cast<sockaddr*>(&name_), &name_size_),
               "getsockname");
    require_ok(::listen(listener_.get(), backlog), "listen");
  }
  // Whether it was let in at once.
  [[nodiscard]] bool connect_at_once(int socket) const {
    require_ok(::fcntl(socket, F_SETFL, O_NONBLOCK), "fcntl");
    return ::connect(socket, reinterpret_cast<const sockaddr*>(&name_), name_size_) == 0;
  }
  // Accepts all who are there. How many.
  std::size_t accept_all() {
    std::size_t count = 0;
    while (is_ready(listener_.get(), POLLIN)) {
      descriptor(require_ok(::accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC), "accept4"));
      ++count;
    }
    return count;
  }

  descriptor listener_ = unix_socket();
  sockaddr_un name_{};
  socklen_t name_size_ = sizeof(name_);
};

class connection_stage final : public listening_stage {
 public:
  connection_stage() : listening_stage(4) { ends_.fd = listener_.get(); }
  void provoke() override {
    client_ = unix_socket();
    REQUIRE(connect_at_once(client_.get()));
    ++connected_;
  }
  [[nodiscard]] bool would_wait() const override { return !is_ready(ends_.fd, POLLIN); }
  void settle(long result) override {
    if (result >= 0) {
      descriptor(static_cast<int>(result));
    }
    CHECK((result >= 0 ? 1U : 0U) + accept_all() == connected_);
    client_.close();
    connected_ = 0;
  }

 private:
  descriptor client_;
  std::size_t connected_ = 0;
};

// As many wait to be accepted as may, so that the next has to wait to be one of them.
class acceptance_stage final : public listening_stage {
 public:
  acceptance_stage() : listening_stage(0) {
    ends_.peer = reinterpret_cast<const sockaddr*>(&name_);
    ends_.peer_size = name_size_;
    crowd();
  }
  void prepare(bool) override {
    mine_ = unix_socket();
    ends_.fd = mine_.get();
  }
  void provoke() override {
    descriptor(require_ok(::accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC), "accept4"));
    ++accepted_;
  }
  [[nodiscard]] bool would_wait() const override { return accepted_ == 0; }
  void settle(long result) override {
    CHECK(accepted_ + accept_all() == crowd_.size() + (result > 0 ? 1U : 0U));
    mine_.close();
    accepted_ = 0;
    crowd();
  }

 private:
  void crowd() {
    crowd_.clear();
    for (;;) {
      descriptor one = unix_socket();
      if (!connect_at_once(one.get())) {
        break;
      }
      crowd_.push_back(std::move(one));
    }
  }

  descriptor mine_;
  std::vector<descriptor> crowd_;
  std::size_t accepted_ = 0;
};

[[nodiscard]] inline std::unique_ptr<drop_in_stage> stage_for(drop_in_event event) {
  switch (event) {
    case EVENT_ROOM:
      return std::make_unique<room_stage>();
    case EVENT_CONNECTION:
      return std::make_unique<connection_stage>();
    case EVENT_ACCEPTANCE:
      return std::make_unique<acceptance_stage>();
    default:
      return std::make_unique<byte_stage>(event == EVENT_BYTE_TAKEN);
  }
}

}  // namespace annulet::test
