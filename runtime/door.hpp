// The way for other threads into the fibers of one: what a promise that is kept elsewhere comes by. The hub
// behind it is the runtime's outside, so the runtime knows it by this alone. Internal.
#pragma once

#include "inbox.hpp"

namespace annulet::detail {

class door {
 public:
  // Has the item run by the thread behind the door, between two fibers, and takes it over: it may wake
  // fibers, and must neither park nor throw. False where that thread's hub has ended; then it is the caller's
  // still. Any thread.
  [[nodiscard]] virtual bool leave(posted& item) noexcept = 0;

 protected:
  door() = default;
  ~door() = default;
};

}  // namespace annulet::detail
