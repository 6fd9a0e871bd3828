// Waits for a child process, without SIGCHLD, and for that one only: children of others, a library's or
// another fiber's, are never touched.
//
//   const annulet::exit_status end = annulet::wait_child(pid, 5s);
//   if (end.code() != 0) ...
//
// process.hpp starts children, and waits for them.
#pragma once

#include <annulet/runtime/deadline.hpp>
#include <annulet/runtime/errors.hpp>

#include <optional>
#include <string>

#include <sys/types.h>

namespace [[gnu::visibility("default")]] annulet {

// How a process has ended: it exited with a code, or a signal ended it.
class exit_status {
 public:
  enum class cause { exited, killed, dumped };
  // `value`: the code, or the number of the signal.
  constexpr exit_status(cause how, int value) noexcept : cause_(how), value_(value) {}

  // What it returned, 0 to 255; nothing where a signal ended it.
  [[nodiscard]] constexpr std::optional<int> code() const noexcept {
    return cause_ == cause::exited ? std::optional(value_) : std::nullopt;
  }
  // What ended it; nothing where it exited.
  [[nodiscard]] constexpr std::optional<int> signal() const noexcept {
    return cause_ != cause::exited ? std::optional(value_) : std::nullopt;
  }
  [[nodiscard]] constexpr bool dumped_core() const noexcept { return cause_ == cause::dumped; }
  // It exited with 0.
  [[nodiscard]] constexpr bool success() const noexcept { return cause_ == cause::exited && value_ == 0; }
  // "exited with 3", "killed by signal 9", with ", core dumped" where it was.
  [[nodiscard]] std::string text() const;

  friend constexpr bool operator==(const exit_status&, const exit_status&) noexcept = default;

 private:
  cause cause_;
  int value_;
};

// Parks until the child has ended, and takes its status: it is no zombie then, and its number free. Where
// this throws nothing was taken, and it can be waited for again: deadline_passed where the deadline came
// first (one of zero or in the past looks once), and kills and guards. A kill that comes together with the
// child's end stays pending, and the status is returned.
//
// Throws std::system_error, "annulet: wait_child(4711)": ECHILD for who is no child of this process, was
// waited for, or goes unseen because SIGCHLD is ignored; EINVAL for a number that is not positive; EMFILE and
// its like, for it takes a descriptor. For the hub's thread; no_hub on one without. Of several that wait for
// one child one has its status, the others ECHILD. Linux 5.4.
exit_status wait_child(pid_t pid, deadline until = deadline::never());

}  // namespace annulet
