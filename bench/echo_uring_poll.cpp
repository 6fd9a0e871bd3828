// `echo` on bare liburing: a multishot poll request a connection that stays armed, and recv and send called
// directly. What annulet does, without fibers.
#include <poll.h>
#include <array>

#include "echo.hpp"
#include "raw_ring.hpp"

namespace bench {
namespace {

class uring_poll_server {
 public:
  uring_poll_server(std::span<const int> fds, echo_course& course)
      : connections_(own_connections(fds)), course_(course) {}

  void run() {
    for (std::size_t i = 0; i < connections_.size(); ++i) {
      arm(i);
    }
    while (!course_.over()) {
      ring_.wait([this](const io_uring_cqe& completion) { on_event(completion); });
    }
  }

 private:
  void arm(std::size_t i) {
    io_uring_sqe& entry = ring_.sqe();
    io_uring_prep_poll_multishot(&entry, connections_[i].fd(), POLLIN);
    io_uring_sqe_set_data64(&entry, i);
  }

  // One-shot: room comes once.
  void ask_for_room(std::size_t i) {
    io_uring_sqe& entry = ring_.sqe();
    io_uring_prep_poll_add(&entry, connections_[i].fd(), POLLOUT);
    io_uring_sqe_set_data64(&entry, i | room);
    asking_[i] = true;
  }

  void on_event(const io_uring_cqe& completion) {
    if (completion.res < 0) {
      fail("echo: a poll request: %s", std::strerror(-completion.res));
    }
    const bool is_room = (completion.user_data & room) != 0;
    const std::size_t i = completion.user_data & ~room;
    echo_connection& connection = connections_[i];
    if (is_room) {
      asking_[i] = false;
      connection.send_rest(course_);
    }
    // A receive that leaves room in the buffer has emptied the socket: the next bytes are a new event.
    for (std::size_t count = buffer_.size(); count == buffer_.size() && !connection.has_unsent();) {
      count = connection.receive(buffer_);
      if (count > 0) {
        connection.send({buffer_.data(), count}, course_);
      }
    }
    if (connection.has_unsent() && !asking_[i]) {
      ask_for_room(i);
    }
    if (!is_room && (completion.flags & IORING_CQE_F_MORE) == 0) {
      arm(i);
    }
  }

  static constexpr std::uint64_t room = std::uint64_t{1} << 63;

  std::vector<echo_connection> connections_;
  std::vector<bool> asking_ = std::vector<bool>(connections_.size());  // for room
  echo_course& course_;
  raw_ring ring_;
  std::array<char, echo_buffer_size> buffer_;
};

}  // namespace

void serve_uring_poll(std::span<const int> fds, echo_course& course) { uring_poll_server(fds, course).run(); }

}  // namespace bench
