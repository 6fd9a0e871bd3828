// Memory that is not there until a test says so: a system call that writes to it waits in the kernel
// meanwhile, as for a disk that does not answer, with all locks that it has by then. No signal ends that.
#pragma once

#include "files.hpp"

#include <annulet/hub/buffer.hpp>
#include <annulet/runtime/this_fiber.hpp>

#include <doctest/doctest.h>

#include <chrono>
#include <cstddef>
#include <cstdio>
#include <utility>

#include <linux/userfaultfd.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>

namespace annulet::test {

class held_memory {
 public:
  held_memory() : faults_(static_cast<int>(::syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK))) {
    if (faults_.get() < 0) {
      std::printf("note: skipped: userfaultfd is not to be had here\n");
      return;
    }
    uffdio_api version{};
    version.api = UFFD_API;
    require_ok(::ioctl(faults_.get(), UFFDIO_API, &version), "UFFDIO_API");
    memory_ = ::mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    uffdio_register held{};
    held.range = range();
    held.mode = UFFDIO_REGISTER_MODE_MISSING;
    require_ok(::ioctl(faults_.get(), UFFDIO_REGISTER, &held), "UFFDIO_REGISTER");
  }
  ~held_memory() {
    faults_.close();
    if (memory_ != MAP_FAILED) {
      ::munmap(memory_, size);
    }
  }
  held_memory(const held_memory&) = delete;
  held_memory& operator=(const held_memory&) = delete;

  [[nodiscard]] explicit operator bool() const noexcept { return memory_ != MAP_FAILED; }
  [[nodiscard]] mutable_buffer buffer() const noexcept { return {memory_, 64}; }
  // Parks until a call waits for it.
  void await_access() const {
    const auto give_up = std::chrono::steady_clock::now() + std::chrono::seconds(10);
    pollfd fault{faults_.get(), POLLIN, 0};
    while (::poll(&fault, 1, 0) == 0) {
      REQUIRE(std::chrono::steady_clock::now() < give_up);
      this_fiber::sleep_for(std::chrono::milliseconds(1));
    }
  }
  // From now on it is memory like any other. Any thread.
  void give() const noexcept {
    uffdio_zeropage zeros{};
    zeros.range = range();
    (void)::ioctl(faults_.get(), UFFDIO_ZEROPAGE, &zeros);
  }

 private:
  static constexpr std::size_t size = 65536;  // whole pages everywhere

  [[nodiscard]] uffdio_range range() const noexcept {
    return {reinterpret_cast<std::uintptr_t>(memory_), size};
  }

  descriptor faults_;
  void* memory_ = MAP_FAILED;
};

}  // namespace annulet::test
