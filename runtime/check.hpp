// Invariants that no caller can mend: a broken one is reported on stderr and ends the process.
// What a caller did wrong is an exception instead (errors.hpp).
#pragma once

#include <string_view>

namespace annulet::detail {

// Writes "annulet: <what>" to stderr in one write and aborts. Any thread.
[[noreturn, gnu::cold]] void fail(std::string_view what) noexcept;

// Writes "annulet: <what>" to stderr in one write, and ends the line where that does not. Any thread.
[[gnu::cold]] void report(std::string_view what) noexcept;

inline void check(bool holds, std::string_view otherwise) noexcept {
  if (!holds) [[unlikely]] {
    fail(otherwise);
  }
}

}  // namespace annulet::detail
