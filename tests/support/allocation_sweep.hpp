// Memory that runs out in the middle of a call: at its first allocation, its second, and so on until it meets
// none that fails. Each time it succeeds, or says so and has left nothing behind, and the same call made
// again succeeds on the same hub.
#pragma once

#include "failing_memory.hpp"
#include "files.hpp"
#include "program.hpp"

#include <annulet/hub/hub.hpp>
#include <annulet/runtime/sanitizer.hpp>

#include <doctest/doctest.h>

#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <exception>
#include <new>
#include <stdexcept>
#include <string>
#include <system_error>

namespace annulet::test {

// For scenes, which must not ask for memory themselves to say what is wrong.
inline void require(bool holds, const char* what) {
  if (!holds) {
    throw std::logic_error(what);
  }
}

inline hub* hub_of_scene = nullptr;  // on which it plays

struct scene {
  const char* call;
  void (*play)();
  bool starts_threads = false;
};

// Whether it succeeded. Throws where it said anything but that memory is short, or that no thread is to be
// had.
inline bool succeeds(const scene& one) {
  try {
    one.play();
    return true;
  } catch (const std::bad_alloc&) {
    return false;
  } catch (const std::system_error& e) {
    if (e.code().value() != ENOMEM && !(one.starts_threads && e.code().value() == EAGAIN)) {
      throw;
    }
    return false;
  }
}

struct sweep {
  std::size_t refused = 0;
  std::size_t done_without = 0;
  std::string wrong;

  [[nodiscard]] std::size_t failed() const noexcept { return refused + done_without; }
};

struct in_use {
  std::ptrdiff_t pieces;  // of memory
  std::ptrdiff_t mapped;  // in bytes
  std::size_t descriptors;
};

// When the threads that resolve names, which go on without their hub, have ended. (The thread sanitizer keeps
// one of its own.)
inline in_use now_in_use() {
  constexpr std::uint64_t most = detail::built_in == detail::sanitizer::thread ? 2 : 1;
  require(becomes_true([] { return proc_value("/proc/self/status", "Threads") <= most; }),
          "a thread goes on");
  return {pieces_in_use.load(), bytes_mapped.load(), open_descriptors()};
}

inline std::string left_since(const in_use& before) {
  const in_use now = now_in_use();
  const std::ptrdiff_t pieces = now.pieces - before.pieces;
  const std::ptrdiff_t mapped = now.mapped - before.mapped;
  const auto descriptors = static_cast<std::ptrdiff_t>(now.descriptors - before.descriptors);
  return pieces == 0 && mapped == 0 && descriptors == 0
             ? ""
             : std::to_string(pieces) + " pieces of memory, " + std::to_string(mapped) +
                   " bytes of mappings and " + std::to_string(descriptors) + " descriptors are left";
}

// One hub's life, in which the n-th piece of memory that the scene asks for is refused. Whether any was.
inline bool live(const scene& one, std::size_t at, sweep& found) {
  hub home;
  hub_of_scene = &home;
  bool failed = false;
  {
    const failing_memory short_of(at);
    const bool done = succeeds(one);
    failed = failing_memory::has_failed();
    if (failed) {
      ++(done ? found.done_without : found.refused);
    } else {
      require(done, "it says that memory is short where it is not");
    }
  }
  require(succeeds(one), "the same call does not succeed afterwards");
  return failed;
}

inline sweep sweep_through(const scene& one) {
  sweep found;
  for (int i = 0; i < 2; ++i) {
    (void)live(one, 0, found);  // what is made once and kept
  }
  const in_use before = now_in_use();
  try {
    while (found.wrong.empty() && live(one, found.failed() + 1, found)) {
      found.wrong = left_since(before);
    }
  } catch (const std::exception& e) {
    found.wrong = e.what();
  }
  return found;
}

template <class Scenes>
void sweep_through_all(const Scenes& scenes) {
  for (const scene& one : scenes) {
    const sweep found = sweep_through(one);
    std::printf("note: %s: refused %zu times, done without the memory %zu times\n", one.call, found.refused,
                found.done_without);
    std::fflush(stdout);
    CAPTURE(std::string(one.call));
    CAPTURE(found.failed());
    CHECK(found.wrong == "");
  }
}

}  // namespace annulet::test
