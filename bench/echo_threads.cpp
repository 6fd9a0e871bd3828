// `echo` with a thread a connection, in blocking calls. All threads stay on the server's processor.
#include <fcntl.h>
#include <pthread.h>
#include <sys/socket.h>
#include <array>
#include <atomic>
#include <cerrno>
#include <condition_variable>
#include <cstring>
#include <mutex>
#include <thread>

#include "echo.hpp"

namespace bench {
namespace {

// O_NONBLOCK belongs to the open file, so what is changed here has to be put back for the next server.
void change_flags(std::span<const int> fds, int set, int clear) {
  for (const int fd : fds) {
    if (fcntl(fd, F_SETFL, (fcntl(fd, F_GETFL) | set) & ~clear) != 0) {
      fail("fcntl: %s", std::strerror(errno));
    }
  }
}

class thread_server {
 public:
  explicit thread_server(echo_course& course) : course_(course), mark_(course.mark()) {}

  void run(std::span<const int> fds) {
    std::vector<echo_connection> connections = own_connections(fds);
    change_flags(fds, 0, O_NONBLOCK);
    std::vector<std::thread> threads;
    for (const int fd : fds) {
      threads.emplace_back([this, fd] { serve(fd); });
    }
    {
      std::unique_lock hold(lock_);
      over_.wait(hold, [this] { return course_.over(); });
    }
    // Nothing is under way any more: all of them wait in recv, or are on their way there.
    for (std::thread& one : threads) {
      pthread_cancel(one.native_handle());
    }
    for (std::thread& one : threads) {
      one.join();
    }
    change_flags(fds, O_NONBLOCK, 0);
  }

 private:
  void serve(int fd) {
    std::array<char, echo_buffer_size> buffer;
    for (;;) {
      const ssize_t count = ::recv(fd, buffer.data(), buffer.size(), 0);
      if (count <= 0) {
        fail("echo: a thread's recv: %s", count == 0 ? "end of file" : std::strerror(errno));
      }
      const auto size = static_cast<std::size_t>(count);
      for (std::size_t sent = 0; sent < size;) {
        const ssize_t more = ::send(fd, buffer.data() + sent, size - sent, MSG_NOSIGNAL);
        if (more < 0) {
          fail("echo: a thread's send: %s", std::strerror(errno));
        }
        sent += static_cast<std::size_t>(more);
      }
      count_echo(size);
    }
  }

  // No other server pays for a lock, so here only those take it who pass a mark of the course. The marks only
  // rise: whoever reads an old one takes the lock for nothing, and none is missed.
  void count_echo(std::size_t bytes) {
    if (done_.fetch_add(bytes, std::memory_order_relaxed) + bytes >= mark_.load(std::memory_order_relaxed)) {
      pass_mark();
    }
  }

  void pass_mark() {
    const std::lock_guard hold(lock_);
    course_.reached(done_.load(std::memory_order_relaxed));
    mark_.store(course_.mark(), std::memory_order_relaxed);
    if (course_.over()) {
      over_.notify_one();
    }
  }

  std::atomic<std::uint64_t> done_ = 0;  // bytes, by all threads
  std::mutex lock_;                      // for what follows, but that mark_ is read without it
  echo_course& course_;
  std::atomic<std::uint64_t> mark_;
  std::condition_variable over_;
};

}  // namespace

void serve_threads(std::span<const int> fds, echo_course& course) { thread_server(course).run(fds); }

}  // namespace bench
