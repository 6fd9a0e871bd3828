#include "check.hpp"

#include <cstdlib>
#include <string>

#include <unistd.h>

namespace annulet::detail {

void report(std::string_view what) noexcept {
  // One write, so that lines of several threads do not mix. Nothing can be done where stderr is gone.
  constexpr std::string_view prefix = "annulet: ";
  try {
    std::string line;
    line.reserve(prefix.size() + what.size() + 1);
    line.append(prefix).append(what).push_back('\n');
    [[maybe_unused]] auto written = ::write(STDERR_FILENO, line.data(), line.size());
  } catch (...) {
    [[maybe_unused]] auto written = ::write(STDERR_FILENO, what.data(), what.size());
  }
}

void fail(std::string_view what) noexcept {
  report(what);
  std::abort();
}

}  // namespace annulet::detail
