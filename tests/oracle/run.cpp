#include "run.hpp"

#include <algorithm>
#include <charconv>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <iterator>
#include <random>
#include <stdexcept>
#include <system_error>

namespace oracle {

namespace {

// Now and then a hub that is short of everything, or that has an older kernel's ring.
annulet::hub_options some_options(dice& d) {
  annulet::hub_options options;
  if (d.one_in(3)) {
    constexpr std::array modes = {annulet::ring_mode::coop_taskrun, annulet::ring_mode::submit_all,
                                  annulet::ring_mode::plain};
    options.mode = d.pick(modes);
  }
  if (d.one_in(3)) {
    options.sq_entries = d.one_in(2) ? 2 : 16;
    options.cq_entries = options.sq_entries * 2;
  }
  if (d.one_in(3)) {
    options.look_every = d.one_in(2) ? 1 : 7;
  }
  return options;
}

std::ptrdiff_t open_descriptors() {
  return std::distance(std::filesystem::directory_iterator("/proc/self/fd"), {});
}

void live(std::uint64_t seed, std::uint64_t operations, kernel_mood mood, tally& counts) {
  dice d(seed);
  const std::ptrdiff_t before = open_descriptors();
  {
    annulet::hub hub(some_options(d));
    machine lives(d.next(), hub, mood, counts);
    lives.run(operations);
  }
  if (const std::ptrdiff_t after = open_descriptors(); after != before) {
    throw mismatch("of " + std::to_string(before) + " descriptors there are " + std::to_string(after));
  }
}

}  // namespace

verdict run(std::uint64_t seed, std::uint64_t operations, kernel_mood mood) {
  verdict result;
  for (; result.counts.operations < operations; ++seed) {
    const std::uint64_t left = operations - result.counts.operations;
    try {
      live(seed, std::min(left, operations_in_a_life), mood, result.counts);
    } catch (const std::exception& e) {
      result.mismatch = "ANNULET_ORACLE_SEED=" + std::to_string(seed) +
                        " ANNULET_ORACLE_OPERATIONS=" + std::to_string(operations_in_a_life) +
                        " shows: " + e.what();
      return result;
    }
  }
  return result;
}

std::string figures(const tally& counts) {
  std::string text;
  const auto line = [&](const char* what, std::uint64_t count) {
    text.append("note: ").append(what).append(" ").append(std::to_string(count)).append("\n");
  };
  line("operations", counts.operations);
  line("selects", counts.selects);
  line("judged", counts.judged);
  line("parked", counts.parked);
  line("woken by a fiber", counts.woken_by_fiber);
  line("woken by a thread", counts.woken_by_thread);
  line("woken by a posted function", counts.woken_by_post);
  line("left to time out", counts.timed_out);
  line("refused, and asked again", counts.refused);
  line("terminals that came late", counts.late);
  line("closed under a parked select", counts.closed_under);
  line("keys closed through the hub", counts.closed_keys);
  line("keys closed behind its back", counts.behind_keys);
  line("ends that a peer saw at once", counts.ends_seen);
  for (std::size_t i = 0; i < kinds; ++i) {
    line((std::string("ready: ") + name_of(static_cast<kind>(i))).c_str(), counts.ready[i]);
  }
  return text;
}

std::uint64_t from_environment(const char* name, std::uint64_t otherwise) {
  const char* const value = std::getenv(name);
  if (value == nullptr) {
    return otherwise;
  }
  std::uint64_t number = 0;
  const char* const end = value + std::strlen(value);
  if (const auto read = std::from_chars(value, end, number);
      read.ec != std::errc() || read.ptr != end || number == 0) {
    throw std::invalid_argument(std::string(name) + " is no number above 0: '" + value + "'");
  }
  return number;
}

std::uint64_t fresh_seed() {
  std::random_device device;
  return std::uint64_t{device()} << 20 | (device() & 0xfffffU);
}

}  // namespace oracle
