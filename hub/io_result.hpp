// What the engine reports of an operation: a count or mask, or an errno. The engine never throws; the calls
// that users make turn errors into exceptions that name the call.
#pragma once

namespace annulet::detail {

class io_result {
 public:
  // As the kernel returns it: negative is -errno.
  constexpr explicit io_result(int raw) noexcept : raw_(raw) {}

  [[nodiscard]] constexpr bool ok() const noexcept { return raw_ >= 0; }
  [[nodiscard]] constexpr int error() const noexcept { return ok() ? 0 : -raw_; }
  [[nodiscard]] constexpr unsigned value() const noexcept { return static_cast<unsigned>(raw_); }

 private:
  int raw_;
};

}  // namespace annulet::detail
