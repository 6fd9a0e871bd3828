// What is left to transfer of a caller's buffers, after the kernel has moved a part. Internal.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <limits>
#include <memory>

#include <sys/uio.h>
#include <unistd.h>

namespace annulet::detail {

// What one call moves at most, whatever it is given: INT_MAX, by whole pages.
[[nodiscard]] inline std::size_t most_at_once() noexcept {
  static const auto most = static_cast<std::size_t>(std::numeric_limits<int>::max() & -::getpagesize());
  return most;
}

// As far as one call moves them.
[[nodiscard]] inline std::size_t total_of(const iovec* vectors, std::size_t count) noexcept {
  std::size_t left = most_at_once();
  for (std::size_t i = 0; i < count; ++i) {
    left -= std::min(vectors[i].iov_len, left);
  }
  return most_at_once() - left;
}

class remaining {
 public:
  // As far as one call moves them. Throws std::bad_alloc.
  remaining(const iovec* vectors, std::size_t count) : count_(count) {
    if (count > few_.size()) {
      many_ = std::make_unique<iovec[]>(count);
      first_ = many_.get();
    }
    std::size_t room = most_at_once();
    std::transform(vectors, vectors + count, first_, [&room](iovec one) {
      one.iov_len = std::min(one.iov_len, room);
      room -= one.iov_len;
      return one;
    });
    advance(0);
  }
  remaining(const remaining&) = delete;
  remaining& operator=(const remaining&) = delete;

  [[nodiscard]] bool none() const noexcept { return count_ == 0; }
  [[nodiscard]] iovec* data() const noexcept { return first_; }
  [[nodiscard]] std::size_t size() const noexcept { return count_; }

  void advance(std::size_t moved) noexcept {
    while (count_ != 0 && moved >= first_->iov_len) {
      moved -= first_->iov_len;
      ++first_;
      --count_;
    }
    if (moved != 0) {
      *first_ = {static_cast<std::byte*>(first_->iov_base) + moved, first_->iov_len - moved};
    }
  }

 private:
  std::array<iovec, 8> few_;
  std::unique_ptr<iovec[]> many_;
  iovec* first_ = few_.data();
  std::size_t count_;
};

}  // namespace annulet::detail
