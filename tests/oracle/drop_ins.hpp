// The drop-ins and the plain calls, asked about the same descriptors in the same state: what they say has to
// be the same.
//
// Some files change by themselves, timers and terminals. So poll and select are asked plainly before and
// after, and where these two differ nothing is judged; epoll, whose edges are there once, is asked by two
// sets that are registered alike, of files that keep still.
#pragma once

#include "files.hpp"

#include <array>
#include <cstdint>
#include <string>

namespace oracle {

struct drop_in_tally {
  std::uint64_t operations = 0;
  std::uint64_t polls = 0;
  std::uint64_t selects = 0;
  std::uint64_t epolls = 0;
  std::uint64_t found = 0;    // something at once
  std::uint64_t parked = 0;   // and to the end of their time
  std::uint64_t woken = 0;    // by what another fiber did meanwhile
  std::uint64_t refused = 0;  // an errno
  std::uint64_t moved = 0;    // not judged
  std::array<std::uint64_t, kinds> ready{};
};

struct drop_in_verdict {
  drop_in_tally counts{};
  std::string mismatch{};  // what went wrong first, with the seed; empty where nothing did
};

// On the main thread, without a hub. Stops at the first mismatch.
[[nodiscard]] drop_in_verdict run_drop_ins(std::uint64_t seed, std::uint64_t operations);
[[nodiscard]] std::string figures(const drop_in_tally& counts);

}  // namespace oracle
