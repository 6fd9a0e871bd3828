#include "candidates.hpp"

#include <annulet/hub/syscalls.hpp>

#include <algorithm>
#include <span>
#include <system_error>

namespace annulet::detail {

void candidates::make_room(std::size_t count) {
  // Each by its own measure: an earlier call may have got memory for the first and none for the second.
  if (keys_.capacity() < count) {
    keys_.reserve(count * 2 + 16);
  }
  asked_.reserve(keys_.capacity());
}

void candidates::put(registration& r) noexcept {
  // Of a closed one poll(2) is not asked: its number may be another's.
  const pollfd question{r.closed ? -1 : r.number(), poll_mask(r.events()), 0};
  if (r.candidate == registration::none) {
    r.candidate = static_cast<std::uint32_t>(keys_.size());
    keys_.push_back(&r);
    asked_.push_back(question);
  } else {
    asked_[r.candidate] = question;
  }
}

void candidates::remove(registration& r) noexcept {
  if (r.candidate == registration::none) {
    return;
  }
  keys_.back()->candidate = r.candidate;
  keys_[r.candidate] = keys_.back();
  asked_[r.candidate] = asked_.back();
  keys_.pop_back();
  asked_.pop_back();
  r.candidate = registration::none;
}

// poll(2) refuses more entries than RLIMIT_NOFILE, which may have been lowered since they were registered:
// then in parts.
void candidates::ask() {
  const std::span<pollfd> all(asked_);
  std::size_t part = all.size();
  for (std::size_t from = 0; from < all.size();) {
    const auto now = all.subspan(from, std::min(part, all.size() - from));
    const auto result = poll_now(now);
    if (result.ok()) {
      from += now.size();
    } else if (result.error() == EINVAL && part > 1) {
      part = (part + 1) / 2;
    } else {
      throw std::system_error(result.error(), std::generic_category(), "annulet: selector::select: poll");
    }
  }
}

}  // namespace annulet::detail
