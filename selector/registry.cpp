#include "registry.hpp"

#include "selector_core.hpp"

#include <algorithm>

namespace annulet::detail {

registration& registry::claim(int fd) {
  const auto number = static_cast<std::size_t>(fd);
  if (number / page_size >= by_fd_.size()) {
    by_fd_.resize(number / page_size + 1);
  }
  if (auto& its_page = by_fd_[number / page_size]; its_page == nullptr) {
    its_page = std::make_unique<page>();
  }
  if (free_.empty()) {
    if (places_.size() == places_.capacity()) {
      places_.reserve(places_.size() * 2 + 16);
    }
    free_.reserve(places_.capacity());
    const auto place = static_cast<std::uint32_t>(places_.size());
    places_.push_back(std::make_unique<registration>(owner_, place));
    free_.push_back(place);
  }
  return *places_[free_.back()];
}

void registry::take(registration& place, const any_record& record) noexcept {
  free_.pop_back();
  place.begin(record);
  entry(static_cast<std::size_t>(place.number())) = &place;
  ++size_;
}

void registry::forget(registration& r) noexcept {
  entry(static_cast<std::size_t>(r.number())) = nullptr;
  r.end();
  free_.push_back(r.place);
  --size_;
}

registration* registry::lookup(const file_reference& file) const noexcept {
  if (file.fd >= 0) {
    const auto number = static_cast<std::size_t>(file.fd);
    const bool known = number / page_size < by_fd_.size() && by_fd_[number / page_size] != nullptr;
    return known ? entry(number) : nullptr;
  }
  const auto found = std::ranges::find_if(places_, [&](const auto& r) {
    return r->taken() && file.object.same_as(r->record().address()->object);
  });
  return found == places_.end() ? nullptr : found->get();
}

registration& registry::require(const file_reference& file) const {
  registration* const r = lookup(file);
  if (r == nullptr) {
    selector_core::throw_not_registered(file);
  }
  return *r;
}

}  // namespace annulet::detail
