// The baseline of `echo`: raw epoll, level-triggered and edge-triggered. The interest stays registered,
// receiving and sending are tried first, room to send is asked for only after EAGAIN, and a wait takes up to
// 512 events.
#include <array>

#include "echo.hpp"
#include "raw_epoll.hpp"

namespace bench {

void serve_epoll_level(std::span<const int> fds, echo_course& course) {
  std::vector<echo_connection> connections = own_connections(fds);
  raw_epoll events;
  for (std::size_t i = 0; i < connections.size(); ++i) {
    events.add(connections[i].fd(), EPOLLIN, i);
  }
  std::array<char, echo_buffer_size> buffer;
  while (!course.over()) {
    for (const epoll_event& event : events.wait(-1)) {
      echo_connection& connection = connections[event.data.u64];
      const bool waited_for_room = connection.has_unsent();
      if (waited_for_room) {
        connection.send_rest(course);
      } else if (const std::size_t count = connection.receive(buffer)) {
        connection.send({buffer.data(), count}, course);
      }
      if (connection.has_unsent() != waited_for_room) {
        events.modify(connection.fd(), waited_for_room ? EPOLLIN : EPOLLOUT, event.data.u64);
      }
    }
  }
}

void serve_epoll_edge(std::span<const int> fds, echo_course& course) {
  std::vector<echo_connection> connections = own_connections(fds);
  raw_epoll events;
  for (std::size_t i = 0; i < connections.size(); ++i) {
    events.add(connections[i].fd(), EPOLLIN | EPOLLET, i);
  }
  std::array<char, echo_buffer_size> buffer;
  while (!course.over()) {
    for (const epoll_event& event : events.wait(-1)) {
      echo_connection& connection = connections[event.data.u64];
      const bool waited_for_room = connection.has_unsent();
      if (waited_for_room) {
        connection.send_rest(course);
      }
      // A receive that leaves room in the buffer has emptied the socket: the next bytes are a new edge.
      for (std::size_t count = buffer.size(); count == buffer.size() && !connection.has_unsent();) {
        count = connection.receive(buffer);
        if (count > 0) {
          connection.send({buffer.data(), count}, course);
        }
      }
      if (connection.has_unsent() != waited_for_room) {
        // The change of interest looks at the level anew.
        events.modify(connection.fd(), (waited_for_room ? EPOLLIN : EPOLLOUT) | EPOLLET, event.data.u64);
      }
    }
  }
}

}  // namespace bench
