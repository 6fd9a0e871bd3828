// How a call ended that a kill may have ended.
#pragma once

#include <annulet/runtime/cancellation.hpp>

#include <utility>

namespace annulet_test {

// Calls fn, which must let the kill pass; whether it did.
template <class Fn>
bool killed_in(Fn&& fn) {
  try {
    std::forward<Fn>(fn)();
  } catch (const annulet::fiber_killed&) {
    return true;
  }
  return false;
}

}  // namespace annulet_test
