// Counts the blocks of memory that operator new has given out, for tests that nothing is left. (mallinfo
// takes what malloc keeps for itself as in use.) Replaces the program's operators: for one source of each.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdlib>
#include <new>

namespace annulet::test {

inline std::atomic<std::ptrdiff_t> blocks_in_use{0};

}  // namespace annulet::test

[[gnu::noinline]] void* operator new(std::size_t size) {
  if (void* const memory = std::malloc(size)) {
    ++annulet::test::blocks_in_use;
    return memory;
  }
  throw std::bad_alloc();
}
// The standard library's calls the one above, the address sanitizer's does not.
void* operator new(std::size_t size, const std::nothrow_t&) noexcept {
  try {
    return operator new(size);
  } catch (const std::bad_alloc&) {
    return nullptr;
  }
}
[[gnu::noinline]] void operator delete(void* memory) noexcept {
  annulet::test::blocks_in_use -= memory != nullptr ? 1 : 0;
  std::free(memory);
}
void operator delete(void* memory, std::size_t) noexcept { operator delete(memory); }
