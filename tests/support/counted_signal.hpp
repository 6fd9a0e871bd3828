// A signal that is handled by counting it, for a while.
#pragma once

#include <array>
#include <atomic>
#include <csignal>
#include <cstddef>

namespace annulet::test {

inline std::array<std::atomic<int>, 65> handled{};

inline void count_signal(int signal) { ++handled[static_cast<std::size_t>(signal)]; }

class counted_signal {
 public:
  explicit counted_signal(int signal, int flags = 0, void (*handler)(int) = &count_signal) : signal_(signal) {
    handled[static_cast<std::size_t>(signal)] = 0;
    struct sigaction action {};
    action.sa_handler = handler;
    action.sa_flags = flags;
    ::sigaction(signal, &action, &before_);
  }
  ~counted_signal() { ::sigaction(signal_, &before_, nullptr); }
  counted_signal(const counted_signal&) = delete;
  counted_signal& operator=(const counted_signal&) = delete;
  [[nodiscard]] int times() const { return handled[static_cast<std::size_t>(signal_)]; }

 private:
  int signal_;
  struct sigaction before_ {};
};

}  // namespace annulet::test
