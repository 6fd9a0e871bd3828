#include "close.hpp"

#include "fd_state.hpp"
#include "hub_core.hpp"
#include "syscalls.hpp"

#include <string>
#include <system_error>

#include <fcntl.h>

namespace annulet {

namespace {

[[noreturn]] void failed(int error, const std::string& call) {
  throw std::system_error(error, std::generic_category(), "annulet: " + call);
}

std::string close_call(int fd) { return "close(" + std::to_string(fd) + ")"; }

}  // namespace

void close(int fd) {
  detail::hub_core* const hub = detail::hub_core::current();
  detail::fd_state* const file = hub == nullptr ? nullptr : hub->find_state(fd);
  if (file != nullptr && (file->closing() || file->in_use())) {
    if (file->closing()) {
      failed(EBADF, close_call(fd));
    }
    if (const auto open = detail::kernel(SYS_fcntl, fd, F_GETFD); !open.ok()) {
      failed(open.error(), close_call(fd));
    }
    hub->prepare_close_and_wait(*file);
  }
  // EINTR: Linux has closed it all the same.
  if (const auto closed = detail::kernel(SYS_close, fd); !closed.ok() && closed.error() != EINTR) {
    failed(closed.error(), close_call(fd));
  }
}

int dup2(int source, int target) {
  const auto call = [&] { return "dup2(" + std::to_string(source) + ", " + std::to_string(target) + ")"; };
  detail::hub_core* const hub = detail::hub_core::current();
  if (hub != nullptr) {
    for (const int fd : {source, target}) {
      if (const detail::fd_state* const file = hub->find_state(fd); file != nullptr && file->closing()) {
        failed(EBADF, call());
      }
    }
  }
  // First the call: it replaces the file in one step or changes nothing. The watches hold the old file until
  // they are let go, right after.
  detail::io_result made(0);
  do {
    made = source == target ? detail::kernel(SYS_fcntl, source, F_GETFD)
                            : detail::kernel(SYS_dup3, source, target, 0);
  } while (made.error() == EINTR || made.error() == EBUSY);
  if (!made.ok()) {
    failed(made.error(), call());
  }
  detail::fd_state* const file = hub == nullptr ? nullptr : hub->find_state(target);
  if (file != nullptr && source != target && file->in_use()) {
    hub->prepare_close_and_wait(*file);
  }
  return target;
}

}  // namespace annulet
