// Whether this process is a child that fork(2) has made since. Internal.
#pragma once

#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <system_error>

#include <sys/mman.h>
#include <unistd.h>

namespace annulet::detail {

// A page that no child gets, so that one load tells: also where no handler of pthread_atfork has run yet, or
// ever will (_Fork). The child of a vfork runs on its parent's memory and finds the mark standing.
class fork_mark {
 public:
  // Throws std::system_error.
  fork_mark() {
    void* const page = ::mmap(nullptr, size_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (page == MAP_FAILED) {
      refuse(errno);
    }
    page_ = static_cast<volatile std::uint8_t*>(page);
    // Older than io_uring. Where it is not known all the same (EINVAL) a child is told by its handler only.
    if (::madvise(page, size_, MADV_WIPEONFORK) != 0 && errno != EINVAL) {
      const int error = errno;
      ::munmap(page, size_);
      refuse(error);
    }
    *page_ = 1;
  }
  ~fork_mark() { ::munmap(const_cast<std::uint8_t*>(page_), size_); }
  fork_mark(const fork_mark&) = delete;
  fork_mark& operator=(const fork_mark&) = delete;

  [[nodiscard]] bool stands() const noexcept { return *page_ != 0; }

 private:
  [[noreturn]] static void refuse(int error) {
    throw std::system_error(error, std::generic_category(), "annulet: hub: a page that no child gets");
  }

  const std::size_t size_ = static_cast<std::size_t>(::sysconf(_SC_PAGESIZE));
  volatile std::uint8_t* page_;
};

}  // namespace annulet::detail
