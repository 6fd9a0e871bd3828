// The subject: annulet's selector, its data the index of the socket, its list of events used again.
#include <annulet/selector/selector.hpp>

#include "harness.hpp"
#include "pollers.hpp"

namespace bench {
namespace {

class annulet_poller final : public poller {
 public:
  explicit annulet_poller(std::span<const int> readers) {
    for (std::size_t i = 0; i < readers.size(); ++i) {
      selector_.register_(readers[i], annulet::io_event::read, static_cast<int>(i));
    }
  }

  void wait(traffic& sink) override {
    selector_.select(ready_);
    for (const auto& [key, events] : ready_) {
      if (events != annulet::io_event::read) {
        fail("descriptor %d was reported for more than reading", key->fd);
      }
      sink.on_ready(static_cast<std::size_t>(key->data));
    }
  }

 private:
  using selector_type = annulet::basic_selector<int>;
  selector_type selector_;
  std::vector<selector_type::ready_type> ready_;
};

}  // namespace

std::unique_ptr<poller> make_annulet_poller(std::span<const int> readers) {
  return std::make_unique<annulet_poller>(readers);
}

}  // namespace bench
