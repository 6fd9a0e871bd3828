// `echo` on bare liburing by requests: a RECV, then a SEND of what it brought, then the next RECV.
#include <memory>

#include "echo.hpp"
#include "raw_ring.hpp"

namespace bench {
namespace {

class uring_request_server {
 public:
  uring_request_server(std::span<const int> fds, echo_course& course)
      : connections_(own_connections(fds)), states_(connections_.size()), course_(course) {}

  void run() {
    for (std::size_t i = 0; i < connections_.size(); ++i) {
      states_[i].buffer = std::make_unique_for_overwrite<char[]>(echo_buffer_size);
      receive(i);
    }
    while (!course_.over()) {
      ring_.wait([this](const io_uring_cqe& completion) { on_completion(completion); });
    }
    end_receives();
  }

 private:
  struct state {
    std::unique_ptr<char[]> buffer = {};
    std::size_t received = 0, sent = 0;
    bool sends = false;
  };

  void receive(std::size_t i) {
    states_[i].sends = false;
    io_uring_sqe& entry = ring_.sqe();
    io_uring_prep_recv(&entry, connections_[i].fd(), states_[i].buffer.get(), echo_buffer_size, 0);
    io_uring_sqe_set_data64(&entry, i);
  }

  void send(std::size_t i) {
    state& now = states_[i];
    now.sends = true;
    io_uring_sqe& entry = ring_.sqe();
    io_uring_prep_send(&entry, connections_[i].fd(), now.buffer.get() + now.sent, now.received - now.sent,
                       MSG_NOSIGNAL);
    io_uring_sqe_set_data64(&entry, i);
  }

  void on_completion(const io_uring_cqe& completion) {
    const std::size_t i = completion.user_data;
    state& now = states_[i];
    if (completion.res <= 0) {
      fail("echo: a %s request: %s", now.sends ? "SEND" : "RECV", std::strerror(-completion.res));
    }
    const auto count = static_cast<std::size_t>(completion.res);
    if (!now.sends) {
      now.received = count;
      now.sent = 0;
      send(i);
      return;
    }
    now.sent += count;
    course_.echoed(count);
    now.sent < now.received ? send(i) : receive(i);
  }

  // The kernel writes into the buffers as long as a request is there.
  void end_receives() {
    for (std::size_t i = 0; i < states_.size(); ++i) {
      io_uring_sqe& entry = ring_.sqe();
      io_uring_prep_cancel64(&entry, i, 0);
      io_uring_sqe_set_data64(&entry, cancellation);
    }
    for (std::size_t left = states_.size(); left > 0;) {
      ring_.wait(
          [&](const io_uring_cqe& completion) { left -= completion.user_data == cancellation ? 0 : 1; });
    }
  }

  static constexpr std::uint64_t cancellation = ~std::uint64_t{0};

  std::vector<echo_connection> connections_;
  std::vector<state> states_;
  echo_course& course_;
  raw_ring ring_;
};

}  // namespace

void serve_uring_requests(std::span<const int> fds, echo_course& course) {
  uring_request_server(fds, course).run();
}

}  // namespace bench
