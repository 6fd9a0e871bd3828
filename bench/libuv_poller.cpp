// libuv, one uv_poll_t a descriptor.
#include <uv.h>

#include "harness.hpp"
#include "pollers.hpp"

namespace bench {
namespace {

class libuv_poller final : public poller {
 public:
  explicit libuv_poller(std::span<const int> readers) : handles_(readers.size()) {
    if (uv_loop_init(&loop_) != 0) {
      fail("libuv has no loop to give");
    }
    loop_.data = this;
    for (std::size_t i = 0; i < readers.size(); ++i) {
      const bool started = uv_poll_init(&loop_, &handles_[i], readers[i]) == 0 &&
                           uv_poll_start(&handles_[i], UV_READABLE, on_event) == 0;
      if (!started) {
        fail("libuv refused descriptor %d", readers[i]);
      }
    }
  }

  ~libuv_poller() override {
    for (uv_poll_t& handle : handles_) {
      uv_close(reinterpret_cast<uv_handle_t*>(&handle), nullptr);
    }
    uv_run(&loop_, UV_RUN_DEFAULT);
    uv_loop_close(&loop_);
  }

  void wait(traffic& sink) override {
    sink_ = &sink;
    uv_run(&loop_, UV_RUN_ONCE);
  }

 private:
  static void on_event(uv_poll_t* handle, int status, int) {
    auto* self = static_cast<libuv_poller*>(handle->loop->data);
    if (status < 0) {
      fail("libuv: %s", uv_strerror(status));
    }
    self->sink_->on_ready(static_cast<std::size_t>(handle - self->handles_.data()));
  }

  uv_loop_t loop_;
  std::vector<uv_poll_t> handles_;
  traffic* sink_ = nullptr;
};

}  // namespace

std::unique_ptr<poller> make_libuv_poller(std::span<const int> readers) {
  return std::make_unique<libuv_poller>(readers);
}

}  // namespace bench
