// Who is registered: by number, by identity, and by place. Internal. Knows neither hub nor kernel.
#pragma once

#include "file_object.hpp"
#include "registration.hpp"

#include <array>
#include <cstddef>
#include <memory>
#include <vector>

namespace annulet::detail {

class registry {
 public:
  explicit registry(selector_impl& owner) noexcept : owner_(owner) {}

  // A free place, with all memory that taking it and giving it back will need. May throw std::bad_alloc.
  [[nodiscard]] registration& claim(int fd);
  // The place claimed last is this record's from now on.
  void take(registration& place, const any_record& record) noexcept;
  void forget(registration& r) noexcept;

  // By number; an object that has none any more, by identity. Null where it is not registered.
  [[nodiscard]] registration* lookup(const file_reference& file) const noexcept;
  // Throws what selector_core::throw_not_registered says.
  [[nodiscard]] registration& require(const file_reference& file) const;

  [[nodiscard]] std::size_t size() const noexcept { return size_; }
  [[nodiscard]] std::size_t places() const noexcept { return places_.size(); }
  [[nodiscard]] registration& at(std::size_t place) const noexcept { return *places_[place]; }

 private:
  selector_impl& owner_;
  std::vector<std::unique_ptr<registration>> places_;
  std::vector<std::uint32_t> free_;
  // By number, in pages that are made when a number of theirs comes up: a selector with one high descriptor
  // stays small.
  static constexpr std::size_t page_size = 512;
  using page = std::array<registration*, page_size>;
  [[nodiscard]] registration*& entry(std::size_t number) const noexcept {
    return (*by_fd_[number / page_size])[number % page_size];
  }
  std::vector<std::unique_ptr<page>> by_fd_;
  std::size_t size_ = 0;
};

}  // namespace annulet::detail
