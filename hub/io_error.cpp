#include "io_error.hpp"

#include <annulet/runtime/errors.hpp>

#include <cerrno>
#include <string>
#include <system_error>

namespace annulet::detail {

namespace {

std::string text_of(const char* call, const std::string& name) {
  return std::string("annulet: ") + call + "(" + name + ")";
}

}  // namespace

void throw_io_error(int error, const char* call, const std::string& name) {
  throw std::system_error(error, std::generic_category(), text_of(call, name));
}

void throw_io_error(int error, const char* call, int fd) { throw_io_error(error, call, std::to_string(fd)); }

void throw_deadline_passed(const char* call, const std::string& name) {
  throw deadline_passed(text_of(call, name) + ": the deadline passed");
}

void throw_deadline_passed(const char* call, int fd) { throw_deadline_passed(call, std::to_string(fd)); }

}  // namespace annulet::detail
