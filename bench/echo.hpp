// What the servers of `echo` have in common. Each is one function that echoes on connections it is given,
// until a course is over; each is in a file of its own, echo_*.cpp.
#pragma once

#include <unistd.h>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <span>
#include <vector>

#include "harness.hpp"

namespace bench {

// As much as any server receives at a time. More than is ever under way on a connection, so that a receive
// that comes back full does not happen.
constexpr std::size_t echo_buffer_size = 32 * 1024;

// Counts what a server has echoed and keeps the clock: the first echoes warm up, the middle is measured, and
// the last ones, in which ever fewer connections take part, are not. Not thread-safe.
class echo_course {
 public:
  struct lengths {
    std::uint64_t warm_up, measured, rest;  // echoes
    std::uint64_t total() const { return warm_up + measured + rest; }
  };
  echo_course(meter& clock, std::size_t message, const lengths& course)
      : clock_(clock),
        message_(message),
        start_(course.warm_up * message),
        stop_(start_ + course.measured * message),
        end_(course.total() * message),
        mark_(start_) {}

  // To be called when the bytes have been handed to the kernel.
  void echoed(std::size_t bytes) { reached(done_ + bytes); }
  // The same for a server that keeps the sum of all bytes itself; to be called when that has come to mark().
  void reached(std::uint64_t done) {
    done_ = done;
    while (done_ >= mark_) {
      pass_mark();
    }
  }
  std::uint64_t mark() const { return mark_; }
  bool over() const { return done_ >= end_; }

 private:
  void pass_mark() {
    if (mark_ == start_) {
      started_at_ = done_;
      mark_ = stop_;
      clock_.start();
    } else if (mark_ == stop_) {
      mark_ = end_;
      clock_.stop((done_ - started_at_) / message_);
    } else {
      mark_ = std::numeric_limits<std::uint64_t>::max();
    }
  }

  meter& clock_;
  const std::uint64_t message_, start_, stop_, end_;
  std::uint64_t mark_;
  std::uint64_t done_ = 0;
  std::uint64_t started_at_ = 0;
};

// The connections are O_NONBLOCK and TCP_NODELAY, and belong to the server, which closes them when the course
// is over: they are duplicates, so the client sees nothing of that.
using echo_server = void (*)(std::span<const int> connections, echo_course& course);

void serve_annulet_write_all(std::span<const int> connections, echo_course& course);
void serve_annulet_on_epoll(std::span<const int> connections, echo_course& course);  // write_all, too
void serve_annulet_send(std::span<const int> connections, echo_course& course);
void serve_epoll_level(std::span<const int> connections, echo_course& course);
void serve_epoll_edge(std::span<const int> connections, echo_course& course);
void serve_uring_poll(std::span<const int> connections, echo_course& course);
void serve_uring_requests(std::span<const int> connections, echo_course& course);
void serve_libuv(std::span<const int> connections, echo_course& course);
void serve_libevent(std::span<const int> connections, echo_course& course);
void serve_asio(std::span<const int> connections, echo_course& course);
void serve_asio_stackful(std::span<const int> connections, echo_course& course);
void serve_threads(std::span<const int> connections, echo_course& course);

// A connection as the servers hold it that make the calls themselves.
class echo_connection {
 public:
  explicit echo_connection(int fd) : fd_(fd) {}
  echo_connection(echo_connection&& other) noexcept;
  echo_connection& operator=(echo_connection&&) = delete;
  ~echo_connection();

  int fd() const { return fd_; }
  // What the socket did not take yet. Until it has, nothing more is to be received.
  bool has_unsent() const { return !unsent_.empty(); }

  // Both end the process where the connection fails; the client never closes during a course.
  // How many bytes, 0 where there are none.
  std::size_t receive(std::span<char> into) const;
  void send(std::span<const char> bytes, echo_course& course);
  void send_rest(echo_course& course);

 private:
  std::size_t send_some(std::span<const char> bytes) const;

  int fd_;
  std::vector<char> unsent_ = {};
};

std::vector<echo_connection> own_connections(std::span<const int> connections);

}  // namespace bench
