// Numbers that look random and come again with the same seed. (Steele, Lea, Flood: "Fast splittable
// pseudorandom number generators", 2014.)
#pragma once

#include <cstddef>
#include <cstdint>

namespace oracle {

class dice {
 public:
  explicit dice(std::uint64_t seed) noexcept : state_(seed) {}

  std::uint64_t next() noexcept {
    std::uint64_t z = state_ += 0x9e3779b97f4a7c15U;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9U;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebU;
    return z ^ (z >> 31);
  }
  // From 0 to n - 1; n is small, so that the bias is nothing.
  std::size_t below(std::size_t n) noexcept {
    return static_cast<std::size_t>((next() >> 32) * static_cast<std::uint64_t>(n) >> 32);
  }
  bool one_in(std::size_t n) noexcept { return below(n) == 0; }
  template <class Range>
  auto& pick(Range& range) noexcept {
    return range[below(range.size())];
  }

 private:
  std::uint64_t state_;
};

}  // namespace oracle
