#include "stack.hpp"

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdint>
#include <new>
#include <stdexcept>
#include <string>
#include <system_error>
#include <utility>

#include <sys/auxv.h>
#include <sys/mman.h>
#include <unistd.h>

namespace annulet {

namespace {

// linux/mman.h of Debian 12 does not name it yet.
constexpr int madv_guard_install = 102;

constexpr std::size_t slab_length = std::size_t{16} << 20;

// For who asks often. By no guard of a static, which a thread that is not in a forked child might hold there.
template <class Find>
std::size_t found_once(std::atomic<std::size_t>& known, Find&& find) noexcept {
  std::size_t size = known.load(std::memory_order_relaxed);
  if (size == 0) {
    size = find();
    known.store(size, std::memory_order_relaxed);
  }
  return size;
}

std::size_t page_size() noexcept {
  static constinit std::atomic<std::size_t> known{0};
  return found_once(known, [] { return static_cast<std::size_t>(::sysconf(_SC_PAGESIZE)); });
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
  static constinit std::atomic<std::size_t> known{0};
  return found_once(known, [] {
    const std::size_t signal_frame = std::max<std::size_t>(::getauxval(AT_MINSIGSTKSZ), 2048);
    return whole_pages(signal_frame + (std::size_t{12} << 10));
  });
}

namespace detail {

stack_pool::~stack_pool() {
  for (slab* at = slabs_.load(std::memory_order_relaxed); at != nullptr;) {
    const std::unique_ptr<slab> now(std::exchange(at, at->next));
    ::munmap(now->start, now->length);
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
  if (sizes.waits != 0) {
    start = sizes.waiting[--sizes.waits];
    if (sizes.waits < sizes.least) {
      sizes.least = sizes.waits;
      sizes.cold = std::min(sizes.cold, sizes.waits);
    }
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
  size_class& sizes = pool.classes_[s.size_class];
  sizes.waiting[sizes.waits++] = s.memory.data();
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
  classes_.push_back({.size = size, .waiting = nullptr});
  return static_cast<unsigned>(classes_.size() - 1);
}

void stack_pool::grow(size_class& sizes) {
  const std::size_t stride = sizes.size + page_size();
  std::size_t count = std::max<std::size_t>(slab_length / stride, 1);
  auto added = std::make_unique<slab>();
  make_room(sizes, sizes.stacks + count);
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
  *added = {slabs_.load(std::memory_order_relaxed), start, stride * count, stride};
  slabs_.store(added.release(), std::memory_order_release);  // complete, should a handler look
  sizes.stacks += count;
  sizes.fresh = start;
  sizes.fresh_left = count;
}

// Only called where none waits, so nothing is copied.
void stack_pool::make_room(size_class& sizes, std::size_t stacks) {
  if (stacks > sizes.room) {
    const std::size_t room = std::max(stacks, sizes.room * 2);
    sizes.waiting = std::make_unique_for_overwrite<std::byte*[]>(room);
    sizes.room = room;
  }
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

// --- what waits, and keeps memory

bool stack_pool::has_surplus() const noexcept {
  std::size_t warm = 0;
  for (const size_class& sizes : classes_) {
    warm += (sizes.waits - sizes.cold) * sizes.size;
  }
  return warm > kept_warm;
}

// The one that has waited longest and has memory.
void stack_pool::cool(size_class& sizes) noexcept {
  // Locked memory cannot be given back; it is not tried again.
  ::madvise(sizes.waiting[sizes.cold], sizes.size, MADV_DONTNEED);
  ++sizes.cold;
}

// Those that nobody had at any time since the last look, for there were as many others.
void stack_pool::look_for_idle(std::int64_t now) noexcept {
  for (size_class& sizes : classes_) {
    sizes.idle = sizes.least;
    sizes.least = sizes.waits;
  }
  next_look_ = now + idle_time;
}

bool stack_pool::trim_some(std::int64_t now) noexcept {
  if (now >= next_look_) {
    look_for_idle(now);
  }
  unsigned left = 16;
  for (size_class& sizes : classes_) {
    while (sizes.cold < std::min(sizes.idle, sizes.least)) {
      if (!has_surplus()) {
        return false;
      }
      if (left-- == 0) {
        return true;
      }
      cool(sizes);
    }
  }
  return false;
}

void stack_pool::trim_all() noexcept {
  for (size_class& sizes : classes_) {
    while (sizes.cold < sizes.waits) {
      cool(sizes);
    }
    sizes.least = sizes.waits;  // never less than are cold
  }
}

// --- what can be seen

std::span<std::byte> stack_pool::guarded_at(const void* address) const noexcept {
  const auto at = reinterpret_cast<std::uintptr_t>(address);
  for (const slab* s = slabs_.load(std::memory_order_acquire); s != nullptr; s = s->next) {
    const auto start = reinterpret_cast<std::uintptr_t>(s->start);
    if (at < start || at - start >= s->length) {
      continue;
    }
    const std::size_t offset = at - start;
    if (offset % s->stride >= page_size()) {
      return {};
    }
    return {s->start + offset / s->stride * s->stride + page_size(), s->stride - page_size()};
  }
  return {};
}

std::size_t stack_used(const stack& s) noexcept {
  std::array<unsigned char, 512> in_memory;  // of each page
  const std::size_t step = in_memory.size() * page_size();
  for (std::size_t at = 0; at < s.memory.size(); at += step) {
    const std::size_t length = std::min(step, s.memory.size() - at);
    if (::mincore(s.memory.data() + at, length, in_memory.data()) != 0) {
      return 0;
    }
    for (std::size_t page = 0; page < length / page_size(); ++page) {
      if ((in_memory[page] & 1U) != 0) {
        return s.memory.size() - at - page * page_size();
      }
    }
  }
  return 0;
}

}  // namespace detail

}  // namespace annulet
