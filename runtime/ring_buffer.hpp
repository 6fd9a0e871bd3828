// A first-in-first-out store of up to so many, which grows to that as it fills and never shrinks: at rest it
// allocates nothing.
#pragma once

#include <algorithm>
#include <cstddef>
#include <memory>
#include <type_traits>
#include <utility>

namespace annulet::detail {

template <class T>
class ring_buffer {
 public:
  static_assert(std::is_nothrow_move_constructible_v<T>,
                "an item that is under way must not be lost half-way");

  explicit ring_buffer(std::size_t limit) noexcept : limit_(limit) {}
  ring_buffer(const ring_buffer&) = delete;
  ring_buffer& operator=(const ring_buffer&) = delete;
  ~ring_buffer() {
    while (!empty()) {
      (void)pop();
    }
    release();
  }

  [[nodiscard]] std::size_t size() const noexcept { return size_; }
  [[nodiscard]] bool empty() const noexcept { return size_ == 0; }
  [[nodiscard]] bool full() const noexcept { return size_ == limit_; }
  [[nodiscard]] std::size_t limit() const noexcept { return limit_; }

  // Not when full. Throws std::bad_alloc, and has then taken nothing.
  void push(T&& item) {
    if (size_ == room_) {
      grow();
    }
    std::construct_at(slots_ + wrapped(first_ + size_), std::move(item));
    ++size_;
  }

  // Not when empty.
  T pop() noexcept {
    T* const oldest = slots_ + first_;
    T item = std::move(*oldest);
    std::destroy_at(oldest);
    first_ = wrapped(first_ + 1);
    --size_;
    return item;
  }

 private:
  [[nodiscard]] std::size_t wrapped(std::size_t at) const noexcept { return at < room_ ? at : at - room_; }

  void grow() {
    constexpr std::size_t at_first = 8;
    const std::size_t room = room_ > limit_ / 2 ? limit_ : std::min(std::max(room_ * 2, at_first), limit_);
    T* const slots = std::allocator<T>().allocate(room);
    for (std::size_t i = 0; i < size_; ++i) {
      T* const from = slots_ + wrapped(first_ + i);
      std::construct_at(slots + i, std::move(*from));
      std::destroy_at(from);
    }
    release();
    slots_ = slots;
    room_ = room;
    first_ = 0;
  }

  void release() noexcept {
    if (slots_ != nullptr) {
      std::allocator<T>().deallocate(slots_, room_);
    }
  }

  T* slots_ = nullptr;
  std::size_t room_ = 0;
  std::size_t first_ = 0;
  std::size_t size_ = 0;
  const std::size_t limit_;
};

}  // namespace annulet::detail
