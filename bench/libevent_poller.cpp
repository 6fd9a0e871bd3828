// libevent on the back end that it takes by itself (epoll on Linux), one persistent event a descriptor.
#include <event2/event.h>
#include <event2/event_struct.h>

#include "harness.hpp"
#include "pollers.hpp"

namespace bench {
namespace {

class libevent_poller final : public poller {
 public:
  explicit libevent_poller(std::span<const int> readers) : base_(event_base_new()), watches_(readers.size()) {
    if (base_ == nullptr) {
      fail("libevent has no base to give");
    }
    for (std::size_t i = 0; i < readers.size(); ++i) {
      watch& one = watches_[i];
      one.owner = this;
      const bool added =
          event_assign(&one.handle, base_, readers[i], EV_READ | EV_PERSIST, on_event, &one) == 0 &&
          event_add(&one.handle, nullptr) == 0;
      if (!added) {
        fail("libevent refused descriptor %d", readers[i]);
      }
    }
  }

  ~libevent_poller() override {
    for (watch& one : watches_) {
      event_del(&one.handle);
    }
    event_base_free(base_);
  }

  void wait(traffic& sink) override {
    sink_ = &sink;
    event_base_loop(base_, EVLOOP_ONCE);
  }

 private:
  struct watch {
    event handle;
    libevent_poller* owner;
  };

  static void on_event(evutil_socket_t, short, void* context) {
    auto* one = static_cast<watch*>(context);
    one->owner->sink_->on_ready(static_cast<std::size_t>(one - one->owner->watches_.data()));
  }

  event_base* base_;
  std::vector<watch> watches_;
  traffic* sink_ = nullptr;
};

}  // namespace

std::unique_ptr<poller> make_libevent_poller(std::span<const int> readers) {
  return std::make_unique<libevent_poller>(readers);
}

}  // namespace bench
