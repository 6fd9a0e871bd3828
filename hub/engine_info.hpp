// Which engine serves a hub, and how it was chosen.
#pragma once

#include <string>
#include <vector>

namespace annulet {

struct engine_info {
  std::string name;                  // "io_uring"
  std::vector<std::string> flags;    // set-up flags that the kernel accepted
  std::vector<std::string> refused;  // what was tried first, and with which error it was refused
  unsigned sq_entries = 0;
  unsigned cq_entries = 0;
};

}  // namespace annulet
