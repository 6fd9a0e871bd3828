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
  lost_hand_over,
  wake_out_of_order,
  swallowed_signal,
  unasked_hang_up,
  missing_invalid,
  rounded_time,
  ignored_refusal,
  lost_end,
  lost_wake_poll,
  ignored_overflow,
  left_early,
  unsaid_sleep,
  forgotten_candidate,
  narrow_events,
};
inline constexpr std::size_t plants = 19;

// How often a switched-on plant strikes: every n-th time; 0 is off. One thread.
inline std::array<unsigned, plants> plant_every{};
inline std::array<unsigned, plants> plant_asked{};

inline bool planted(plant which) noexcept {
  const auto i = static_cast<std::size_t>(which);
  return plant_every[i] != 0 && ++plant_asked[i] % plant_every[i] == 0;
}

class control_block;

// A fiber that is killed at one of its parks, counted from 1. One thread.
inline const control_block* killed_fiber = nullptr;
inline unsigned killed_at_park = 0;
inline unsigned parks_seen = 0;

inline bool killed_at_this_park(const control_block& fiber) noexcept {
  return &fiber == killed_fiber && ++parks_seen == killed_at_park;
}

// Takes the number of a system call and six arguments, and gives what Linux would.
inline long (*stand_in)(long number, const long* arguments) noexcept = nullptr;

}  // namespace annulet::detail
