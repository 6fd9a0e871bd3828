#include "nested_set.hpp"

#include "syscalls.hpp"

#include <cerrno>
#include <utility>

#include <sys/epoll.h>

namespace annulet::detail {

int nested_set::begin(int file, std::uint16_t mask) noexcept {
  const auto made = kernel(SYS_epoll_create1, EPOLL_CLOEXEC);
  if (!made.ok()) {
    return made.error();
  }
  set_ = static_cast<int>(made.value());
  const int refusal = control(EPOLL_CTL_ADD, file, mask);
  if (refusal != 0) {
    end();
  }
  return refusal;
}

int nested_set::change(int file, std::uint16_t mask) noexcept {
  const int refusal = control(EPOLL_CTL_MOD, file, mask);
  // Closed behind the hub's back, and the number has another file now.
  return refusal == ENOENT ? control(EPOLL_CTL_ADD, file, mask) : refusal;
}

void nested_set::end() noexcept {
  if (exists()) {
    (void)kernel(SYS_close, std::exchange(set_, -1));
  }
}

// The bits of a mask have the same values for both.
int nested_set::control(int operation, int file, std::uint16_t mask) const noexcept {
  epoll_event event{mask, {}};
  const int error =
      uninterrupted([&] { return kernel(SYS_epoll_ctl, set_, operation, file, &event); }).error();
  return error == EBADF || error == EPERM ? 0 : error;
}

}  // namespace annulet::detail
