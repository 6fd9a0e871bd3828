// What is left to transfer of a caller's buffers, after the kernel has moved a part. Internal.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <memory>

#include <sys/uio.h>

namespace annulet::detail {

[[nodiscard]] inline std::size_t total_of(const iovec* vectors, std::size_t count) noexcept {
  std::size_t total = 0;
  for (std::size_t i = 0; i < count; ++i) {
    total += vectors[i].iov_len;
  }
  return total;
}

class remaining {
 public:
  // Throws std::bad_alloc.
  remaining(const iovec* vectors, std::size_t count) : count_(count) {
    if (count > few_.size()) {
      many_ = std::make_unique<iovec[]>(count);
      first_ = many_.get();
    }
    std::copy_n(vectors, count, first_);
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
