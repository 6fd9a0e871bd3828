#include "echo_client.hpp"

#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>
#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <random>

#include "harness.hpp"
#include "raw_epoll.hpp"
#include "tcp.hpp"

namespace bench {
namespace {

constexpr std::size_t receive_size = 64 * 1024;
constexpr int patience_ms = 10'000;

struct order_message {
  std::uint64_t echoes;
  double interval_ns;  // 0: as fast as they come back
};

std::uint64_t now_ns() {
  timespec time{};
  clock_gettime(CLOCK_MONOTONIC, &time);
  return static_cast<std::uint64_t>(time.tv_sec) * 1'000'000'000 + static_cast<std::uint64_t>(time.tv_nsec);
}

std::uint64_t own_sleeps() {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  return static_cast<std::uint64_t>(usage.ru_nvcsw);
}

// What all connections send: one long pattern, over and over, each from a place of its own. It is longer by
// one receive than the period, so what is sent and what is awaited always lies there in one piece.
class byte_pattern {
 public:
  byte_pattern() : bytes_(period + receive_size) {
    std::minstd_rand random(11);
    std::generate_n(bytes_.begin(), period, [&] { return static_cast<char>(random() >> 7); });
    std::copy_n(bytes_.begin(), receive_size, bytes_.begin() + period);
  }
  static std::size_t start_of(std::size_t connection) { return connection * 7919 % period; }
  static void advance(std::size_t& place, std::size_t count) { place = (place + count) % period; }
  const char* at(std::size_t place) const { return bytes_.data() + place; }

 private:
  static constexpr std::size_t period = 65'521;  // no message size divides it
  std::vector<char> bytes_;
};

class generator {
 public:
  generator(const echo_load& load, std::span<const int> fds) : load_(load) {
    for (std::size_t i = 0; i < fds.size(); ++i) {
      const std::size_t start = byte_pattern::start_of(i);
      connections_.push_back({.fd = fds[i], .sent_to = start, .received_to = start});
      events_.add(fds[i], EPOLLIN, i);
    }
  }

  void run(const order_message& order) {
    unsent_ = order.echoes;
    awaited_ = order.echoes;
    order.interval_ns > 0 ? run_paced(order.interval_ns) : run_saturated();
  }

 private:
  struct connection {
    int fd;
    std::size_t sent_to, received_to;  // places in the pattern
    std::size_t part = 0;              // bytes of a message that has not come back whole
    std::size_t under_way = 0;         // messages
  };

  void run_saturated() {
    for (connection& one : connections_) {
      send(one, load_.outstanding);
    }
    while (awaited_ > 0) {
      const auto ready = events_.wait(patience_ms);
      if (ready.empty()) {
        fail("echo: the server has not echoed anything for 10 s");
      }
      for (const epoll_event& event : ready) {
        connection& one = connections_[event.data.u64];
        send(one, receive(one));
      }
    }
  }

  // Nothing that was missed is made up for: behind a stall there is no burst.
  void run_paced(double interval_ns) {
    constexpr std::uint64_t stall_ns = 1'000'000;
    const auto interval = static_cast<std::uint64_t>(interval_ns);
    std::uint64_t due = now_ns(), heard = due;
    std::size_t turn = 0;
    while (awaited_ > 0) {
      const std::uint64_t now = now_ns();
      if (connection& one = connections_[turn]; unsent_ > 0 && now >= due && one.under_way == 0) {
        send(one, 1);
        turn = turn + 1 == connections_.size() ? 0 : turn + 1;
        due = now - due > stall_ns ? now + interval : due + interval;
      }
      for (const epoll_event& event : events_.wait(0)) {
        receive(connections_[event.data.u64]);
        heard = now;
      }
      if (now - heard > std::uint64_t{patience_ms} * 1'000'000) {
        fail("echo: the server has not echoed anything for 10 s");
      }
    }
  }

  void send(connection& one, std::size_t messages) {
    messages = static_cast<std::size_t>(std::min<std::uint64_t>(messages, unsent_));
    for (std::size_t i = 0; i < messages; ++i) {
      const std::size_t size = load_.message;
      const ssize_t sent = ::send(one.fd, pattern_.at(one.sent_to), size, MSG_NOSIGNAL | MSG_DONTWAIT);
      if (sent != static_cast<ssize_t>(size)) {
        fail("echo: the client's send: %s", sent < 0 ? std::strerror(errno) : "the socket is full");
      }
      byte_pattern::advance(one.sent_to, size);
    }
    one.under_way += messages;
    unsent_ -= messages;
  }

  // Returns how many messages are back whole with that.
  std::size_t receive(connection& one) {
    const ssize_t received = ::recv(one.fd, buffer_.data(), buffer_.size(), MSG_DONTWAIT);
    if (received <= 0) {
      fail("echo: the client's recv: %s", received < 0 ? std::strerror(errno) : "the server has closed");
    }
    const auto size = static_cast<std::size_t>(received);
    if (std::memcmp(buffer_.data(), pattern_.at(one.received_to), size) != 0) {
      fail("echo: what came back is not what was sent");
    }
    byte_pattern::advance(one.received_to, size);
    const std::size_t whole = (one.part + size) / load_.message;
    one.part = (one.part + size) % load_.message;
    if (whole > one.under_way || (whole == one.under_way && one.part > 0)) {
      fail("echo: more came back than was sent");
    }
    one.under_way -= whole;
    awaited_ -= whole;
    return whole;
  }

  const echo_load load_;
  const byte_pattern pattern_;
  std::vector<connection> connections_;
  raw_epoll events_;
  std::uint64_t unsent_ = 0;   // messages
  std::uint64_t awaited_ = 0;  // that have not come back
  std::array<char, receive_size> buffer_;
};

// What the process does: one order after the other, until its parent hangs up.
void generate(const echo_load& load, std::span<const int> fds, int control) {
  generator source(load, fds);
  for (order_message order{}; ::read(control, &order, sizeof order) == sizeof order;) {
    const std::uint64_t before = own_sleeps();
    source.run(order);
    const std::uint64_t slept = own_sleeps() - before;
    if (::write(control, &slept, sizeof slept) != sizeof slept) {
      return;
    }
  }
}

}  // namespace

struct echo_client::ends {
  std::vector<int> server, client;
  std::array<int, 2> control;
};

echo_client::ends echo_client::connect(std::size_t count) {
  ends made;
  const tcp_listener listener;
  for (std::size_t i = 0; i < count; ++i) {
    made.client.push_back(connect_to(listener.port()));
    const int accepted = ::accept4(listener.fd(), nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (accepted < 0) {
      fail("accept: %s", std::strerror(errno));
    }
    set_no_delay(accepted);
    made.server.push_back(accepted);
  }
  if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, made.control.data()) != 0) {
    fail("socketpair: %s", std::strerror(errno));
  }
  return made;
}

bool echo_client::possible(std::size_t connections) { return 2 * connections + 100 <= open_file_limit(); }

echo_client::echo_client(const echo_load& load, int processor)
    : echo_client(load, processor, connect(load.connections)) {}

echo_client::echo_client(const echo_load& load, int processor, ends made)
    : server_ends_(std::move(made.server)), control_(made.control[0]), child_(processor, [&] {
        for (const int fd : server_ends_) {
          ::close(fd);
        }
        ::close(control_);
        generate(load, made.client, made.control[1]);
      }) {
  for (const int fd : made.client) {
    ::close(fd);
  }
  ::close(made.control[1]);
}

echo_client::~echo_client() {
  child_.expect_end();
  ::close(control_);
  for (const int fd : server_ends_) {
    ::close(fd);
  }
}

void echo_client::order(std::uint64_t echoes, double interval_ns) {
  const order_message order{echoes, interval_ns};
  if (::write(control_, &order, sizeof order) != sizeof order) {
    fail("echo: the client takes no order: %s", std::strerror(errno));
  }
}

std::uint64_t echo_client::sleeps() {
  std::uint64_t slept = 0;
  if (::read(control_, &slept, sizeof slept) != sizeof slept) {
    fail("echo: the client has not answered");
  }
  return slept;
}

}  // namespace bench
