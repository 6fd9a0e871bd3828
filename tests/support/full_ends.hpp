// Ends that take nothing more.
#pragma once

#include "texts.hpp"
#include "two_ends.hpp"

#include <chrono>
#include <thread>

#include <sys/ioctl.h>

namespace annulet::test {

// What a terminal takes is carried to its other end by a thread of the kernel, which leaves room again until
// the other end's buffer (4096 bytes, one of them never used) is full: however late that thread is.
inline void fill_terminal(int fd, int peer) {
  int there = 0;
  for (int quiet = 0; quiet < 3; ++quiet) {
    require_ok(::ioctl(peer, FIONREAD, &there), "FIONREAD");
    if (fill(fd) > 0 || there < 4095) {
      quiet = 0;
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
}

// So that the end blocks, and goes on to.
inline void fill_blocking(ends& both, kind what) {
  const int fd = both.mine.get();
  const int flags = ::fcntl(fd, F_GETFL);
  set_nonblocking(fd);
  switch (what) {
    case kind::tcp:
      fill_for_good(fd, both.peer.get());
      break;
    case kind::unix_datagram:
      while (::send(fd, "x", 1, 0) == 1) {
      }
      break;
    case kind::pty:
      fill_terminal(fd, both.peer.get());
      break;
    default:
      fill(fd);
  }
  require_ok(::fcntl(fd, F_SETFL, flags), "F_SETFL");
}

// Neither to be read nor to be written, and neither blocks.
inline ends full_ends(kind what) {
  ends both = make_ends(what, true);
  set_nonblocking(both.mine.get());
  if (what == kind::tcp) {
    fill_for_good(both.mine.get(), both.peer.get());
  } else {
    fill(both.mine.get());
  }
  set_nonblocking(both.peer.get());
  return both;
}

}  // namespace annulet::test
