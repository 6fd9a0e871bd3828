// What the demo's clients send, and so what must come back.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>

namespace demo {

constexpr std::size_t longest_message = 1024;

// Messages of all lengths.
constexpr std::size_t message_size(std::size_t connection, std::uint64_t number) {
  return 1 + (connection * 131 + number * 257) % longest_message;
}

// What the bytes of a connection are. The sequence repeats after a prime number of bytes, which no buffer and
// no message is a multiple of, and each connection begins at another place of it: bytes that are lost,
// doubled, swapped or another connection's do not go unseen.
class pattern {
 public:
  pattern() {
    std::uint32_t state = 2463534242;
    for (std::size_t i = 0; i < period; ++i) {
      state ^= state << 13;
      state ^= state >> 17;
      state ^= state << 5;
      bytes_[i] = static_cast<char>(state >> 24);
    }
    std::copy_n(bytes_.begin(), longest_message, bytes_.begin() + period);
  }

  // What stands at this place, up to longest_message bytes of it.
  [[nodiscard]] const char* at(std::size_t connection, std::uint64_t offset) const {
    return bytes_.data() + (connection * 61 + offset) % period;
  }

 private:
  static constexpr std::size_t period = 65'521;
  std::array<char, period + longest_message> bytes_;
};

}  // namespace demo
