// An address of any family, as the socket calls take and give it.
#pragma once

#include <cstring>
#include <stdexcept>

#include <sys/socket.h>

namespace annulet {

class socket_address {
 public:
  // Room for any; family() is AF_UNSPEC.
  socket_address() noexcept = default;
  // A copy. Throws std::invalid_argument where it is longer than any address can be.
  socket_address(const sockaddr* address, socklen_t size) : size_(size) {
    if (size > sizeof(storage_)) {
      throw std::invalid_argument("annulet: socket_address: longer than a sockaddr_storage");
    }
    std::memcpy(&storage_, address, size);
  }
  // From a sockaddr_in, sockaddr_in6, sockaddr_un, ...
  template <class Sockaddr>
  requires(sizeof(Sockaddr) <= sizeof(sockaddr_storage) && std::is_trivially_copyable_v<Sockaddr> &&
           !std::is_pointer_v<Sockaddr>) explicit socket_address(const Sockaddr& address)
      : socket_address(reinterpret_cast<const sockaddr*>(&address), sizeof(address)) {}

  [[nodiscard]] const sockaddr* data() const noexcept { return reinterpret_cast<const sockaddr*>(&storage_); }
  [[nodiscard]] socklen_t size() const noexcept { return size_; }
  [[nodiscard]] int family() const noexcept { return size_ == 0 ? AF_UNSPEC : storage_.ss_family; }

  // For a call that fills it in: room for any address, then as much as the call says.
  [[nodiscard]] sockaddr* room() noexcept {
    size_ = sizeof(storage_);
    return reinterpret_cast<sockaddr*>(&storage_);
  }
  [[nodiscard]] socklen_t* room_size() noexcept { return &size_; }

 private:
  sockaddr_storage storage_{};
  socklen_t size_ = 0;
};

}  // namespace annulet
