// What Linux does with a job in the background that reads its terminal, or writes to it: it is stopped, or
// told otherwise. A thread of the pool, which blocks all signals, passes for one that wants neither; so the
// hub's own thread asks for leave. Internal.
#pragma once

#include <optional>

#include <termios.h>

namespace annulet::detail {

// Its settings, if it is a terminal, and not the master's side of one.
[[nodiscard]] std::optional<termios> terminal_of(int fd) noexcept;

// Stop the process and run handlers where the call would have done so. 0 where it may be made, and else the
// errno that it ends with.

[[nodiscard]] int ask_to_write(int terminal, const termios& settings) noexcept;
// After a read that has said EIO on another thread.
[[nodiscard]] int ask_to_read_again(int terminal) noexcept;

}  // namespace annulet::detail
