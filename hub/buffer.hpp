// Memory that a call reads into or writes from: anything contiguous that is made of bytes, or an address and
// a size. Both are views, and own nothing.
#pragma once

#include <concepts>
#include <cstddef>
#include <ranges>
#include <type_traits>

namespace annulet {

namespace detail {

template <class T>
inline constexpr bool is_byte =
    std::is_same_v<T, std::byte> || std::is_same_v<T, char> || std::is_same_v<T, unsigned char> ||
    std::is_same_v<T, signed char> || std::is_same_v<T, char8_t>;

template <class Range>
concept bytes = std::ranges::contiguous_range<Range> && std::ranges::sized_range<Range> &&
    is_byte<std::remove_cv_t<std::remove_reference_t<std::ranges::range_reference_t<Range>>>>;

template <class Range>
concept writable_bytes =
    bytes<Range> && !std::is_const_v<std::remove_reference_t<std::ranges::range_reference_t<Range>>>;

}  // namespace detail

class mutable_buffer {
 public:
  mutable_buffer() noexcept = default;
  mutable_buffer(void* data, std::size_t size) noexcept : data_(static_cast<std::byte*>(data)), size_(size) {}
  template <class Range>
  requires detail::writable_bytes<Range> mutable_buffer(Range&& range)
  noexcept : data_(reinterpret_cast<std::byte*>(std::ranges::data(range))), size_(std::ranges::size(range)) {}

  [[nodiscard]] std::byte* data() const noexcept { return data_; }
  [[nodiscard]] std::size_t size() const noexcept { return size_; }
  [[nodiscard]] mutable_buffer without_first(std::size_t count) const noexcept {
    return {data_ + count, size_ - count};
  }

 private:
  std::byte* data_ = nullptr;
  std::size_t size_ = 0;
};

class const_buffer {
 public:
  const_buffer() noexcept = default;
  const_buffer(const void* data, std::size_t size) noexcept
      : data_(static_cast<const std::byte*>(data)), size_(size) {}
  template <class Range>
  requires detail::bytes<Range> const_buffer(Range&& range)
  noexcept
      : data_(reinterpret_cast<const std::byte*>(std::ranges::data(range))),
        size_(std::ranges::size(range)) {}
  // Would its zero be meant? Say std::string_view(...), or address and size.
  template <std::size_t size>
  const_buffer(const char (&literal)[size]) = delete;

  [[nodiscard]] const std::byte* data() const noexcept { return data_; }
  [[nodiscard]] std::size_t size() const noexcept { return size_; }
  [[nodiscard]] const_buffer without_first(std::size_t count) const noexcept {
    return {data_ + count, size_ - count};
  }

 private:
  const std::byte* data_ = nullptr;
  std::size_t size_ = 0;
};

}  // namespace annulet
