// What select and poll are given, for others to look at and to write to while they wait.
#pragma once

#include <array>
#include <cstddef>
#include <string>
#include <vector>

#include <poll.h>
#include <sys/select.h>

namespace annulet::test {

// Three sets with room for so many numbers.
class three_sets {
 public:
  explicit three_sets(int numbers) {
    for (auto& set : sets_) {
      set.resize(static_cast<std::size_t>(numbers) / 64 + 1);
    }
  }
  fd_set* get(std::size_t which) { return reinterpret_cast<fd_set*>(sets_[which].data()); }
  void add(std::size_t which, int fd) { sets_[which][static_cast<std::size_t>(fd) / 64] |= 1UL << (fd % 64); }
  // All bits of all sets, counted from a number. While another thread is in a select that will write there:
  // no race, for the kernel does not write before it is over.
  [[gnu::no_sanitize("thread")]] [[nodiscard]] std::string text_from(int number) const {
    std::string all;
    for (const auto& set : sets_) {
      for (int i = 0; i < static_cast<int>(set.size()) * 64; ++i) {
        if ((set[static_cast<std::size_t>(i) / 64] >> (i % 64) & 1) != 0) {
          all += std::to_string(i - number) + ' ';
        }
      }
      all += '|';
    }
    return all;
  }

 private:
  std::array<std::vector<unsigned long>, 3> sets_;
};

// Another's edit, of an array that a plain poll has been given: a race that the kernel takes no part in.
[[gnu::no_sanitize("thread")]] inline void put(pollfd& where, pollfd what) { where = what; }

}  // namespace annulet::test
