// The MSG_ flags of a socket call, said to be flags: the size that ported code passes as a third argument
// does not pass for them.
//
//   annulet::recv(conn, buffer, annulet::message_flags(MSG_PEEK));
#pragma once

namespace annulet {

class message_flags {
 public:
  constexpr message_flags() noexcept = default;
  constexpr explicit message_flags(int bits) noexcept : bits_(bits) {}

  [[nodiscard]] constexpr int bits() const noexcept { return bits_; }

 private:
  int bits_ = 0;
};

}  // namespace annulet
