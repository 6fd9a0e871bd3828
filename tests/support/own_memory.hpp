// What the kernel says of this process's memory, for tests of what stacks cost.
#pragma once

#include <cstddef>
#include <cstdio>
#include <fstream>
#include <optional>
#include <string>

#include <unistd.h>

namespace annulet_test {

inline const auto page = static_cast<std::size_t>(::sysconf(_SC_PAGESIZE));

inline std::size_t mappings() {
  std::ifstream maps("/proc/self/maps");
  std::size_t lines = 0;
  for (std::string line; std::getline(maps, line);) {
    ++lines;
  }
  return lines;
}

inline std::size_t resident_bytes() {
  std::ifstream statm("/proc/self/statm");
  std::size_t all = 0, resident = 0;
  statm >> all >> resident;
  return resident * page;
}

// How many mappings a process may have; none where that is more than a test can make, which it says.
inline std::optional<std::size_t> reachable_mapping_limit() {
  constexpr std::size_t most = 300'000;
  std::size_t limit = 0;
  std::ifstream("/proc/sys/vm/max_map_count") >> limit;
  if (limit > most) {
    std::printf("note: skipped: vm.max_map_count is %zu, too many for a test\n", limit);
    return std::nullopt;
  }
  return limit;
}

}  // namespace annulet_test
