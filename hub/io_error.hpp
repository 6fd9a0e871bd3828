// How a call on a descriptor says what went wrong. Internal.
#pragma once

namespace annulet::detail {

// std::system_error, "annulet: recv(7)".
[[noreturn, gnu::cold]] void throw_io_error(int error, const char* call, int fd);
// annulet::deadline_passed, "annulet: recv(7): the deadline passed".
[[noreturn, gnu::cold]] void throw_deadline_passed(const char* call, int fd);

}  // namespace annulet::detail
