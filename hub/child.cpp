#include "child.hpp"

#include "child_step.hpp"
#include "hub_core.hpp"
#include "io_call.hpp"
#include "io_error.hpp"
#include "syscalls.hpp"

#include <cerrno>

#include <sys/wait.h>

namespace annulet {

std::string exit_status::text() const {
  return (cause_ == cause::exited ? "exited with " : "killed by signal ") + std::to_string(value_) +
         (dumped_core() ? ", core dumped" : "");
}

namespace detail {

namespace {

constexpr idtype_t by_pidfd = static_cast<idtype_t>(3);  // P_PIDFD

exit_status status_of(const siginfo_t& info) noexcept {
  using cause = exit_status::cause;
  const auto how = info.si_code == CLD_EXITED   ? cause::exited
                   : info.si_code == CLD_DUMPED ? cause::dumped
                                                : cause::killed;
  return {how, info.si_status};
}

}  // namespace

io_step::outcome child_step::attempt() noexcept {
  siginfo_t info{};
  const int options = WEXITED | WNOHANG | (form_ == form::leave ? WNOWAIT : 0);
  const io_result looked =
      uninterrupted([&] { return kernel(SYS_waitid, by_pidfd, fd(), &info, options, nullptr); });
  if (!looked.ok()) {
    return done(looked);
  }
  if (info.si_pid == 0) {
    return outcome::wait;
  }
  status_ = status_of(info);
  return done(looked);
}

void child_step::await(int pidfd) noexcept {
  (void)uninterrupted([pidfd] { return kernel(SYS_waitid, by_pidfd, pidfd, nullptr, WEXITED, nullptr); });
}

io_result open_pidfd(pid_t pid) noexcept { return kernel(SYS_pidfd_open, pid, 0); }

}  // namespace detail

// By a pidfd on both engines. The ring has a request for it (Linux 6.7), but here the status is taken by the
// fiber itself, when it runs: no cancellation has to be told apart from a success.
exit_status wait_child(pid_t pid, deadline until) {
  constexpr const char* name = "wait_child";
  const std::string number = std::to_string(pid);
  detail::hub_core& hub = detail::hub_core::here(name);
  const detail::io_result opened = detail::open_pidfd(pid);
  if (!opened.ok()) {
    const bool nobody = opened.error() == ESRCH;
    detail::throw_io_error(nobody ? ECHILD : opened.error(), name, number);
  }
  const auto fd = static_cast<int>(opened.value());
  const descriptor child = detail::adopt_new(hub, fd, detail::file_kind::other);
  detail::io_call call(child, detail::direction::reading, name);
  detail::child_step step(fd, detail::child_step::form::take);
  const auto result = call.run(step, until);
  if (!result) {
    detail::throw_deadline_passed(name, number);
  }
  if (!result->ok()) {
    detail::throw_io_error(result->error(), name, number);
  }
  return *step.status();
}

}  // namespace annulet
