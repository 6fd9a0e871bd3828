// `echo` on Boost.Asio with a stackful coroutine a connection (spawn, on Boost.Coroutine), its locks switched
// off: the blocking style that annulet has as well.
//
// Given a loop, or any executor, spawn makes a strand for each coroutine, whose lock and queue every
// completion would pass through. It makes none for a handler that is bound to an executor.
#define BOOST_COROUTINES_NO_DEPRECATION_WARNING
#include <array>
#include <boost/asio/bind_executor.hpp>
#include <boost/asio/buffer.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/spawn.hpp>
#include <boost/asio/write.hpp>

#include "echo.hpp"

namespace bench {
namespace {

namespace asio = boost::asio;

template <class Yield>
void serve(asio::io_context& loop, int fd, echo_course& course, Yield yield) {
  asio::ip::tcp::socket socket(loop, asio::ip::tcp::v4(), fd);
  std::array<char, echo_buffer_size> buffer;
  while (!course.over()) {
    const std::size_t count = socket.async_read_some(asio::buffer(buffer), yield);
    asio::async_write(socket, asio::buffer(buffer.data(), count), yield);
    course.echoed(count);
  }
  loop.stop();
}

}  // namespace

void serve_asio_stackful(std::span<const int> fds, echo_course& course) {
  asio::io_context loop(BOOST_ASIO_CONCURRENCY_HINT_UNSAFE);
  for (const int fd : fds) {
    asio::spawn(
        asio::bind_executor(loop.get_executor(), [] {}),
        [&loop, &course, fd](auto yield) { serve(loop, fd, course, yield); },
        boost::coroutines::attributes(128 * 1024));
  }
  loop.run();
}

}  // namespace bench
