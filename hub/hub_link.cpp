#include "hub_link.hpp"

#include "fd_state.hpp"
#include "syscalls.hpp"
#include "wake_up.hpp"

#include <system_error>
#include <utility>

#include <fcntl.h>

namespace annulet::detail {

hub_link::hub_link() noexcept = default;

hub_link::~hub_link() {
  if (wake_fd_ >= 0) {
    (void)kernel(SYS_close, wake_fd_);
  }
}

void hub_link::keep(std::vector<std::unique_ptr<fd_state>>&& by_fd) noexcept { by_fd_ = std::move(by_fd); }

void hub_link::leave_to_parent() noexcept {
  posts.abandon();
  rings.abandon();
  asleep_ = false;
  (void)kernel(SYS_close, std::exchange(wake_fd_, -1));
  hub = nullptr;
}

// A duplicate: a poster may still write when the engine, and its descriptor, have gone.
void hub_link::share_wake_fd(int fd) {
  const auto made = duplicate_wake_fd(fd);
  if (!made.ok()) {
    throw std::system_error(made.error(), std::generic_category(), "annulet: hub: a descriptor for wake-ups");
  }
  wake_fd_ = static_cast<int>(made.value());
}

void hub_link::wake() noexcept {
  std::atomic_thread_fence(std::memory_order_seq_cst);
  if (asleep_.load(std::memory_order_relaxed) && asleep_.exchange(false, std::memory_order_relaxed)) {
    wake_up(wake_fd_);
  }
}

}  // namespace annulet::detail
