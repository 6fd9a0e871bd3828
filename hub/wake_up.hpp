// The write by which a thread that sleeps in its hub is woken. Internal.
#pragma once

#include "syscalls.hpp"

#include <annulet/runtime/check.hpp>

#include <cerrno>
#include <cstdint>

namespace annulet::detail {

// Any thread. It also fails where the count is full: then the hub is woken anyway. Without its descriptor the
// hub would sleep for ever, so that ends the process.
inline void wake_up(int eventfd) noexcept {
  const std::uint64_t one = 1;
  check(kernel(SYS_write, eventfd, &one, sizeof(one)).error() != EBADF,
        "the hub's eventfd was closed, and not by the hub, so that nobody can wake it");
}

}  // namespace annulet::detail
