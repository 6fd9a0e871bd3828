#include "terminal_jobs.hpp"

#include <annulet/hub/syscalls.hpp>

#include <cerrno>

#include <fcntl.h>
#include <sys/ioctl.h>

namespace annulet::detail {

std::optional<termios> terminal_of(int fd) noexcept {
  termios settings{};
  int number = 0;
  if (!kernel(SYS_ioctl, fd, TCGETS, &settings).ok() || kernel(SYS_ioctl, fd, TIOCGPTN, &number).ok()) {
    return std::nullopt;
  }
  return settings;
}

// Who changes something about the terminal is treated as who writes; and what is to be changed is looked at
// only afterwards, and is nothing that there is.
int ask_to_write(int terminal, const termios& settings) noexcept {
  constexpr int no_queue = 99;
  if ((settings.c_lflag & TOSTOP) == 0) {
    return 0;
  }
  const io_result asked = kernel(SYS_ioctl, terminal, TCFLSH, no_queue);
  return asked.error() == EIO || asked.error() == EINTR ? asked.error() : 0;
}

// Only a read is treated as one: of nothing, and by an open file of our own, for which O_NONBLOCK keeps it
// from waiting for who is in a read.
int ask_to_read_again(int terminal) noexcept {
  int foreground = 0;
  if (!kernel(SYS_ioctl, terminal, TIOCGPGRP, &foreground).ok()) {
    return EIO;  // not this process's terminal, or not any more
  }
  constexpr int how = O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC;
  const io_result opened = kernel(SYS_openat, AT_FDCWD, "/dev/tty", how);
  if (!opened.ok()) {
    return EIO;
  }
  const int own = static_cast<int>(opened.value());
  char nothing = 0;
  const io_result asked = kernel(SYS_read, own, &nothing, 0);
  (void)kernel(SYS_close, own);
  return asked.error() == EAGAIN ? 0 : asked.error();
}

}  // namespace annulet::detail
