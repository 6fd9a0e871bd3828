// What a selector is asked to watch for, and what it reports: a bit mask, Python's EVENT_READ and
// EVENT_WRITE.
#pragma once

namespace annulet {

enum class io_event : unsigned { none = 0, read = 1, write = 2 };

[[nodiscard]] constexpr io_event operator|(io_event a, io_event b) noexcept {
  return static_cast<io_event>(static_cast<unsigned>(a) | static_cast<unsigned>(b));
}
[[nodiscard]] constexpr io_event operator&(io_event a, io_event b) noexcept {
  return static_cast<io_event>(static_cast<unsigned>(a) & static_cast<unsigned>(b));
}
constexpr io_event& operator|=(io_event& a, io_event b) noexcept { return a = a | b; }
constexpr io_event& operator&=(io_event& a, io_event b) noexcept { return a = a & b; }

// Whether a mask has any of these bits.
[[nodiscard]] constexpr bool has(io_event mask, io_event bits) noexcept {
  return (mask & bits) != io_event::none;
}

}  // namespace annulet
