#include "control_block.hpp"

#include "errors.hpp"

#include <algorithm>

namespace annulet::detail {

void control_block::set_name(std::string_view name) noexcept {
  name_length_ = static_cast<std::uint8_t>(std::min(name.size(), longest_name));
  std::copy_n(name.data(), name_length_, name_.data());
}

std::string control_block::describe() const {
  std::string text = "fiber " + std::to_string(id);
  if (name_length_ != 0) {
    text.append(" \"").append(name()).append("\"");
  }
  if (place.line() != 0) {
    text.append(" (spawned at ").append(place.file_name()).append(":");
    text.append(std::to_string(place.line())).append(")");
  }
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
