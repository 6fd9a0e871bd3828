// The slots that an engine gives its watches: small numbers, each used again when it is free. Internal.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace annulet::detail {

template <class Slot>
class slot_table {
 public:
  // A free one, as the last user left it. Throws std::bad_alloc, and has then changed nothing.
  [[nodiscard]] std::uint32_t claim() {
    if (free_.empty()) {
      // The vector of free ones can hold them all, so that giving back never allocates.
      if (slots_.size() == slots_.capacity()) {
        const std::size_t room = slots_.size() * 2 + 64;
        free_.reserve(room);
        slots_.reserve(room);
      }
      slots_.emplace_back();
      free_.push_back(static_cast<std::uint32_t>(slots_.size() - 1));
    }
    const std::uint32_t slot = free_.back();
    free_.pop_back();
    return slot;
  }
  void give_back(std::uint32_t slot) noexcept { free_.push_back(slot); }

  [[nodiscard]] Slot& operator[](std::uint32_t slot) noexcept { return slots_[slot]; }
  [[nodiscard]] std::size_t size() const noexcept { return slots_.size(); }

 private:
  std::vector<Slot> slots_;
  std::vector<std::uint32_t> free_;
};

}  // namespace annulet::detail
