#include "hub_link.hpp"

#include <cerrno>
#include <cstdint>
#include <system_error>

#include <fcntl.h>
#include <unistd.h>

namespace annulet::detail {

hub_link::~hub_link() {
  if (wake_fd_ >= 0) {
    ::close(wake_fd_);
  }
}

// A duplicate: a poster may still write when the engine, and its descriptor, have gone.
void hub_link::share_wake_fd(int fd) {
  wake_fd_ = ::fcntl(fd, F_DUPFD_CLOEXEC, 0);
  if (wake_fd_ < 0) {
    throw std::system_error(errno, std::generic_category(), "annulet: hub: a second descriptor for wake-ups");
  }
}

void hub_link::wake() noexcept {
  std::atomic_thread_fence(std::memory_order_seq_cst);
  if (asleep_.load(std::memory_order_relaxed) && asleep_.exchange(false, std::memory_order_relaxed)) {
    const std::uint64_t one = 1;
    // Fails only where the count is full, and then the hub is woken anyway.
    [[maybe_unused]] const auto written = ::write(wake_fd_, &one, sizeof(one));
  }
}

}  // namespace annulet::detail
