#include "io_error.hpp"

#include <annulet/runtime/errors.hpp>

#include <cerrno>
#include <string>
#include <system_error>

namespace annulet::detail {

namespace {

std::string text_of(const char* call, int fd) {
  return std::string("annulet: ") + call + "(" + std::to_string(fd) + ")";
}

}  // namespace

void throw_io_error(int error, const char* call, int fd) {
  throw std::system_error(error, std::generic_category(), text_of(call, fd));
}

void throw_deadline_passed(const char* call, int fd) {
  throw deadline_passed(text_of(call, fd) + ": the deadline passed");
}

}  // namespace annulet::detail
