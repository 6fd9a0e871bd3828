// Ways to run over a stack.
#pragma once

#include <annulet/runtime/fiber.hpp>
#include <annulet/runtime/scheduler.hpp>

#include <alloca.h>

#include <cstddef>
#include <cstring>
#include <string>
#include <vector>

namespace annulet_test {

constexpr unsigned for_ever = 100'000'000;

enum class way_down : unsigned {
  recursion,     // with frames of less than a page
  large_frames,  // of more than one
  one_alloca,    // from below a page to past several stacks
  with_a_yield,  // in each frame: the switch may be where it ends
};
constexpr unsigned ways_down = 4;

// The frames are as large as the seed has it. Never returns.
[[gnu::noinline]] inline unsigned descend(way_down how, std::size_t size, unsigned depth) {
  auto* const frame = static_cast<volatile char*>(alloca(size));
  for (std::size_t at = 0; at < size; at += 64) {
    frame[at] = 'x';
  }
  if (how == way_down::with_a_yield) {
    annulet::this_fiber::yield();
  }
  const unsigned deeper = depth == 0 ? 0 : descend(how, size, depth - 1);
  return deeper + static_cast<unsigned>(frame[size / 2]);
}

inline void run_over(way_down how, std::size_t seed) {
  switch (how) {
    case way_down::recursion:
    case way_down::with_a_yield:
      (void)descend(how, 16 + seed % 2000, for_ever);
      break;
    case way_down::large_frames:
      (void)descend(how, 5000 + seed % 20'000, for_ever);
      break;
    case way_down::one_alloca: {
      // It writes where such a frame ends first, as a buffer that is filled from its beginning.
      const std::size_t size = 70'000 + seed % 1'000'000;
      auto* const buffer = static_cast<volatile char*>(alloca(size));
      for (std::size_t at = 0; at < 4096; ++at) {
        buffer[at] = 'x';
      }
      break;
    }
  }
}

// Calls fn() with no more than so many bytes of the running fiber's stack left.
template <class Fn>
[[gnu::noinline]] void use_all_but(std::size_t left, Fn&& fn) {
  const std::byte* const end = annulet::detail::scheduler::current()->running().memory.memory.data();
  const auto* const here = static_cast<const std::byte*>(__builtin_frame_address(0));
  auto* const rest = static_cast<volatile char*>(alloca(static_cast<std::size_t>(here - end) - left));
  rest[0] = 'x';
  fn();
  rest[0] = 'y';  // it is there meanwhile
}

// Each level has a stack of a size of its own mapped, so that most of the time goes there.
[[gnu::noinline]] inline unsigned spawn_deeper(std::size_t size, std::size_t frame, unsigned depth) {
  auto* const here = static_cast<volatile char*>(alloca(frame + 16));
  here[0] = 'x';
  annulet::spawn({.stack_size = size}, [] {}).detach();
  const unsigned deeper = depth == 0 ? 0 : spawn_deeper(size + 4096, frame, depth - 1);
  return deeper + static_cast<unsigned>(here[0]);
}

inline unsigned count_of(const std::string& text, const std::string& words) {
  unsigned count = 0;
  for (std::size_t at = 0; (at = text.find(words, at)) != std::string::npos; at += words.size()) {
    ++count;
  }
  return count;
}

}  // namespace annulet_test
