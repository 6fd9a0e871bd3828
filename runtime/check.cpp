#include "check.hpp"

#include <cstdlib>
#include <string>

#include <sys/syscall.h>
#include <unistd.h>
#include <algorithm>
#include <cerrno>

namespace annulet::detail {

namespace {

// What is long may go in parts. Past libc, whose name may be interposed by a call that parks. Nothing can be
// done where stderr is gone.
void write_all(std::string_view text) noexcept {
  while (!text.empty()) {
    const ssize_t written = ::syscall(SYS_write, STDERR_FILENO, text.data(), text.size());
    if (written <= 0 && errno != EINTR) {
      return;
    }
    text.remove_prefix(static_cast<std::size_t>(std::max<ssize_t>(written, 0)));
  }
}

}  // namespace

void report(std::string_view what) noexcept {
  // One write, so that lines of several threads do not mix.
  constexpr std::string_view prefix = "annulet: ";
  try {
    std::string line;
    line.reserve(prefix.size() + what.size() + 1);
    line.append(prefix).append(what);
    if (!what.ends_with('\n')) {
      line.push_back('\n');
    }
    write_all(line);
  } catch (...) {
    write_all(what);
  }
}

void fail(std::string_view what) noexcept {
  report(what);
  std::abort();
}

}  // namespace annulet::detail
