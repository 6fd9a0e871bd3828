// Watches a file by an epoll descriptor of its own, which is readable when the file is ready: for those that
// io_uring refuses to poll (EINVAL), as it does all with more than two wait queues. Internal.
#pragma once

#include <cstdint>

namespace annulet::detail {

class nested_set {
 public:
  nested_set() = default;
  ~nested_set() { end(); }
  nested_set(const nested_set&) = delete;
  nested_set& operator=(const nested_set&) = delete;

  [[nodiscard]] bool exists() const noexcept { return set_ >= 0; }
  // What to poll, for POLLIN, in the file's place.
  [[nodiscard]] int fd() const noexcept { return set_; }

  // Both return 0 or the errno. The mask is poll(2)'s; what poll(2) tells by itself, that the number is
  // closed or the file always ready, is no error.
  [[nodiscard]] int begin(int file, std::uint16_t mask) noexcept;
  [[nodiscard]] int change(int file, std::uint16_t mask) noexcept;
  void end() noexcept;

 private:
  [[nodiscard]] int control(int operation, int file, std::uint16_t mask) const noexcept;

  int set_ = -1;
};

}  // namespace annulet::detail
