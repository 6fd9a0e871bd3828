#include "stream_rest.hpp"

#include <annulet/hub/syscalls.hpp>

#include <array>
#include <cstring>
#include <vector>

#include <poll.h>
#include <sys/ioctl.h>

namespace annulet::detail {

namespace {

int asked(int socket, unsigned long question) noexcept {
  int value = 0;
  return kernel(SYS_ioctl, socket, question, &value).ok() ? value : 0;
}

short said_of(int socket, short events) noexcept {
  std::array<pollfd, 1> one{pollfd{socket, events, 0}};
  return poll_now(one).ok() ? one[0].revents : short{0};
}

// There is an error that the next call would take with it. What lies in the error queue, a notice of a copy
// that was spared, is an error for poll, too, but hangs up nothing.
bool is_reset(int socket) noexcept {
  constexpr short both = POLLERR | POLLHUP;
  return (said_of(socket, 0) & both) == both;
}

// What else there is for a stream's next receiver is its end, or the error of one that was reset.
bool has_bytes(int socket) noexcept {
  int bytes = 0;
  return !kernel(SYS_ioctl, socket, FIONREAD, &bytes).ok() || bytes != 0;
}

// Each part of a message has the sender's credentials, and its first one the descriptors.
class repeated_control {
 public:
  repeated_control(int socket, const msghdr& given) {
    if (given.msg_controllen == 0 || !is_unix(socket)) {
      return;
    }
    msghdr from = given;
    for (cmsghdr* one = CMSG_FIRSTHDR(&from); one != nullptr; one = CMSG_NXTHDR(&from, one)) {
      if (one->cmsg_level != SOL_SOCKET || one->cmsg_type != SCM_RIGHTS) {
        const auto* const bytes = reinterpret_cast<const char*>(one);
        kept_.insert(kept_.end(), bytes, bytes + one->cmsg_len);
        kept_.resize(CMSG_ALIGN(kept_.size()));
      }
    }
  }
  void add_to(msghdr& message) noexcept {
    message.msg_control = kept_.empty() ? nullptr : kept_.data();
    message.msg_controllen = kept_.size();
  }

 private:
  std::vector<char> kept_;
};

// Linux ends a part with the descriptors that it brings.
bool brought_descriptors(int socket, msghdr& message) noexcept {
  if ((message.msg_flags & MSG_CTRUNC) != 0) {
    return option_of(socket, SO_PASSCRED) == 0;  // else it may be the credentials that had no room
  }
  for (cmsghdr* one = CMSG_FIRSTHDR(&message); one != nullptr; one = CMSG_NXTHDR(&message, one)) {
    if (one->cmsg_level == SOL_SOCKET && one->cmsg_type == SCM_RIGHTS) {
      return true;
    }
  }
  return false;
}

bool may_go_on(blocking_call& waiting) { return waiting.may_wait() && waiting.wait(false) == 0; }

}  // namespace

int option_of(int socket, int option) noexcept {
  int value = 0;
  socklen_t size = sizeof(value);
  return kernel(SYS_getsockopt, socket, SOL_SOCKET, option, &value, &size).ok() ? value : 0;
}

bool is_unix(int socket) noexcept { return option_of(socket, SO_DOMAIN) == AF_UNIX; }

bool is_shut_down(int fd) noexcept { return (said_of(fd, POLLRDHUP) & POLLRDHUP) != 0; }

std::size_t send_rest(blocking_call& waiting, int socket, remaining& left, int flags, const msghdr& given) {
  repeated_control control(socket, given);
  const bool each_buffer_has_its_time = is_unix(socket);
  std::size_t moved = 0;
  while (!left.none() && !is_reset(socket)) {
    msghdr part{};
    part.msg_iov = left.data();
    part.msg_iovlen = left.size();
    control.add_to(part);
    const int quietly = (flags & ~MSG_FASTOPEN) | MSG_DONTWAIT | MSG_NOSIGNAL;
    const io_result now = kernel(SYS_sendmsg, socket, &part, quietly);
    if (now.error() == EAGAIN) {
      if (!may_go_on(waiting)) {
        break;
      }
      continue;
    }
    if (!now.ok() || now.value() == 0) {
      break;
    }
    left.advance(now.value());
    moved += now.value();
    waiting.has_moved();
    if (each_buffer_has_its_time) {
      waiting.begin_time_anew();
    }
  }
  return moved;
}

std::size_t receive_rest(blocking_call& waiting, int socket, remaining& left, int flags, const msghdr& given,
                         msghdr& first) {
  const bool keeps_errors = !is_unix(socket);  // a Unix socket gives none to the next call
  std::size_t moved = 0;
  bool whole = brought_descriptors(socket, first);
  while (!whole && !left.none() && asked(socket, SIOCATMARK) == 0) {
    if (keeps_errors) {
      // A try that finds no bytes would take an error that comes just then. And after an end come no bytes,
      // so that one is asked for first.
      const bool ended = is_shut_down(socket);  // a reset is one, too
      if (!has_bytes(socket)) {
        if (ended || !may_go_on(waiting)) {
          break;
        }
        continue;
      }
    }
    msghdr part = given;
    part.msg_name = nullptr;  // it is the first part's sender that is told
    part.msg_namelen = 0;
    part.msg_iov = left.data();
    part.msg_iovlen = left.size();
    const io_result now = kernel(SYS_recvmsg, socket, &part, flags | MSG_DONTWAIT);
    if (now.error() == EAGAIN) {
      if (!may_go_on(waiting)) {
        break;
      }
      continue;
    }
    if (!now.ok() || now.value() == 0) {
      break;
    }
    left.advance(now.value());
    moved += now.value();
    waiting.has_moved();
    first.msg_controllen = part.msg_controllen;
    first.msg_flags |= part.msg_flags;
    whole = brought_descriptors(socket, part);
  }
  return moved;
}

}  // namespace annulet::detail
