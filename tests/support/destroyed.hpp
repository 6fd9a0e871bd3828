// A T that is destroyed and made again, each time elsewhere, and whether anybody has written to where one was
// after its end.
#pragma once

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
    for (std::size_t i = 0; i < plots_.size(); ++i) {
      sow(i);
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
    look_at(at_);
    now_ = ::new (plots_[at_].bytes.data()) T(std::forward<Args>(args)...);
  }
  void destroy() {
    if (now_ != nullptr) {
      std::destroy_at(std::exchange(now_, nullptr));
      sow(at_);
    }
  }

  T& operator*() const noexcept { return *now_; }
  T* operator->() const noexcept { return now_; }
  [[nodiscard]] bool alive() const noexcept { return now_ != nullptr; }
  // Whether none that has been reused since was written to; with none alive, whether none was at all.
  [[nodiscard]] bool untouched() {
    for (std::size_t i = 0; now_ == nullptr && i < plots_.size(); ++i) {
      look_at(i);
    }
    return untouched_;
  }

 private:
  struct plot {
    alignas(T) std::array<std::byte, sizeof(T)> bytes;
  };

  // Of two kinds: what reads there is misled in two ways.
  static constexpr std::byte grass(std::size_t at) noexcept { return std::byte(at % 2 == 0 ? 0x5b : 0); }
  void sow(std::size_t at) { plots_[at].bytes.fill(grass(at)); }
  void look_at(std::size_t at) {
    for (const std::byte each : plots_[at].bytes) {
      untouched_ = untouched_ && each == grass(at);
    }
  }

  std::array<plot, 8> plots_;
  std::size_t at_ = 0;
  T* now_ = nullptr;
  bool untouched_ = true;
};

}  // namespace annulet_test
