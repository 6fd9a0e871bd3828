// The process on the other processor: forked, pinned there, and gone when this one goes.
#pragma once

#include <sys/types.h>
#include <functional>

namespace bench {

// Forked before there is a hub or a thread. This process ends, and says why, where the child ends before the
// destructor, for it would wait for it for ever. One at a time.
class child_process {
 public:
  // The body returns when it has been told to end, by a way of its own; before the destructor here runs.
  child_process(int processor, const std::function<void()>& body);
  ~child_process();
  child_process(const child_process&) = delete;
  child_process& operator=(const child_process&) = delete;

  // From now on it may end.
  void expect_end();
  pid_t id() const { return id_; }

 private:
  pid_t id_ = -1;
};

}  // namespace bench
