// Which file a number stands for at this moment, to find out later whether it still does. Internal.
#pragma once

#include <cstdint>
#include <optional>

namespace annulet::detail {

// Of sockets, pipes and all that has a path. Those that have an inode in common (eventfd, timerfd, signalfd,
// epoll, inotify and their like) cannot be told apart by it.
struct file_identity {
  std::uint64_t device;
  std::uint64_t node;

  friend bool operator==(const file_identity&, const file_identity&) noexcept = default;
};

// Nothing where the number is not open, or the kernel does not say. Asks no server and no disk.
[[nodiscard]] std::optional<file_identity> identity_of(int fd) noexcept;

}  // namespace annulet::detail
