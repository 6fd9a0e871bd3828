// `echo` on Boost.Asio with callbacks, its locks switched off.
#include <array>
#include <boost/asio/buffer.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/write.hpp>
#include <deque>

#include "echo.hpp"

namespace bench {
namespace {

namespace asio = boost::asio;
using boost::system::error_code;

class asio_connection {
 public:
  asio_connection(asio::io_context& loop, int fd, echo_course& course)
      : loop_(loop), socket_(loop, asio::ip::tcp::v4(), fd), course_(course) {}

  void receive() {
    socket_.async_read_some(asio::buffer(buffer_), [this](const error_code& error, std::size_t count) {
      require(error);
      send(count);
    });
  }

 private:
  void send(std::size_t count) {
    asio::async_write(socket_, asio::buffer(buffer_.data(), count),
                      [this](const error_code& error, std::size_t sent) {
                        require(error);
                        course_.echoed(sent);
                        course_.over() ? loop_.stop() : receive();
                      });
  }

  static void require(const error_code& error) {
    if (error) {
      fail("echo: Asio: %s", error.message().c_str());
    }
  }

  asio::io_context& loop_;
  asio::ip::tcp::socket socket_;
  echo_course& course_;
  std::array<char, echo_buffer_size> buffer_;
};

}  // namespace

void serve_asio(std::span<const int> fds, echo_course& course) {
  asio::io_context loop(BOOST_ASIO_CONCURRENCY_HINT_UNSAFE);
  std::deque<asio_connection> connections;
  for (const int fd : fds) {
    connections.emplace_back(loop, fd, course).receive();
  }
  loop.run();
}

}  // namespace bench
