// Ends that take nothing more.
#pragma once

#include "texts.hpp"
#include "two_ends.hpp"

#include <chrono>
#include <thread>

namespace annulet::test {

// So that the end blocks, now and for the next moments.
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
    default:
      // Of what a terminal takes some moves on for a while.
      for (int quiet = 0; quiet < (what == kind::pty ? 10 : 1); ++quiet) {
        quiet = fill(fd) == 0 ? quiet : 0;
        std::this_thread::sleep_for(std::chrono::milliseconds(what == kind::pty ? 1 : 0));
      }
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
