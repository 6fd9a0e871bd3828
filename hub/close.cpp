#include "close.hpp"

#include "fd_state.hpp"
#include "hub_core.hpp"
#include "io_error.hpp"
#include "syscalls.hpp"

#include <cerrno>
#include <string>
#include <system_error>

#include <fcntl.h>

namespace annulet {

void close(int fd) {
  constexpr const char* call = "close";
  detail::hub_core* const hub = detail::hub_core::current();
  detail::fd_state* const file = hub == nullptr ? nullptr : hub->find_state(fd);
  if (file != nullptr && file->closing()) {
    detail::throw_io_error(EBADF, call, fd);
  }
  if (file != nullptr && file->in_use()) {
    if (const auto open = detail::kernel(SYS_fcntl, fd, F_GETFD); !open.ok()) {
      detail::throw_io_error(open.error(), call, fd);
    }
    hub->prepare_close_and_wait(*file);
  } else if (file != nullptr) {
    file->was_closed();  // a call may be about to begin
  }
  const auto closed = hub == nullptr ? detail::close_file(fd) : hub->close_number(fd);
  if (!closed.ok()) {
    detail::throw_io_error(closed.error(), call, fd);
  }
}

int dup2(int source, int target) {
  const auto failed = [&](int error) {
    throw std::system_error(error, std::generic_category(),
                            "annulet: dup2(" + std::to_string(source) + ", " + std::to_string(target) + ")");
  };
  detail::hub_core* const hub = detail::hub_core::current();
  if (hub != nullptr) {
    for (const int fd : {source, target}) {
      if (const detail::fd_state* const file = hub->find_state(fd); file != nullptr && file->closing()) {
        failed(EBADF);
      }
    }
    hub->io().flush_changes();  // what is asked of the old file is not to be asked of the new one
  }
  detail::fd_state* const file = hub == nullptr || source == target ? nullptr : hub->find_state(target);
  const bool has_requests = file != nullptr && file->has_requests();
  int from = source;
  if (has_requests) {
    // A worker thread of the kernel's may look a request's file up only when it begins: so they end first.
    // The source is held meanwhile, for nothing may fail any more when those who wait have been told.
    const auto held = detail::kernel(SYS_fcntl, source, F_DUPFD_CLOEXEC, 0);
    if (!held.ok()) {
      failed(held.error());
    }
    from = static_cast<int>(held.value());
    hub->prepare_close_and_wait(*file);
  }
  // Else the call is first: it replaces the file in one step or changes nothing. The watches hold the old
  // file until they are let go, right after.
  if (file != nullptr) {
    hub->io().before_replacing(target);
  }
  detail::io_result made(0);
  do {
    made = source == target ? detail::kernel(SYS_fcntl, source, F_GETFD)
                            : detail::kernel(SYS_dup3, from, target, 0);
  } while (made.error() == EINTR || made.error() == EBUSY);
  if (has_requests) {
    (void)detail::kernel(SYS_close, from);
  }
  if (!made.ok()) {
    failed(made.error());
  }
  if (file != nullptr && file->in_use()) {
    hub->prepare_close_and_wait(*file);
  } else if (file != nullptr) {
    file->was_closed();
  }
  return target;
}

}  // namespace annulet
