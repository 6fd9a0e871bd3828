// `echo` on libuv: a uv_tcp_t a connection, uv_read_start, uv_try_write, and uv_write for what that left.
#include <uv.h>
#include <array>
#include <memory>

#include "echo.hpp"

namespace bench {
namespace {

class libuv_server {
 public:
  libuv_server(std::span<const int> fds, echo_course& course) : handles_(fds.size()), course_(course) {
    if (uv_loop_init(&loop_) != 0) {
      fail("libuv has no loop to give");
    }
    loop_.data = this;
    for (std::size_t i = 0; i < fds.size(); ++i) {
      auto* stream = reinterpret_cast<uv_stream_t*>(&handles_[i]);
      const bool started = uv_tcp_init(&loop_, &handles_[i]) == 0 && uv_tcp_open(&handles_[i], fds[i]) == 0 &&
                           uv_read_start(stream, give_buffer, on_read) == 0;
      if (!started) {
        fail("libuv refused descriptor %d", fds[i]);
      }
    }
  }
  ~libuv_server() {
    for (uv_tcp_t& handle : handles_) {
      uv_close(reinterpret_cast<uv_handle_t*>(&handle), nullptr);
    }
    uv_run(&loop_, UV_RUN_DEFAULT);
    uv_loop_close(&loop_);
  }
  libuv_server(const libuv_server&) = delete;
  libuv_server& operator=(const libuv_server&) = delete;

  void run() { uv_run(&loop_, UV_RUN_DEFAULT); }

 private:
  struct late_write {
    uv_write_t request;
    std::vector<char> bytes;
  };

  static libuv_server& of(uv_stream_t* stream) { return *static_cast<libuv_server*>(stream->loop->data); }

  static void give_buffer(uv_handle_t* handle, std::size_t, uv_buf_t* buffer) {
    auto& bytes = static_cast<libuv_server*>(handle->loop->data)->buffer_;
    *buffer = uv_buf_init(bytes.data(), static_cast<unsigned>(bytes.size()));
  }

  static void on_read(uv_stream_t* stream, ssize_t count, const uv_buf_t* buffer) {
    if (count == 0) {
      return;  // EAGAIN
    }
    if (count < 0) {
      fail("echo: libuv: %s", uv_strerror(static_cast<int>(count)));
    }
    const auto size = static_cast<std::size_t>(count);
    const uv_buf_t bytes = uv_buf_init(buffer->base, static_cast<unsigned>(size));
    const int written = uv_try_write(stream, &bytes, 1);
    const std::size_t sent = written < 0 ? 0 : static_cast<std::size_t>(written);
    if (written < 0 && written != UV_EAGAIN) {
      fail("echo: libuv: %s", uv_strerror(written));
    }
    if (sent < size) {
      write_later(stream, {buffer->base + sent, size - sent});
    }
    of(stream).echoed(sent);
  }

  static void write_later(uv_stream_t* stream, std::span<const char> rest) {
    uv_read_stop(stream);
    auto late = std::make_unique<late_write>();
    late->bytes.assign(rest.begin(), rest.end());
    late->request.data = late.get();
    const uv_buf_t bytes = uv_buf_init(late->bytes.data(), static_cast<unsigned>(late->bytes.size()));
    if (uv_write(&late->request, stream, &bytes, 1, on_written) != 0) {
      fail("echo: libuv refused a write");
    }
    (void)late.release();  // on_written's
  }

  static void on_written(uv_write_t* request, int status) {
    if (status < 0) {
      fail("echo: libuv: %s", uv_strerror(status));
    }
    const std::unique_ptr<late_write> late(static_cast<late_write*>(request->data));
    uv_read_start(request->handle, give_buffer, on_read);
    of(request->handle).echoed(late->bytes.size());
  }

  void echoed(std::size_t bytes) {
    course_.echoed(bytes);
    if (course_.over()) {
      uv_stop(&loop_);
    }
  }

  uv_loop_t loop_;
  std::vector<uv_tcp_t> handles_;
  echo_course& course_;
  std::array<char, echo_buffer_size> buffer_;
};

}  // namespace

void serve_libuv(std::span<const int> fds, echo_course& course) { libuv_server(fds, course).run(); }

}  // namespace bench
