// How a call on a descriptor says what went wrong. Internal.
#pragma once

#include <string>

namespace annulet::detail {

// std::system_error, "annulet: recv(7)".
[[noreturn, gnu::cold]] void throw_io_error(int error, const char* call, int fd);
// The same of a path, or of something else that has a name.
[[noreturn, gnu::cold]] void throw_io_error(int error, const char* call, const std::string& name);
// annulet::deadline_passed, "annulet: recv(7): the deadline passed".
[[noreturn, gnu::cold]] void throw_deadline_passed(const char* call, int fd);
[[noreturn, gnu::cold]] void throw_deadline_passed(const char* call, const std::string& name);

}  // namespace annulet::detail
