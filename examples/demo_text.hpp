// Numbers and tables as the demo prints them.
#pragma once

#include <array>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <initializer_list>
#include <string>

namespace demo {

inline double seconds(std::chrono::nanoseconds time) { return std::chrono::duration<double>(time).count(); }

// 1234567 as 1,234,567
inline std::string grouped(std::uint64_t number) {
  const std::string digits = std::to_string(number);
  std::string text;
  for (std::size_t i = 0; i < digits.size(); ++i) {
    if (i != 0 && (digits.size() - i) % 3 == 0) {
      text += ',';
    }
    text += digits[i];
  }
  return text;
}

inline std::string with_unit(double value, const char* unit) {
  std::array<char, 40> text;
  std::snprintf(text.data(), text.size(), "%.2f%s", value, unit);
  return text.data();
}

// One amount an event; "-" where there was none.
inline std::string per_event(double amount, std::uint64_t events, const char* unit) {
  return events == 0 ? "-" : with_unit(amount / static_cast<double>(events), unit);
}

inline void print_row(const char* what, std::initializer_list<std::string> values) {
  std::printf("%-26s", what);
  for (const std::string& value : values) {
    std::printf(" %20s", value.c_str());
  }
  std::printf("\n");
}

}  // namespace demo
