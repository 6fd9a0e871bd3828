// Another process that does something to this one, so that this one keeps to a single thread.
#pragma once

#include "files.hpp"

#include <chrono>
#include <utility>

#include <sys/wait.h>
#include <unistd.h>

namespace annulet::test {

class forked_sender {
 public:
  // do_it(pid of this process), after a while.
  template <class Do>
  forked_sender(std::chrono::microseconds wait, Do&& do_it) {
    const pid_t parent = ::getpid();
    child_ = require_ok(::fork(), "fork");
    if (child_ == 0) {
      ::usleep(static_cast<useconds_t>(wait.count()));
      std::forward<Do>(do_it)(parent);
      ::_exit(0);
    }
  }
  ~forked_sender() { ::waitpid(child_, nullptr, 0); }
  forked_sender(const forked_sender&) = delete;
  forked_sender& operator=(const forked_sender&) = delete;

 private:
  pid_t child_;
};

}  // namespace annulet::test
