#include "blocking_call.hpp"

#include <annulet/hub/carry_out.hpp>
#include <annulet/hub/syscalls.hpp>
#include <annulet/runtime/switching.hpp>

#include <algorithm>
#include <chrono>

#include <fcntl.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/time.h>

namespace annulet::detail {

namespace {

// SO_RCVTIMEO or SO_SNDTIMEO; never for what is no socket.
deadline limit_of(int fd, direction way) noexcept {
  timeval limit{};
  socklen_t size = sizeof(limit);
  const int option = way == direction::reading ? SO_RCVTIMEO : SO_SNDTIMEO;
  if (!kernel(SYS_getsockopt, fd, SOL_SOCKET, option, &limit, &size).ok() ||
      (limit.tv_sec == 0 && limit.tv_usec == 0)) {
    return deadline::never();
  }
  const std::int64_t length = nanoseconds({limit.tv_sec, limit.tv_usec * 1000});
  return length == for_ever ? deadline::never() : deadline(std::chrono::nanoseconds(length));
}

}  // namespace

bool blocking_call::may_wait() noexcept {
  const io_result flags = kernel(SYS_fcntl, fd_, F_GETFL);
  if (!flags.ok() || (flags.value() & (O_NONBLOCK | O_PATH)) != 0) {
    return false;
  }
  if (!std::exchange(asked_, true)) {
    limit_ = limit_of(fd_, way_);
  }
  return true;
}

void blocking_call::begin_time_anew() noexcept {
  if (!limit_.is_never()) {
    limit_ = limit_of(fd_, way_);
  }
}

int blocking_call::park(file_waits& how, deadline until, bool restarts) {
  switch (how.park(until, {.restarts = restarts_calls(restarts)})) {
    case wake_reason::signalled:
      return EINTR;
    case wake_reason::interrupted:
      return ECANCELED;
    case wake_reason::timed_out:
      last_ = limit_.reached();
      break;
    default:
      break;
  }
  return waits_->any_was_closed() ? EBADF : 0;
}

int blocking_call::wait(bool restarts) {
  if (last_) {
    return EAGAIN;
  }
  const bool in_vain = hurries_in_vain();
  if (hub_.is_in_handler()) {
    return in_vain ? stop_thread(soon(), 0) : stop_thread(limit_, 1);
  }
  if (in_vain && waits_) {
    return pause(restarts);
  }
  if (!waits_) {
    waits_.emplace(hub_, name_, fd_);
    waits_->make_room(1);
    waits_->add(fd_, way_ == direction::reading ? POLLIN : POLLOUT);
  }
  return park(*waits_, limit_, restarts);
}

deadline blocking_call::soon() const noexcept {
  return std::min(limit_, deadline(std::chrono::milliseconds(1)));
}

// What is armed goes on; what it tells meanwhile need not be heard, for a try comes next.
int blocking_call::pause(bool restarts) {
  file_waits nothing(hub_, name_, fd_);
  return park(nothing, soon(), restarts);
}

int blocking_call::rest(bool restarts) {
  if (last_) {
    return EAGAIN;
  }
  if (hub_.is_in_handler()) {
    return stop_thread(soon(), 0);
  }
  if (!waits_) {
    waits_.emplace(hub_, name_, fd_);
  }
  return park(*waits_, soon(), restarts);
}

int blocking_call::stop_thread(deadline until, unsigned files) {
  pollfd file{fd_, static_cast<short>(way_ == direction::reading ? POLLIN : POLLOUT), 0};
  const std::int64_t left =
      until.is_never() ? 0 : std::max<std::int64_t>(until.nanoseconds() - clock_now(), 0);
  timespec time{left / nanoseconds_a_second, left % nanoseconds_a_second};
  const io_result found = kernel(SYS_ppoll, &file, files, until.is_never() ? nullptr : &time, nullptr, 0);
  last_ = limit_.reached();
  return found.error();
}

io_result blocking_call::make_plainly(const operation& what) noexcept {
  switch (what.what) {
    case operation::call::accept:
      return kernel(SYS_accept4, what.fd, what.address, what.address_size, what.flags);
    case operation::call::connect:
      return kernel(SYS_connect, what.fd, what.address, *what.address_size);
    case operation::call::readv:
      return kernel(SYS_readv, what.fd, what.vectors, what.vector_count);
    case operation::call::sendmsg:
      return kernel(SYS_sendmsg, what.fd, what.message, what.flags);
    default:
      return kernel(SYS_writev, what.fd, what.vectors, what.vector_count);
  }
}

io_result blocking_call::carry_out(const operation& what) {
  if (hub_.is_in_handler()) {
    return make_plainly(what);
  }
  fd_state& file = hub_.state_of(fd_);
  const std::uint32_t incarnation = file.incarnation();
  const signal_terms signals{.restarts = restarts_calls(true)};
  for (;;) {
    if (file.closing()) {
      return io_result(-EBADF);
    }
    // Who is interrupted may not wait; but what need not wait is done.
    const bool at_once = hub_.fibers().is_interrupted();
    request r;
    carrying call(hub_, r, name_, fd_, &signals,
                  at_once ? &scheduler::park_uninterrupted : &scheduler::park_and_tell);
    call.out_on(file, what, at_once ? deadline::past() : limit_);
    if (!call.ended_early()) {
      return r.result();
    }
    if (file.incarnation() != incarnation) {
      return io_result(-EBADF);
    }
    switch (call.why()) {
      case wake_reason::signalled:
        return io_result(-EINTR);
      case wake_reason::interrupted:
        return io_result(-ECANCELED);
      case wake_reason::timed_out:
        return io_result(at_once ? -ECANCELED : -EAGAIN);
      default:
        break;  // a signal of ours, that came late
    }
  }
}

}  // namespace annulet::detail
