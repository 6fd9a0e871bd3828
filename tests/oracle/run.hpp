// The oracle whole: so many random operations, in lives of a hub and a machine each, every one from a seed of
// its own.
#pragma once

#include "machine.hpp"

#include <cstdint>
#include <string>

namespace oracle {

inline constexpr std::uint64_t operations_in_a_life = 20'000;

struct verdict {
  tally counts{};
  std::string mismatch{};  // what went wrong first, with the seed and the last steps; empty where nothing did
};

// Stops at the first mismatch. The first life is that of the seed itself, so what a mismatch prints as its
// seed is replayed from the start. On the main thread, without a hub.
[[nodiscard]] verdict run(std::uint64_t seed, std::uint64_t operations,
                          kernel_mood mood = kernel_mood::willing);

// The figures, as lines that begin with `note: `.
[[nodiscard]] std::string figures(const tally& counts);

// A number from the environment, or the other one. Throws std::invalid_argument where it is none.
[[nodiscard]] std::uint64_t from_environment(const char* name, std::uint64_t otherwise);
[[nodiscard]] std::uint64_t fresh_seed();

}  // namespace oracle
