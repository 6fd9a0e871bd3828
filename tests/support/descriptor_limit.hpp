// How many descriptors this process may have.
#pragma once

#include "files.hpp"

#include <algorithm>

#include <sys/resource.h>

namespace annulet::test {

// So many, or as many as it may at most. Returns how many.
inline rlim_t allow_descriptors(rlim_t wanted) {
  rlimit files{};
  require_ok(::getrlimit(RLIMIT_NOFILE, &files), "getrlimit");
  files.rlim_cur = std::min(wanted, files.rlim_max);
  require_ok(::setrlimit(RLIMIT_NOFILE, &files), "setrlimit");
  return files.rlim_cur;
}

}  // namespace annulet::test
