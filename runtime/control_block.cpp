#include "control_block.hpp"

#include "errors.hpp"

#include <algorithm>

namespace annulet::detail {

void control_block::set_name(std::string_view name) noexcept {
  std::size_t length = std::min(name.size(), longest_name);
  const auto is_inside_character = [](char c) { return (static_cast<unsigned char>(c) & 0xc0) == 0x80; };
  if (length < name.size() && is_inside_character(name[length])) {  // of UTF-8, if that is what it is
    std::size_t begin = length;
    while (begin != 0 && length - begin < 3 && is_inside_character(name[begin])) {
      --begin;
    }
    length = is_inside_character(name[begin]) ? length : begin;
  }
  name_length_ = static_cast<std::uint8_t>(length);
  std::copy_n(name.data(), name_length_, name_.data());
}

std::string control_block::describe() const {
  std::string text;
  describe_by([&text](std::string_view piece) { text.append(piece); });
  return text;
}

std::exception_ptr control_block::failure() const {
  switch (outcome) {
    case fiber_outcome::error:
      return error;
    case fiber_outcome::killed:
      return std::make_exception_ptr(fiber_failed("annulet: " + describe() + " was killed"));
    default:
      return std::make_exception_ptr(
          fiber_failed("annulet: " + describe() + " was ended by a timeout guard that it did not catch"));
  }
}

}  // namespace annulet::detail
