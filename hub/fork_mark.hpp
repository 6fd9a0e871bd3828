// Whether this process is a child that fork(2) has made since. Internal.
#pragma once

#include <cstddef>
#include <cstdint>
#include <new>

#include <sys/mman.h>
#include <unistd.h>

namespace annulet::detail {

// A page that no child gets, so that one load tells: also where no handler of pthread_atfork has run yet, or
// ever will (_Fork). The child of a vfork runs on its parent's memory and finds the mark standing.
class fork_mark {
 public:
  // Throws std::bad_alloc.
  fork_mark() {
    void* const page = ::mmap(nullptr, size_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (page == MAP_FAILED) {
      throw std::bad_alloc();
    }
    page_ = static_cast<volatile std::uint8_t*>(page);
    (void)::madvise(page, size_, MADV_WIPEONFORK);  // it is older than io_uring
    *page_ = 1;
  }
  ~fork_mark() { ::munmap(const_cast<std::uint8_t*>(page_), size_); }
  fork_mark(const fork_mark&) = delete;
  fork_mark& operator=(const fork_mark&) = delete;

  [[nodiscard]] bool stands() const noexcept { return *page_ != 0; }

 private:
  const std::size_t size_ = static_cast<std::size_t>(::sysconf(_SC_PAGESIZE));
  volatile std::uint8_t* page_;
};

}  // namespace annulet::detail
