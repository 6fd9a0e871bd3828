// Messages of Unix sockets that bring descriptors.
#pragma once

#include "files.hpp"

#include <cstring>
#include <string_view>
#include <vector>

#include <sys/socket.h>
#include <sys/uio.h>

namespace annulet::test {

// What send(message) gives for one of this text and this descriptor.
template <class Send>
auto with_descriptor(std::string_view text, int fd, Send&& send) {
  iovec part{const_cast<char*>(text.data()), text.size()};
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int))]{};
  msghdr message{};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  message.msg_control = control;
  message.msg_controllen = sizeof(control);
  cmsghdr* const head = CMSG_FIRSTHDR(&message);
  head->cmsg_level = SOL_SOCKET;
  head->cmsg_type = SCM_RIGHTS;
  head->cmsg_len = CMSG_LEN(sizeof(int));
  std::memcpy(CMSG_DATA(head), &fd, sizeof(fd));
  return send(message);
}

inline void send_with_descriptor(int socket, std::string_view text, int fd) {
  const auto sent =
      with_descriptor(text, fd, [&](const msghdr& message) { return ::sendmsg(socket, &message, 0); });
  require_ok(static_cast<int>(sent), "sendmsg");
}

// Those that a message has brought, now owned.
inline std::vector<descriptor> descriptors_of(msghdr& message) {
  std::vector<descriptor> all;
  for (cmsghdr* head = CMSG_FIRSTHDR(&message); head != nullptr; head = CMSG_NXTHDR(&message, head)) {
    if (head->cmsg_level == SOL_SOCKET && head->cmsg_type == SCM_RIGHTS) {
      std::vector<int> numbers((head->cmsg_len - CMSG_LEN(0)) / sizeof(int));
      std::memcpy(numbers.data(), CMSG_DATA(head), numbers.size() * sizeof(int));
      for (const int fd : numbers) {
        all.emplace_back(fd);
      }
    }
  }
  return all;
}

}  // namespace annulet::test
