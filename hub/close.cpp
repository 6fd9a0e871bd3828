#include "close.hpp"

#include "fd_state.hpp"
#include "hub_core.hpp"
#include "io_error.hpp"
#include "syscalls.hpp"

#include <cerrno>
#include <cstdint>
#include <string>
#include <system_error>

#include <fcntl.h>
#include <sys/resource.h>

namespace annulet {

void close(int fd) {
  if (const auto closed = detail::close_as_hub(fd); !closed.ok()) {
    detail::throw_io_error(closed.error(), "close", fd);
  }
}

namespace detail {

io_result close_as_hub(int fd) {
  hub_core* const hub = hub_core::current();
  if (hub != nullptr && hub->owns(fd)) {
    return io_result(-EBADF);
  }
  fd_state* const file = hub == nullptr ? nullptr : hub->find_state(fd);
  if (file != nullptr && file->closing()) {
    return io_result(-EBADF);
  }
  if (file != nullptr && !hub->is_in_its_process()) {
    return close_file(fd);
  }
  if (file != nullptr && (file->in_use() || file->has_requests())) {
    if (const auto open = kernel(SYS_fcntl, fd, F_GETFD); !open.ok()) {
      return open;
    }
    hub->prepare_close_and_wait(*file);
  } else if (file != nullptr) {
    file->was_closed();  // a call may be about to begin
  }
  return hub == nullptr ? close_file(fd) : hub->close_number(fd);
}

namespace {

io_result plain_dup2(int source, int target) noexcept {
  if (source == target) {
    return kernel(SYS_fcntl, source, F_GETFD);
  }
  return uninterrupted([&] { return kernel(SYS_dup3, source, target, 0); });
}

// Replaces the file in one step or changes nothing. The watches hold the old one until they are let go, right
// after. Parks where its SO_LINGER has the last close of it wait.
io_result replace(hub_core& hub, fd_state* target, int source, int number) {
  // First, for what is held gets the lowest free number, which may be the source's.
  if (const io_result open = kernel(SYS_fcntl, source, F_GETFD); !open.ok()) {
    return open;
  }
  hub.io().flush_changes();  // what is asked of the old file is not to be asked of the new one
  const int lingering = hub.hold_if_lingering(number);
  if (target != nullptr) {
    hub.io().before_replacing(number);
  }
  const io_result made = plain_dup2(source, number);
  if (made.ok() && target != nullptr && target->in_use()) {
    hub.prepare_close_and_wait(*target);
  } else if (made.ok() && target != nullptr) {
    target->was_closed();
  }
  if (lingering >= 0 && made.ok()) {
    hub.close_lingering(lingering);
  } else if (lingering >= 0) {
    (void)close_file(lingering);  // the target has the file still
  }
  return made;
}

// For a target with requests. A worker thread of the kernel's may look a request's file up only when it
// begins, so they have to be over before the file is replaced. What would refuse the call is asked first, for
// those whose requests end are told. Nothing else is: the call may yet fail.
io_result replace_after_requests(hub_core& hub, fd_state& target, int source) {
  rlimit numbers{};
  ::getrlimit(RLIMIT_NOFILE, &numbers);
  if (static_cast<rlim_t>(target.number()) >= numbers.rlim_cur) {
    return io_result(-EBADF);
  }
  if (const io_result open = kernel(SYS_fcntl, source, F_GETFD); !open.ok()) {
    return open;
  }
  const fd_state& from = hub.state_of(source);
  const std::uint32_t closes = from.closes();
  target.call_off_requests();
  target.await_requests();
  const bool orphaned = target.orphaned();  // the owner has gone, and left the number to us
  target.end_closing();
  const io_result made = from.closes() == closes ? replace(hub, &target, source, target.number())
                                                 : io_result(-EBADF);  // the number may be another's
  if (!made.ok() && orphaned) {
    (void)hub.close_number(target.number());
  }
  return made;
}

io_result dup2_on(hub_core& hub, int source, int target) {
  for (const int fd : {source, target}) {
    if (const fd_state* const file = hub.find_state(fd); file != nullptr && file->closing()) {
      return io_result(-EBADF);
    }
  }
  if (source == target) {
    return plain_dup2(source, target);
  }
  fd_state* const file = hub.find_state(target);
  return file != nullptr && file->has_requests() ? replace_after_requests(hub, *file, source)
                                                 : replace(hub, file, source, target);
}

}  // namespace

}  // namespace detail

int dup2(int source, int target) {
  detail::hub_core* const hub = detail::hub_core::current();
  const detail::io_result made =
      hub != nullptr ? detail::dup2_on(*hub, source, target) : detail::plain_dup2(source, target);
  if (!made.ok()) {
    throw std::system_error(made.error(), std::generic_category(),
                            "annulet: dup2(" + std::to_string(source) + ", " + std::to_string(target) + ")");
  }
  return target;
}

}  // namespace annulet
