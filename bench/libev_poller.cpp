// libev on the back end that it takes by itself (epoll on Linux), one ev_io a descriptor.
#include <ev.h>

#include "harness.hpp"
#include "pollers.hpp"

namespace bench {
namespace {

class libev_poller final : public poller {
 public:
  explicit libev_poller(std::span<const int> readers)
      : loop_(ev_loop_new(EVFLAG_AUTO)), watchers_(readers.size()) {
    if (loop_ == nullptr) {
      fail("libev has no loop to give");
    }
    ev_set_userdata(loop_, this);
    for (std::size_t i = 0; i < readers.size(); ++i) {
      ev_init(&watchers_[i], on_event);
      ev_io_set(&watchers_[i], readers[i], EV_READ);
      ev_io_start(loop_, &watchers_[i]);
    }
  }

  ~libev_poller() override {
    for (ev_io& watcher : watchers_) {
      ev_io_stop(loop_, &watcher);
    }
    ev_loop_destroy(loop_);
  }

  void wait(traffic& sink) override {
    sink_ = &sink;
    ev_run(loop_, EVRUN_ONCE);
  }

 private:
  static void on_event(struct ev_loop* loop, ev_io* watcher, int) {
    auto* self = static_cast<libev_poller*>(ev_userdata(loop));
    self->sink_->on_ready(static_cast<std::size_t>(watcher - self->watchers_.data()));
  }

  struct ev_loop* loop_;
  std::vector<ev_io> watchers_;
  traffic* sink_ = nullptr;
};

}  // namespace

std::unique_ptr<poller> make_libev_poller(std::span<const int> readers) {
  return std::make_unique<libev_poller>(readers);
}

}  // namespace bench
