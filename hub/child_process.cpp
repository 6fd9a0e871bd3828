#include "child_process.hpp"

#include "hub_core.hpp"
#include "io_call.hpp"
#include "io_error.hpp"
#include "syscalls.hpp"
#include "threaded_calls.hpp"

#include <annulet/runtime/check.hpp>

#include <cerrno>
#include <csignal>
#include <utility>

#include <fcntl.h>
#include <unistd.h>

namespace annulet::detail {

// Takes the status of a child that is ending, on a thread, and goes.
class reaper final : public worker_pool::job {
 public:
  void run() noexcept override { reap(pidfd_); }
  void ended() noexcept override { delete this; }

  void take(int pidfd) noexcept { pidfd_ = pidfd; }
  // The thread waits.
  static void reap(int pidfd) noexcept {
    child_step::await(pidfd);
    (void)kernel(SYS_close, pidfd);
  }

 private:
  int pidfd_ = -1;
};

child_process::child_process(hub_core& hub, const process_options& options)
    : parent_(::getpid()), link_(hub.link()), reaper_(std::make_unique<reaper>()), group_(options.group) {}

child_process::~child_process() = default;

void child_process::own(hub_core& hub, const started& child) {
  try {
    if (child.pidfd >= 0) {
      pidfd_ = adopt_new(hub, child.pidfd, file_kind::other);
    }
    pid_ = child.pid;
  } catch (...) {
    discard_child(child.pid);
    throw;
  }
}

void child_process::throw_error(int error, const char* call) const {
  throw_io_error(error, call, std::to_string(pid_));
}

// Of several that wait one takes the status, and the others' looks find no child: they look here.
std::optional<exit_status> child_process::wait(deadline until, child_step::form how, const char* call) {
  if (status_) {
    return status_;
  }
  if (pid_ == 0 || is_over()) {
    throw_error(ECHILD, call);
  }
  (void)hub_core::of(*link_, call);
  io_call waiting(pidfd_, direction::reading, call);
  child_step step(pidfd_.fileno(), how);
  const auto result = waiting.run(step, until);
  if (status_) {
    return status_;
  }
  if (!result) {
    return std::nullopt;
  }
  if (!result->ok()) {
    throw_error(result->error(), call);
  }
  if (how == child_step::form::take) {
    status_ = step.status();
  }
  return step.status();
}

// While its status is not taken its number is nobody else's, nor its group's. One that has left the group
// that it led is told by itself.
int child_process::send(int signal) const noexcept {
  const auto to_it = [&] {
    return kernel(SYS_pidfd_send_signal, pidfd_.fileno(), signal, nullptr, 0).error();
  };
  if (const int error = kernel(SYS_pidfd_send_signal, pidfd_.fileno(), 0, nullptr, 0).error();
      error == ESRCH || group_ == child_group::ours) {
    return error == ESRCH ? error : to_it();  // somebody has taken the status behind our back
  }
  const int of_group = kernel(SYS_kill, -pid_, signal).error();
  return ::getpgid(pid_) != pid_ || of_group == ESRCH ? to_it() : of_group;
}

bool child_process::kill(int signal, const char* call) {
  if (pid_ == 0) {
    throw_error(ECHILD, call);
  }
  if (is_over()) {
    return false;
  }
  (void)hub_core::of(*link_, call);
  const int error = send(signal);
  if (error != 0 && error != ESRCH) {
    throw_error(error, call);
  }
  return error == 0;
}

// In a child that was forked since it is the parent's.
void child_process::abandon() noexcept {
  if (pid_ == 0 || is_over() || ::getpid() != parent_) {
    return;
  }
  hub_core* const hub = link_->hub.load(std::memory_order_acquire);
  check(hub == nullptr || hub == hub_core::current(),
        "a process was destroyed on another thread than its hub's while the hub was alive");
  const int error = send(SIGKILL);
  pid_ = 0;
  if (error != 0) {
    return;  // it is gone, or may not be ended: then nobody knows for how long it goes on
  }
  const io_result copy = kernel(SYS_fcntl, pidfd_.fileno(), F_DUPFD_CLOEXEC, 0);
  if (!copy.ok()) {
    child_step::await(pidfd_.fileno());
    return;
  }
  const auto pidfd = static_cast<int>(copy.value());
  reaper_->take(pidfd);
  if (hub != nullptr && hub->io().threads().submit(*reaper_, worker_pool::urgency::bounded)) {
    (void)reaper_.release();
  } else {
    reaper::reap(pidfd);
  }
}

}  // namespace annulet::detail
