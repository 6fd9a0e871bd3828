// Which engine serves a hub, and how it was chosen.
#pragma once

#include <string>
#include <vector>

namespace annulet {

struct engine_info {
  std::string name;                   // "io_uring" or "epoll"
  std::vector<std::string> flags;     // io_uring: the set-up flags that the kernel accepted
  std::vector<std::string> features;  // of the kernel, that the engine makes use of
  std::vector<std::string>
      refused;              // what was tried first, with which error it was refused, and what would help
  unsigned sq_entries = 0;  // io_uring: the sizes of its queues
  unsigned cq_entries = 0;
};

}  // namespace annulet
