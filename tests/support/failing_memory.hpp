// Memory of which one piece is refused: the n-th that operator new or mmap is asked for, by whichever thread.
// Counts what is in use besides. Replaces the program's operators: for one source of a program, which is
// linked with --wrap=mmap64, as mmap is called where offsets have 64 bits, and --wrap=munmap.
#pragma once

#include <atomic>
#include <cerrno>
#include <cstddef>
#include <cstdlib>
#include <new>

#include <sys/mman.h>

namespace annulet::test {

inline std::atomic<std::ptrdiff_t> pieces_in_use{0};  // of operator new
inline std::atomic<std::ptrdiff_t> bytes_mapped{0};

// While it lives; the n-th from 1 on, or none for 0.
class failing_memory {
 public:
  explicit failing_memory(std::size_t at) noexcept { left = static_cast<std::ptrdiff_t>(at); }
  ~failing_memory() { left = 0; }
  failing_memory(const failing_memory&) = delete;
  failing_memory& operator=(const failing_memory&) = delete;

  static inline std::atomic<std::size_t> mappings_refused{0};

  [[nodiscard]] static bool has_failed() noexcept { return left < 0; }
  [[nodiscard]] static bool fails_now() noexcept {
    std::ptrdiff_t now = left;
    while (now > 0) {
      if (left.compare_exchange_weak(now, now == 1 ? -1 : now - 1)) {
        return now == 1;
      }
    }
    return false;
  }

 private:
  static inline std::atomic<std::ptrdiff_t> left{0};  // -1: it was
};

inline void* memory_or_null(std::size_t size, std::size_t alignment) noexcept {
  if (failing_memory::fails_now()) {
    return nullptr;
  }
  void* const memory = std::aligned_alloc(alignment, (size + alignment) / alignment * alignment);
  pieces_in_use += memory != nullptr ? 1 : 0;
  return memory;
}

inline void* memory_or_throw(std::size_t size, std::size_t alignment) {
  if (void* const memory = memory_or_null(size, alignment)) {
    return memory;
  }
  throw std::bad_alloc();
}

inline void give_back(void* memory) noexcept {
  pieces_in_use -= memory != nullptr ? 1 : 0;
  std::free(memory);
}

inline constexpr std::size_t usual = alignof(std::max_align_t);

}  // namespace annulet::test

[[gnu::noinline]] void* operator new(std::size_t size) {
  return annulet::test::memory_or_throw(size, annulet::test::usual);
}
[[gnu::noinline]] void* operator new(std::size_t size, std::align_val_t alignment) {
  return annulet::test::memory_or_throw(size, static_cast<std::size_t>(alignment));
}
[[gnu::noinline]] void* operator new(std::size_t size, const std::nothrow_t&) noexcept {
  return annulet::test::memory_or_null(size, annulet::test::usual);
}
[[gnu::noinline]] void operator delete(void* memory) noexcept { annulet::test::give_back(memory); }
[[gnu::noinline]] void operator delete(void* memory, std::size_t) noexcept {
  annulet::test::give_back(memory);
}
[[gnu::noinline]] void operator delete(void* memory, std::align_val_t) noexcept {
  annulet::test::give_back(memory);
}
[[gnu::noinline]] void operator delete(void* memory, std::size_t, std::align_val_t) noexcept {
  annulet::test::give_back(memory);
}
[[gnu::noinline]] void operator delete(void* memory, const std::nothrow_t&) noexcept {
  annulet::test::give_back(memory);
}

extern "C" {

void* __real_mmap64(void* at, std::size_t length, int protection, int flags, int fd, off_t offset);

void* __wrap_mmap64(void* at, std::size_t length, int protection, int flags, int fd, off_t offset) {
  if (annulet::test::failing_memory::fails_now()) {
    ++annulet::test::failing_memory::mappings_refused;
    errno = ENOMEM;
    return MAP_FAILED;
  }
  void* const memory = __real_mmap64(at, length, protection, flags, fd, offset);
  annulet::test::bytes_mapped += memory != MAP_FAILED ? static_cast<std::ptrdiff_t>(length) : 0;
  return memory;
}

int __real_munmap(void* at, std::size_t length);

int __wrap_munmap(void* at, std::size_t length) {
  const int failed = __real_munmap(at, length);
  annulet::test::bytes_mapped -= failed == 0 ? static_cast<std::ptrdiff_t>(length) : 0;
  return failed;
}
}
