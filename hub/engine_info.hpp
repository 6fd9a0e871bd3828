// Which engine serves a hub, and how it was chosen.
#pragma once

#include <string>
#include <vector>

namespace annulet {

struct engine_info {
  std::string name;                   // "io_uring" or "epoll"
  std::vector<std::string> flags;     // io_uring: the set-up flags that the kernel accepted
  std::vector<std::string> features;  // of the kernel, that the engine makes use of
  // What was tried before: each call, its errno by name and in words; and where io_uring as such was refused,
  // in the last of them, what would allow it. Empty where all was to be had at once.
  std::vector<std::string> refused;
  unsigned sq_entries = 0;  // io_uring: the sizes of its queues
  unsigned cq_entries = 0;
};

}  // namespace annulet
