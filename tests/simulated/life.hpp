// A hub and some fibers on a simulated kernel, from the first step to the last, all by one seed.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

namespace simulated {

// What a life is made of. A failing one is shortened by leaving out parts.
struct script {
  std::uint64_t seed = 0;
  std::uint64_t steps = 10'000;
  unsigned without = 0;  // operations that are left out, a bit each

  // As the environment takes it: "17 10000 0".
  [[nodiscard]] std::string text() const;
};

struct outcome {
  std::string broken;  // what was wrong, or nothing
  std::uint64_t steps = 0;
  std::uint64_t trace = 0;
  std::array<std::uint64_t, 16> operations{};
};

// How a process ends in which a life can neither go on nor end.
inline constexpr int given_up = 3;
// Lives it.
[[nodiscard]] outcome live(const script& s);
// Of the scripts that break like this one, a short one.
[[nodiscard]] script shortened(const script& s, const std::function<bool(const script&)>& breaks);
// The operations by name, in the order of the bits of `without`.
[[nodiscard]] std::vector<const char*> operation_names();

}  // namespace simulated
