// A locale whose numbers have a decimal comma, on a machine where none is installed.
#pragma once

#include "folder.hpp"

#include <array>
#include <clocale>
#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>
#include <string_view>

namespace annulet_test {

// From now on, for printf and its kin, until setlocale(LC_NUMERIC, "C"). False where the C library does not
// take it. The file is what glibc's localedef would make: a number that tells the category, how many fields,
// where each begins, and the fields, each from a word on.
inline bool use_decimal_comma() {
  using namespace std::string_view_literals;
  constexpr std::uint32_t magic = 0x20031115 ^ LC_NUMERIC;
  constexpr std::array fields{",\0\0\0"sv, "\0\0\0\0"sv, "\177\0\0\0"sv,
                              ",\0\0\0"sv, "\0\0\0\0"sv, "UTF-8\0\0\0"sv};
  std::array<std::uint32_t, fields.size() + 2> head{magic, fields.size()};
  std::string text;
  for (std::size_t i = 0; i < fields.size(); ++i) {
    head[i + 2] = static_cast<std::uint32_t>(sizeof head + text.size());
    text.append(fields[i]);
  }
  const annulet::test::folder place;
  const std::filesystem::path locale = place / "comma";
  std::filesystem::create_directory(locale);
  std::ofstream(locale / "LC_NUMERIC", std::ios::binary)
      .write(reinterpret_cast<const char*>(head.data()), sizeof head)
      .write(text.data(), static_cast<std::streamsize>(text.size()));
  ::setenv("LOCPATH", place.path().c_str(), 1);
  return std::setlocale(LC_NUMERIC, "comma") != nullptr && *std::localeconv()->decimal_point == ',';
}

}  // namespace annulet_test
