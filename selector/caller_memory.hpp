// Reads what a caller points at as a system call does: where nothing is, that is an error and no fault.
// Internal. On a thread with a hub.
#pragma once

#include <cstddef>

namespace annulet::detail {

// How many bytes could be read, from the first on. What lies on the running fiber's stack, above this frame,
// is there; the kernel is asked for anything else.
[[nodiscard]] std::size_t read_from_caller(void* to, const void* from, std::size_t size) noexcept;
// All or nothing.
[[nodiscard]] inline bool copy_from_caller(void* to, const void* from, std::size_t size) noexcept {
  return read_from_caller(to, from, size) == size;
}
// Whether all was written.
[[nodiscard]] bool copy_to_caller(void* to, const void* from, std::size_t size) noexcept;

}  // namespace annulet::detail
