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

// While it lives numbers from there on are not to be had; those that are open stay so.
class lowered_limit {
 public:
  explicit lowered_limit(rlim_t numbers) {
    require_ok(::getrlimit(RLIMIT_NOFILE, &before_), "getrlimit");
    rlimit low = before_;
    low.rlim_cur = numbers;
    require_ok(::setrlimit(RLIMIT_NOFILE, &low), "setrlimit");
  }
  ~lowered_limit() { ::setrlimit(RLIMIT_NOFILE, &before_); }
  lowered_limit(const lowered_limit&) = delete;
  lowered_limit& operator=(const lowered_limit&) = delete;

 private:
  rlimit before_{};
};

}  // namespace annulet::test
