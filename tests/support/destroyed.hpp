// A T that is destroyed and made again, each time elsewhere, and whether anybody has written to where one was
// after its end.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <memory>
#include <new>
#include <utility>

namespace annulet_test {

template <class T>
class destroyed_and_made {
 public:
  template <class... Args>
  explicit destroyed_and_made(Args&&... args) {
    for (plot& each : plots_) {
      each.bytes.fill(grass);
    }
    make(std::forward<Args>(args)...);
  }
  ~destroyed_and_made() { destroy(); }
  destroyed_and_made(const destroyed_and_made&) = delete;
  destroyed_and_made& operator=(const destroyed_and_made&) = delete;

  template <class... Args>
  void make(Args&&... args) {
    destroy();
    at_ = (at_ + 1) % plots_.size();
    look_at(plots_[at_]);
    now_ = ::new (plots_[at_].bytes.data()) T(std::forward<Args>(args)...);
  }
  void destroy() {
    if (now_ != nullptr) {
      std::destroy_at(std::exchange(now_, nullptr));
      plots_[at_].bytes.fill(grass);
    }
  }

  T& operator*() const noexcept { return *now_; }
  T* operator->() const noexcept { return now_; }
  [[nodiscard]] bool alive() const noexcept { return now_ != nullptr; }
  // Whether none that has been reused since was written to; with none alive, whether none was at all.
  [[nodiscard]] bool untouched() {
    if (now_ == nullptr) {
      std::for_each(plots_.begin(), plots_.end(), [this](const plot& each) { look_at(each); });
    }
    return untouched_;
  }

 private:
  static constexpr std::byte grass{0x5b};
  struct plot {
    alignas(T) std::array<std::byte, sizeof(T)> bytes;
  };

  void look_at(const plot& where) {
    const auto is_grass = [](std::byte b) { return b == grass; };
    untouched_ = untouched_ && std::all_of(where.bytes.begin(), where.bytes.end(), is_grass);
  }

  std::array<plot, 8> plots_;
  std::size_t at_ = 0;
  T* now_ = nullptr;
  bool untouched_ = true;
};

}  // namespace annulet_test
