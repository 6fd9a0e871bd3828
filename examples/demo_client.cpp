#include "demo_client.hpp"

#include "demo_meter.hpp"
#include "demo_pattern.hpp"

#include <netinet/tcp.h>
#include <poll.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>
#include <algorithm>
#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstring>
#include <memory>
#include <span>
#include <stdexcept>
#include <string>
#include <vector>

namespace demo {
namespace {

using clock = std::chrono::steady_clock;
using namespace std::chrono_literals;

struct peer {
  int fd = -1;
  std::size_t number = 0;
  std::uint64_t sent = 0, received = 0;  // bytes
  std::uint64_t echoes = 0;
};

// One turn's connections.
class load {
 public:
  explicit load(std::size_t connections) : peers_(connections) {}
  ~load() {
    for (const peer& p : peers_) {
      if (p.fd >= 0) {
        ::close(p.fd);
      }
    }
    ::close(epoll_);
  }
  load(const load&) = delete;
  load& operator=(const load&) = delete;

  void connect_to(const sockaddr_in& server) {
    if (epoll_ < 0) {
      fail("the client's epoll_create1");
    }
    for (std::size_t i = 0; i < peers_.size(); ++i) {
      connect(peers_[i], server, i);
    }
  }

  client_report run(clock::time_point end) {
    for (peer& p : peers_) {
      send_next(p);
    }
    std::array<epoll_event, 512> ready;
    while (waiting_ > 0) {
      const int count = ::epoll_wait(epoll_, ready.data(), static_cast<int>(ready.size()), patience);
      if (count == 0) {
        throw std::runtime_error("the client has had no answer for 10 s on " + std::to_string(waiting_) +
                                 " connections");
      }
      if (count < 0 && errno != EINTR) {
        fail("the client's epoll_wait");
      }
      const bool over = clock::now() >= end;
      for (const epoll_event& event : std::span(ready).first(static_cast<std::size_t>(std::max(count, 0)))) {
        receive(*static_cast<peer*>(event.data.ptr), over);
      }
    }
    report_.connections = peers_.size();
    return report_;
  }

 private:
  static constexpr int patience = 10'000;                  // ms
  static constexpr std::uint64_t most_echoes = 1'000'000;  // on a connection: an end to any turn

  // The socket is a blocking one: so little is on its way at any time that a send does not wait.
  void connect(peer& p, const sockaddr_in& server, std::size_t number) {
    p.number = number;
    p.fd = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    const int on = 1;
    if (p.fd < 0 || ::setsockopt(p.fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on) != 0 ||
        ::connect(p.fd, reinterpret_cast<const sockaddr*>(&server), sizeof server) != 0) {
      fail("the client's connection " + std::to_string(number));
    }
    epoll_event event{.events = EPOLLIN, .data = {.ptr = &p}};
    if (::epoll_ctl(epoll_, EPOLL_CTL_ADD, p.fd, &event) != 0) {
      fail("the client's epoll_ctl");
    }
  }

  void send_next(peer& p) {
    const std::size_t size = message_size(p.number, p.echoes);
    const ssize_t sent = ::send(p.fd, pattern_->at(p.number, p.sent), size, MSG_NOSIGNAL);
    if (sent != static_cast<ssize_t>(size)) {
      fail("the client's send on connection " + std::to_string(p.number));
    }
    p.sent += size;
    ++waiting_;
  }

  void receive(peer& p, bool over) {
    std::array<char, longest_message> data;
    const ssize_t got = ::recv(p.fd, data.data(), data.size(), MSG_DONTWAIT);
    if (got < 0 && (errno == EAGAIN || errno == EINTR)) {
      return;
    }
    const auto size = static_cast<std::size_t>(std::max<ssize_t>(got, 0));
    const bool right = got > 0 && size <= p.sent - p.received &&
                       std::memcmp(data.data(), pattern_->at(p.number, p.received), size) == 0;
    if (!right) {
      complain(p, got);
    }
    p.received += size;
    report_.bytes += size;
    if (p.received == p.sent) {
      --waiting_;
      ++report_.echoes;
      if (++p.echoes < most_echoes && !over) {
        send_next(p);
      }
    }
  }

  [[noreturn]] static void complain(const peer& p, ssize_t got) {
    const std::string where = " on connection " + std::to_string(p.number) + ", after " +
                              std::to_string(p.received) + " right bytes";
    if (got < 0) {
      fail("the client's recv" + where);
    }
    if (got == 0) {
      throw std::runtime_error("the server has closed" + where);
    }
    throw std::runtime_error("what came back is not what was sent" + where);
  }

  std::unique_ptr<const pattern> pattern_ = std::make_unique<pattern>();
  int epoll_ = ::epoll_create1(EPOLL_CLOEXEC);
  std::vector<peer> peers_;
  std::size_t waiting_ = 0;  // connections whose message has not come back
  client_report report_;
};

// The control socket keeps messages apart: an order is a number of milliseconds, to start is the number 0.
using order_message = std::int64_t;

// Nothing where the other side has gone: then there is nobody to work for.
std::optional<order_message> next_order(int control) {
  order_message order = 0;
  const ssize_t got = ::recv(control, &order, sizeof order, 0);
  return got == sizeof order ? std::optional(order) : std::nullopt;
}

void take_orders(int control, const sockaddr_in& server, std::size_t connections) {
  while (const auto time = next_order(control)) {
    client_report report;
    std::optional<load> turn;
    try {
      turn.emplace(connections).connect_to(server);
      if (!next_order(control)) {
        return;
      }
      report = turn->run(clock::now() + std::chrono::milliseconds(*time));
    } catch (const std::exception& e) {
      std::snprintf(report.problem.data(), report.problem.size(), "%s", e.what());
    }
    (void)::send(control, &report, sizeof report, MSG_NOSIGNAL);
  }
}

}  // namespace

client::client(const sockaddr_in& server, std::size_t connections, std::optional<int> cpu) {
  std::array<int, 2> ends;
  if (::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends.data()) != 0) {
    fail("socketpair");
  }
  control_ = ends[0];
  const pid_t parent = ::getpid();
  child_ = ::fork();
  if (child_ < 0) {
    fail("fork");
  }
  if (child_ == 0) {
    // Whatever happens to the other process, this one does not stay behind.
    ::prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (::getppid() == parent) {
      ::close(control_);
      pin_to(cpu);
      take_orders(ends[1], server, connections);
    }
    ::_exit(0);
  }
  ::close(ends[1]);
}

client::~client() {
  ::close(control_);
  ::kill(child_, SIGKILL);
  while (::waitpid(child_, nullptr, 0) < 0 && errno == EINTR) {
  }
}

void client::order(std::chrono::milliseconds time) const {
  const order_message order = time.count();
  if (::send(control_, &order, sizeof order, MSG_NOSIGNAL) != sizeof order) {
    fail("the client's process cannot be told what to do");
  }
}

void client::start() const { order(0ms); }

client_report client::report() const {
  client_report report;
  if (::recv(control_, &report, sizeof report, MSG_DONTWAIT) != sizeof report) {
    throw std::runtime_error("the client's process has died");
  }
  if (report.problem.front() != '\0') {
    throw std::runtime_error(report.problem.data());
  }
  return report;
}

}  // namespace demo
