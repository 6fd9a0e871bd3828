// `echo` on libevent: a persistent event a connection, recv and send called directly (bufferevent's buffers
// cost it more).
#include <event2/event.h>
#include <array>

#include "echo.hpp"

namespace bench {
namespace {

class libevent_server {
 public:
  libevent_server(std::span<const int> fds, echo_course& course)
      : connections_(own_connections(fds)), course_(course), base_(event_base_new()) {
    if (base_ == nullptr) {
      fail("libevent has no base to give");
    }
    for (echo_connection& connection : connections_) {
      peers_.push_back({this, &connection});
    }
    for (peer& one : peers_) {
      one.readable = make(one, EV_READ | EV_PERSIST, on_readable);
      one.writable = make(one, EV_WRITE | EV_PERSIST, on_writable);
      event_add(one.readable, nullptr);
    }
  }
  ~libevent_server() {
    for (peer& one : peers_) {
      event_free(one.readable);
      event_free(one.writable);
    }
    event_base_free(base_);
  }
  libevent_server(const libevent_server&) = delete;
  libevent_server& operator=(const libevent_server&) = delete;

  void run() { event_base_dispatch(base_); }

 private:
  struct peer {
    libevent_server* server;
    echo_connection* connection;
    event* readable = nullptr;
    event* writable = nullptr;
  };

  event* make(peer& one, short what, event_callback_fn call) {
    event* made = event_new(base_, one.connection->fd(), what, call, &one);
    if (made == nullptr) {
      fail("libevent refused descriptor %d", one.connection->fd());
    }
    return made;
  }

  static void on_readable(evutil_socket_t, short, void* argument) {
    peer& one = *static_cast<peer*>(argument);
    libevent_server& server = *one.server;
    if (const std::size_t count = one.connection->receive(server.buffer_)) {
      one.connection->send({server.buffer_.data(), count}, server.course_);
    }
    if (one.connection->has_unsent()) {
      event_del(one.readable);
      event_add(one.writable, nullptr);
    }
    server.end_if_over();
  }

  static void on_writable(evutil_socket_t, short, void* argument) {
    peer& one = *static_cast<peer*>(argument);
    one.connection->send_rest(one.server->course_);
    if (!one.connection->has_unsent()) {
      event_del(one.writable);
      event_add(one.readable, nullptr);
    }
    one.server->end_if_over();
  }

  void end_if_over() {
    if (course_.over()) {
      event_base_loopbreak(base_);
    }
  }

  std::vector<echo_connection> connections_;
  std::vector<peer> peers_;
  echo_course& course_;
  event_base* base_;
  std::array<char, echo_buffer_size> buffer_;
};

}  // namespace

void serve_libevent(std::span<const int> fds, echo_course& course) { libevent_server(fds, course).run(); }

}  // namespace bench
