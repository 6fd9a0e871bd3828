// What the machine did last, to be printed where select and poll(2) differ.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <string>
#include <vector>

namespace oracle {

class history {
 public:
  void note(const char* what, int fd, int side = -1, long detail = 0) noexcept {
    entries_[next_++ % entries_.size()] = {what, fd, side, detail};
  }

  // The last steps on this descriptor, and the very last on any.
  [[nodiscard]] std::string about(int fd) const {
    constexpr std::size_t most_of_it = 30;
    constexpr std::uint64_t most_of_all = 12;
    std::vector<std::string> lines;
    std::size_t of_it = 0;
    for (std::uint64_t i = next_; i > 0 && next_ - i < entries_.size() && of_it < most_of_it; --i) {
      const entry& e = entries_[(i - 1) % entries_.size()];
      if ((e.fd != fd || fd < 0) && next_ - i >= most_of_all) {
        continue;
      }
      of_it += e.fd == fd ? 1 : 0;
      lines.push_back("  step " + std::to_string(i) + ": " + e.what + ", descriptor " + std::to_string(e.fd) +
                      (e.side < 0 ? "" : ", selector " + std::to_string(e.side)) + ", " +
                      std::to_string(e.detail) + "\n");
    }
    std::string text;
    std::for_each(lines.rbegin(), lines.rend(), [&](const std::string& line) { text += line; });
    return text;
  }

 private:
  struct entry {
    const char* what;
    int fd;
    int side;
    long detail;
  };
  std::array<entry, 8192> entries_{};
  std::uint64_t next_ = 0;
};

}  // namespace oracle
