// Planted bugs that a test switches on by name. Stands in for runtime/plants_off/annulet_plants.hpp.
#pragma once

#include <array>
#include <cstddef>

namespace annulet::detail {

enum class plant {
  lost_event,
  stale_candidate,
  queued_cancel,
  refused_poll,
  failed_poll,
};

// How often a switched-on plant strikes: every n-th time; 0 is off. One thread.
inline std::array<unsigned, 5> plant_every{};
inline std::array<unsigned, 5> plant_asked{};

inline bool planted(plant which) noexcept {
  const auto i = static_cast<std::size_t>(which);
  return plant_every[i] != 0 && ++plant_asked[i] % plant_every[i] == 0;
}

}  // namespace annulet::detail
