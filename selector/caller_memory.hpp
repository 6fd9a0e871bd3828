// Reads and writes what a caller points at as a system call does: where nothing is, that is an error and no
// fault. What lies on the running fiber's stack, above this frame, is there; the kernel is asked for anything
// else, once a call.
// Internal. On a thread with a hub.
#pragma once

#include <cstddef>
#include <span>

namespace annulet::detail {

struct caller_memory {
  void* theirs;
  void* ours;
  std::size_t size;
};

// Four pieces at most. All or nothing.
[[nodiscard]] bool copy_from_caller(std::span<const caller_memory> pieces) noexcept;
// Whether all was written.
[[nodiscard]] bool copy_to_caller(std::span<const caller_memory> pieces) noexcept;

[[nodiscard]] inline bool copy_from_caller(void* to, const void* from, std::size_t size) noexcept {
  const caller_memory all{const_cast<void*>(from), to, size};
  return copy_from_caller({&all, 1});
}
[[nodiscard]] inline bool copy_to_caller(void* to, const void* from, std::size_t size) noexcept {
  const caller_memory all{to, const_cast<void*>(from), size};
  return copy_to_caller({&all, 1});
}

}  // namespace annulet::detail
