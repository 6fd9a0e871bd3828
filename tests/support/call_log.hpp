// The last calls that fibers made, to be printed where one did not go as it should.
#pragma once

#include "call_model.hpp"

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>

namespace annulet_test {

class call_log {
 public:
  struct entry {
    const char* what = "";
    scheduler_model::task_id who = 0;
    std::optional<answer> end{};  // none where it begins
  };

  void note(const entry& e) noexcept { entries_[next_++ % entries_.size()] = e; }

  // One line each, the first first.
  [[nodiscard]] std::string text() const {
    constexpr std::array<const char*, outcomes> names = {"yes",     "no",     "deadline_passed", "killed",
                                                         "expired", "misuse", "thrown"};
    std::string lines;
    for (auto i = next_ - std::min<std::uint64_t>(next_, entries_.size()); i < next_; ++i) {
      const entry& e = entries_[i % entries_.size()];
      lines += "  task " + std::to_string(e.who) + ": " + e.what;
      lines += e.end ? std::string(" ends: ") + names[static_cast<std::size_t>(e.end->how)] + ", item " +
                           std::to_string(e.end->item)
                     : " begins";
      lines += "\n";
    }
    return lines;
  }

 private:
  std::array<entry, 64> entries_{};
  std::uint64_t next_ = 0;
};

}  // namespace annulet_test
