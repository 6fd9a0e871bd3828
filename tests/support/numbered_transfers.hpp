// Numbered bytes (numbered_stream.hpp) from one fiber to another, by the calls of annulet or by the drop-ins,
// over blocking descriptors.
#pragma once

#include "files.hpp"
#include "numbered_stream.hpp"

#include <annulet/selector/posix.h>
#include <annulet/hub/io.hpp>

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <span>

namespace annulet::test {

// These throw what goes wrong.
struct by_annulet {
  static std::size_t read(int fd, std::span<char> into) {
    return annulet::read(fd, annulet::mutable_buffer(into.data(), into.size()));
  }
  static std::size_t write(int fd, std::span<const char> from) {
    return annulet::write(fd, annulet::const_buffer(from.data(), from.size()));
  }
};

// And these are to be begun anew after a handler with SA_RESTART.
struct by_drop_ins {
  static std::size_t read(int fd, std::span<char> into) {
    return static_cast<std::size_t>(
        require_ok(static_cast<int>(annulet_read(fd, into.data(), into.size())), "annulet_read"));
  }
  static std::size_t write(int fd, std::span<const char> from) {
    return static_cast<std::size_t>(
        require_ok(static_cast<int>(annulet_write(fd, from.data(), from.size())), "annulet_write"));
  }
};

// As long as goes_on(), which is asked before each call. Returns how many bytes that were.
template <class By, class GoesOn>
std::uint64_t send_numbered(int to, GoesOn goes_on) {
  std::array<char, 3000> bytes{};
  std::uint64_t place = 0;
  while (goes_on()) {
    number_bytes(bytes, place);
    place += By::write(to, bytes);
  }
  return place;
}

struct taken_bytes {
  std::uint64_t count = 0;
  std::uint64_t wrong_calls = 0;
};

// Up to the end of the file; each() is called after each call.
template <class By, class Each>
taken_bytes take_numbered(int from, Each each) {
  std::array<char, 2000> bytes{};
  std::array<char, 2000> expected{};
  taken_bytes taken;
  while (const std::size_t got = By::read(from, bytes)) {
    number_bytes(expected, taken.count);
    taken.count += got;
    taken.wrong_calls +=
        std::ranges::equal(std::span(bytes).first(got), std::span(expected).first(got)) ? 0 : 1;
    each();
  }
  return taken;
}

}  // namespace annulet::test
