// A child that this process has started: what a process object and the fibers that wait for it share.
// Internal.
#pragma once

#include "child.hpp"
#include "child_step.hpp"
#include "descriptor.hpp"
#include "process.hpp"
#include "process_start.hpp"

#include <annulet/runtime/deadline.hpp>

#include <memory>
#include <optional>
#include <string>

#include <sys/types.h>

namespace annulet::detail {

class hub_core;
class hub_link;
class reaper;

class child_process {
 public:
  // What is needed to let it go is made before there is one. Throws std::bad_alloc.
  child_process(hub_core& hub, const process_options& options);
  ~child_process();
  child_process(const child_process&) = delete;
  child_process& operator=(const child_process&) = delete;

  // It has been started. Where this throws it is ended, and its status taken.
  void own(hub_core& hub, const started& child);

  [[nodiscard]] pid_t pid() const noexcept { return pid_; }
  // Its status is not to be had any more: it was taken here, or by somebody else before there was a pidfd.
  [[nodiscard]] bool is_over() const noexcept { return status_ || !pidfd_; }
  // Nothing where the deadline came first. Throws as wait_child does.
  [[nodiscard]] std::optional<exit_status> wait(deadline until, child_step::form how, const char* call);
  [[nodiscard]] bool kill(int signal, const char* call);
  // It is nobody's from now on: it is ended, and reaped by a thread.
  void abandon() noexcept;
  // Likewise, but it goes on.
  void release() noexcept { pid_ = 0; }
  [[noreturn]] void throw_error(int error, const char* call) const;

 private:
  [[nodiscard]] int send(int signal) const noexcept;

  const pid_t parent_;
  std::shared_ptr<hub_link> link_;
  std::unique_ptr<reaper> reaper_;
  const child_group group_;
  pid_t pid_ = 0;
  descriptor pidfd_;
  std::optional<exit_status> status_;
};

}  // namespace annulet::detail
