// What a fiber does to itself. On a thread without a hub each call throws no_hub. `main` is a fiber too.
#pragma once

#include "deadline.hpp"

#include <cstddef>
#include <cstdint>
#include <string_view>

namespace annulet::this_fiber {

// Lets every fiber that is ready run once. Throws what is pending (cancellation.hpp).
[[gnu::visibility("default")]] void yield();

// Parks until the deadline: never early; zero, negative and past ones yield. What is pending is thrown.
[[gnu::visibility("default")]] void sleep_until(deadline until);

// Parks for a duration. NaN is std::invalid_argument; too long for the clock is for ever.
template <class Rep, class Period>
void sleep_for(std::chrono::duration<Rep, Period> time) {
  sleep_until(deadline(time));
}

// Numbered from 1, the main fiber, in order of spawning; unique within a hub.
[[nodiscard, gnu::visibility("default")]] std::uint64_t id();

// The first 31 bytes of what spawn was told; "main" for the main fiber.
[[nodiscard, gnu::visibility("default")]] std::string_view name();

// Bytes of the stack that it runs on that were touched, as of fiber<T>::stack_used(). 0 for the main fiber:
// it runs on its thread's stack.
[[nodiscard, gnu::visibility("default")]] std::size_t stack_used();

}  // namespace annulet::this_fiber
