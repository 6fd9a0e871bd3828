#include "caller_memory.hpp"

#include <annulet/hub/syscalls.hpp>
#include <annulet/runtime/scheduler.hpp>

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstring>
#include <span>

#include <pthread.h>
#include <sys/uio.h>

namespace annulet::detail {

namespace {

// The end of this thread's stack, from which it grows down; 0 where that cannot be told, and where this runs
// on another: the thread of a child that a fiber has forked is on the fiber's.
std::uintptr_t thread_stack_end() noexcept {
  struct bounds {
    std::uintptr_t start, end;
  };
  static thread_local const bounds known = [] {
    pthread_attr_t about;
    void* start = nullptr;
    std::size_t size = 0;
    if (::pthread_getattr_np(::pthread_self(), &about) != 0) {
      return bounds{};
    }
    const bool told = ::pthread_attr_getstack(&about, &start, &size) == 0;
    ::pthread_attr_destroy(&about);
    const auto from = reinterpret_cast<std::uintptr_t>(start);
    return told ? bounds{from, from + size} : bounds{};
  }();
  const auto here = reinterpret_cast<std::uintptr_t>(__builtin_frame_address(0));
  return here >= known.start && here < known.end ? known.end : 0;
}

std::uintptr_t running_stack_end() noexcept {
  scheduler& here = *scheduler::current();
  if (here.on_main()) {
    return thread_stack_end();
  }
  const std::span<std::byte> all = here.running().memory.memory;
  return reinterpret_cast<std::uintptr_t>(all.data()) + all.size();
}

bool are_on_own_stack(std::span<const caller_memory> pieces) noexcept {
  const auto here = reinterpret_cast<std::uintptr_t>(__builtin_frame_address(0));
  const std::uintptr_t end = running_stack_end();
  return std::ranges::all_of(pieces, [&](const caller_memory& piece) {
    const auto from = reinterpret_cast<std::uintptr_t>(piece.theirs);
    return from >= here && from <= end && piece.size <= end - from;
  });
}

// One of process_vm_readv and process_vm_writev on this very process. Whether it did all.
bool copied(long call, std::span<const caller_memory> pieces) noexcept {
  std::array<iovec, 4> ours;
  std::array<iovec, 4> theirs;
  std::size_t all = 0;
  for (std::size_t i = 0; i < pieces.size(); ++i) {
    ours.at(i) = {pieces[i].ours, pieces[i].size};
    theirs.at(i) = {pieces[i].theirs, pieces[i].size};
    all += pieces[i].size;
  }
  const io_result moved =
      kernel(call, kernel(SYS_getpid).value(), ours.data(), pieces.size(), theirs.data(), pieces.size(), 0);
  return moved.ok() && moved.value() == all;
}

// A filter may forbid it; then there is no way but to trust the caller.
bool may_copy() noexcept {
  static const bool allowed = [] {
    char from = 1;
    char to = 0;
    const caller_memory one{&from, &to, 1};
    return copied(SYS_process_vm_readv, {&one, 1});
  }();
  return allowed;
}

bool may_be_touched(std::span<const caller_memory> pieces) noexcept {
  const auto is_somewhere = [](const caller_memory& piece) { return piece.theirs != nullptr; };
  return are_on_own_stack(pieces) || (!may_copy() && std::ranges::all_of(pieces, is_somewhere));
}

}  // namespace

bool copy_from_caller(std::span<const caller_memory> pieces) noexcept {
  if (!may_be_touched(pieces)) {
    return copied(SYS_process_vm_readv, pieces);
  }
  for (const caller_memory& piece : pieces) {
    std::memcpy(piece.ours, piece.theirs, piece.size);
  }
  return true;
}

bool copy_to_caller(std::span<const caller_memory> pieces) noexcept {
  if (!may_be_touched(pieces)) {
    return copied(SYS_process_vm_writev, pieces);
  }
  for (const caller_memory& piece : pieces) {
    std::memcpy(piece.theirs, piece.ours, piece.size);
  }
  return true;
}

}  // namespace annulet::detail
