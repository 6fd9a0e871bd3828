#include "hub.hpp"

#include "hub_core.hpp"

#include <annulet/runtime/check.hpp>

#include <stdexcept>
#include <string>

namespace annulet {

detail::hub_core& detail::core_of(const hub& h) noexcept { return *h.core_; }

hub_handle::hub_handle(std::shared_ptr<detail::hub_link> link) noexcept : link_(std::move(link)) {
  link_->handles.fetch_add(1, std::memory_order_relaxed);
}

hub_handle::hub_handle(const hub_handle& other) noexcept : link_(other.link_) {
  if (link_ != nullptr) {
    link_->handles.fetch_add(1, std::memory_order_relaxed);
  }
}

// The last one to go may leave behind a hub that sleeps for ever: it is woken to find that out.
hub_handle::~hub_handle() {
  if (link_ != nullptr && link_->handles.fetch_sub(1, std::memory_order_acq_rel) == 1) {
    link_->nudge();
  }
}

void hub_handle::push(std::unique_ptr<detail::posted> item) const {
  if (link_ == nullptr) {
    throw std::logic_error("annulet: hub_handle::post on a handle that was moved from");
  }
  if (!link_->posts.push(*item)) {
    throw hub_gone("annulet: hub_handle::post: the hub has ended");
  }
  (void)item.release();
  link_->wake();
}

hub::hub(const hub_options& options) : core_(std::make_unique<detail::hub_core>(options)) {}

hub::~hub() {
  if (core_ != nullptr && core_->is_left_to_parent()) {
    (void)core_.release();  // it ends in the parent
  }
}

detail::hub_core& hub::own(const char* call) const {
  if (core_->is_left_to_parent()) {
    throw hub_gone(std::string("annulet: ") + call +
                   ": this process was forked, and the hub is its parent's");
  }
  if (core_.get() != detail::hub_core::current()) {
    throw wrong_thread(std::string("annulet: ") + call + ": this is the hub of another thread");
  }
  return *core_;
}

hub_handle hub::handle() { return hub_handle(own("hub::handle").link()); }

const engine_info& hub::engine_report() const { return own("hub::engine_report").io().report(); }

hub_counts hub::counts() const {
  detail::hub_core& core = own("hub::counts");
  const detail::scheduler_counts fibers = core.fibers().counts();
  const detail::engine::counts kernel = core.io().counted();
  return {fibers.spawned, fibers.switches, fibers.parks, fibers.wakes, kernel.enters, kernel.requests};
}

std::size_t hub::fiber_count() const { return own("hub::fiber_count").fibers().fibers(); }

void hub::trim_stacks() { own("hub::trim_stacks").fibers().trim_stacks(); }

}  // namespace annulet
