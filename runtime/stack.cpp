#include "stack.hpp"

#include <algorithm>
#include <cerrno>
#include <cstdint>
#include <new>
#include <stdexcept>
#include <string>
#include <system_error>

#include <sys/auxv.h>
#include <sys/mman.h>
#include <unistd.h>

namespace annulet {

namespace {

// linux/mman.h of Debian 12 does not name it yet.
constexpr int madv_guard_install = 102;

constexpr std::size_t slab_length = std::size_t{16} << 20;

std::size_t page_size() noexcept {
  static const auto size = static_cast<std::size_t>(::sysconf(_SC_PAGESIZE));
  return size;
}

std::size_t whole_pages(std::size_t bytes) noexcept {
  return (bytes + page_size() - 1) / page_size() * page_size();
}

[[noreturn]] void no_stack(int error, std::size_t size, const char* why) {
  throw std::system_error(error, std::generic_category(),
                          "annulet: no stack of " + std::to_string(size) + " bytes to be had: " + why);
}

}  // namespace

std::size_t smallest_stack_size() noexcept {
  // 12 KiB for the wait, its callees and a handler of modest size beside the frame that the kernel pushes.
  static const std::size_t size = [] {
    const std::size_t signal_frame = std::max<std::size_t>(::getauxval(AT_MINSIGSTKSZ), 2048);
    return whole_pages(signal_frame + (std::size_t{12} << 10));
  }();
  return size;
}

namespace detail {

stack_pool::~stack_pool() {
  for (const slab& s : slabs_) {
    ::munmap(s.start, s.length);
  }
}

void stack_pool::let_go() noexcept {
  if (in_use_ == 0) {
    delete this;
  } else {
    orphaned_ = true;
  }
}

stack stack_pool::acquire(std::size_t size) {
  const unsigned which = class_of(size);
  size_class& sizes = classes_[which];
  std::byte* start = nullptr;
  if (free_stack* const top = sizes.free) {
    sizes.free = top->next;
    start = reinterpret_cast<std::byte*>(top + 1) - sizes.size;
  } else {
    if (sizes.fresh_left == 0) {
      grow(sizes);
    }
    start = sizes.fresh + page_size();
    sizes.fresh += page_size() + sizes.size;
    --sizes.fresh_left;
  }
  ++in_use_;
  return stack{{start, sizes.size}, this, which};
}

void stack_pool::release(const stack& s) noexcept {
  stack_pool& pool = *s.pool;
  auto* const end = s.memory.data() + s.memory.size();
  size_class& sizes = pool.classes_[s.size_class];
  sizes.free = new (end - sizeof(free_stack)) free_stack{sizes.free};
  if (--pool.in_use_ == 0 && pool.orphaned_) {
    delete &pool;
  }
}

unsigned stack_pool::class_of(std::size_t size) {
  for (unsigned i = 0; i < classes_.size(); ++i) {
    if (classes_[i].size == size) {
      return i;
    }
  }
  return add_class(size);
}

// Also of a size that was not in whole pages; then there may be one already.
unsigned stack_pool::add_class(std::size_t size) {
  if (size < smallest_stack_size() || size > largest_stack_size) {
    throw std::invalid_argument("annulet: a stack of " + std::to_string(size) +
                                " bytes: the size must be from " + std::to_string(smallest_stack_size()) +
                                " to " + std::to_string(largest_stack_size));
  }
  if (const std::size_t whole = whole_pages(size); whole != size) {
    return class_of(whole);
  }
  classes_.push_back({size, nullptr, nullptr, 0});
  return static_cast<unsigned>(classes_.size() - 1);
}

void stack_pool::grow(size_class& sizes) {
  const std::size_t stride = sizes.size + page_size();
  if (slabs_.size() == slabs_.capacity()) {
    slabs_.reserve(slabs_.size() * 2 + 8);
  }
  std::size_t count = std::max<std::size_t>(slab_length / stride, 1);
  std::byte* start = nullptr;
  try {
    start = map_slab(sizes.size, count);
  } catch (const std::system_error&) {
    if (count == 1) {
      throw;
    }
    // Near a limit on address space or mappings the last few stacks still come one by one.
    count = 1;
    start = map_slab(sizes.size, count);
  }
  slabs_.push_back({start, stride * count});
  sizes.fresh = start;
  sizes.fresh_left = count;
}

std::byte* stack_pool::map_slab(std::size_t size, std::size_t count) {
  const std::size_t stride = size + page_size();
  void* const memory = ::mmap(nullptr, stride * count, PROT_READ | PROT_WRITE,
                              MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_STACK, -1, 0);
  if (memory == MAP_FAILED) {
    no_stack(errno, size, "mmap refused it (see ulimit -v and vm.max_map_count)");
  }
  auto* const start = static_cast<std::byte*>(memory);
  // A huge page under a stack would cost 2 MiB for the first byte. Kernels without them say EINVAL.
  ::madvise(memory, stride * count, MADV_NOHUGEPAGE);
  try {
    for (std::size_t i = 0; i < count; ++i) {
      install_guard(start + i * stride);
    }
  } catch (...) {
    ::munmap(memory, stride * count);
    throw;
  }
  return start;
}

void stack_pool::install_guard(std::byte* page) {
  if (guard_ == stack_guard::best) {
    if (::madvise(page, page_size(), madv_guard_install) == 0) {
      return;
    }
    // EINVAL: a kernel before 6.13, or locked memory. Either way mprotect serves.
    guard_ = stack_guard::mprotect;
  }
  if (::mprotect(page, page_size(), PROT_NONE) != 0) {
    no_stack(errno, page_size(),
             "mprotect refused its guard page (each guard takes two of vm.max_map_count)");
  }
}

}  // namespace detail

}  // namespace annulet
