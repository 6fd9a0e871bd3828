// A count in the object itself, and the pointer that keeps it. The count is plain: an object belongs to one
// thread, and an atomic one would cost more than all else that a returned key does.
#pragma once

#include <concepts>
#include <utility>

namespace annulet::detail {

class counted {
 public:
  counted() = default;
  counted(const counted&) = delete;
  counted& operator=(const counted&) = delete;

  void hold() const noexcept { ++holders_; }
  void drop() const noexcept {
    if (--holders_ == 0) {
      delete this;
    }
  }

 protected:
  virtual ~counted() = default;

 private:
  mutable unsigned holders_ = 1;
};

// One pointer, which may be null. Copying allocates nothing. (What clang's analyzer is told not to say: it
// takes the last holder to have gone where one stands before it.)
template <class T>
class counted_pointer {
 public:
  counted_pointer() noexcept = default;
  // Takes over a count.
  explicit counted_pointer(T* held) noexcept : object_(held) {}
  counted_pointer(const counted_pointer& other) noexcept : object_(other.object_) {
    if (object_ != nullptr) {
      object_->hold();  // NOLINT(clang-analyzer-cplusplus.NewDelete)
    }
  }
  template <class Other>
  requires std::convertible_to<Other*, T*>
  explicit counted_pointer(const counted_pointer<Other>& other) noexcept : object_(other.address()) {
    if (object_ != nullptr) {
      object_->hold();
    }
  }
  counted_pointer(counted_pointer&& other) noexcept : object_(std::exchange(other.object_, nullptr)) {}
  counted_pointer& operator=(counted_pointer other) noexcept {
    std::swap(object_, other.object_);
    return *this;
  }
  ~counted_pointer() {
    if (object_ != nullptr) {
      object_->drop();  // NOLINT(clang-analyzer-cplusplus.NewDelete)
    }
  }

  [[nodiscard]] T* address() const noexcept { return object_; }
  [[nodiscard]] T* operator->() const noexcept { return object_; }
  [[nodiscard]] T& operator*() const noexcept { return *object_; }

 private:
  T* object_ = nullptr;
};

}  // namespace annulet::detail
