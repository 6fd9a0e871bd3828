// Memory that ends where no memory is.
#pragma once

#include "files.hpp"

#include <cstddef>

#include <sys/mman.h>

namespace annulet::test {

// The memory of one page, and nothing behind it: nobody else's either, for a hole might be filled meanwhile.
class page_before_nothing {
 public:
  page_before_nothing()
      : start_(static_cast<char*>(
            ::mmap(nullptr, 2 * page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0))) {
    require_ok(::mprotect(start_ + page, page, PROT_NONE), "mprotect");
  }
  ~page_before_nothing() { ::munmap(start_, 2 * page); }
  page_before_nothing(const page_before_nothing&) = delete;
  page_before_nothing& operator=(const page_before_nothing&) = delete;
  [[nodiscard]] void* last(std::size_t size) const { return start_ + page - size; }

 private:
  static constexpr std::size_t page = 4096;
  char* start_;
};

}  // namespace annulet::test
