#include "threaded_call.hpp"

#include "syscalls.hpp"
#include "threaded_calls.hpp"

#include <array>
#include <cerrno>
#include <cstddef>
#include <cstdio>
#include <string>

#include <fcntl.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

namespace annulet::detail {

std::uint16_t threaded_call::needs() const noexcept {
  switch (what_.what) {
    case operation::call::readv:
      return what_.by_worker ? POLLIN : 0;
    case operation::call::writev:
      return what_.by_worker ? POLLOUT : 0;
    case operation::call::accept:
      return POLLIN;
    case operation::call::connect:  // it has to be made for anything to happen
    default:
      break;
  }
  return 0;
}

namespace {

// The kernel wants the position in halves, and looks at the second where a long has no room for it all.
io_result positioned_transfer(long number, const operation& what) noexcept {
  const auto low = static_cast<long>(what.position);
  const auto high = static_cast<long>(what.position >> 32);
  return kernel(number, what.fd, what.vectors, what.vector_count, low, high);
}

// What accept(2) says at once of a socket where nobody can be waited for; 0 where it listens.
int refusal_to_accept(int fd) noexcept {
  const auto ask = [fd](int option, int& value) {
    socklen_t size = sizeof(value);
    return kernel(SYS_getsockopt, fd, SOL_SOCKET, option, &value, &size);
  };
  int listens = 0;
  int type = 0;
  if (const io_result asked = ask(SO_ACCEPTCONN, listens); !asked.ok() || listens != 0) {
    return asked.error();
  }
  (void)ask(SO_TYPE, type);
  return type == SOCK_STREAM || type == SOCK_SEQPACKET ? EINVAL : EOPNOTSUPP;
}

}  // namespace

int threaded_call::refusal() const noexcept {
  if (what_.what == operation::call::accept) {
    return refusal_to_accept(what_.fd);
  }
  const io_result flags = kernel(SYS_fcntl, what_.fd, F_GETFL);
  if (!flags.ok()) {
    return flags.error();
  }
  const unsigned way = flags.value() & O_ACCMODE;
  const unsigned wrong = what_.what == operation::call::readv ? O_WRONLY : O_RDONLY;
  return way == wrong || (flags.value() & O_PATH) != 0 ? EBADF : 0;
}

worker_pool::urgency threaded_call::how_urgent() const noexcept {
  return what_.on_disk ? worker_pool::urgency::bounded : worker_pool::urgency::urgent;
}

// SO_SNDTIMEO limits the call, and no request in the ring. The connecting goes on behind it, and a second
// call says how it has ended.
io_result threaded_call::connect() const noexcept {
  const auto call = [this] {
    return finds_its_file() ? kernel(SYS_connect, what_.fd, what_.address, *what_.address_size)
                            : io_result(-EBADF);
  };
  const io_result made = call();
  if (made.error() != EINPROGRESS) {
    return made;
  }
  pollfd socket{what_.fd, POLLOUT, 0};
  constexpr std::nullptr_t no_limit = nullptr;
  const io_result over = kernel(SYS_ppoll, &socket, 1, no_limit, nullptr, 0);
  return over.ok() ? call() : over;
}

// Of a single buffer by the call that has no vectors: a vector of nothing does not even get to the file.
io_result threaded_call::transfer(long single, long plain, long positioned) const noexcept {
  if (!what_.at_own_position()) {
    return positioned_transfer(positioned, what_);
  }
  return what_.vector_count == 1 ? kernel(single, what_.fd, what_.vectors->iov_base, what_.vectors->iov_len)
                                 : kernel(plain, what_.fd, what_.vectors, what_.vector_count);
}

// Whether it may wait for somebody: a FIFO's other side, a terminal's carrier.
bool threaded_call::opens_for_peer() const noexcept {
  if ((what_.flags & (O_NONBLOCK | O_PATH | O_DIRECTORY)) != 0) {
    return false;
  }
  struct statx about {};
  const int flags = (what_.flags & O_NOFOLLOW) != 0 ? AT_SYMLINK_NOFOLLOW : 0;
  const io_result asked = kernel(SYS_statx, what_.fd, what_.path, flags | AT_STATX_DONT_SYNC,
                                 static_cast<unsigned>(STATX_TYPE), &about);
  return asked.ok() && (S_ISFIFO(about.stx_mode) || S_ISCHR(about.stx_mode));
}

void threaded_call::report_if_stuck(pid_t thread) noexcept {
  const auto now = std::chrono::steady_clock::now();
  if (!called_off_) {
    called_off_ = now;
  }
  if (reported_ || now - *called_off_ < std::chrono::seconds(5)) {
    return;
  }
  reported_ = true;
  constexpr std::array names{"readv", "writev",    "accept", "connect", "close",
                             "fsync", "fdatasync", "statx",  "open",    "sendmsg"};
  const std::string about = what_.path == nullptr ? std::to_string(what_.fd) : what_.path;
  std::fprintf(stderr, "annulet: %s(%s) has not ended, seconds after it was called off: %s %d\n",
               names.at(static_cast<std::size_t>(what_.what)), about.c_str(),
               thread == 0 ? "no thread has it, and this one waits," : "it runs in thread",
               thread == 0 ? ::gettid() : thread);
}

void threaded_call::ended() noexcept { threaded_calls::finish(*this, result_); }

void threaded_call::run() noexcept {
  if (!finds_its_file()) {
    result_ = io_result(-EBADF);
    return;
  }
  switch (what_.what) {
    case operation::call::readv:
      result_ = transfer(SYS_read, SYS_readv, SYS_preadv);
      break;
    case operation::call::writev:
      result_ = transfer(SYS_write, SYS_writev, SYS_pwritev);
      break;
    case operation::call::accept:
      result_ = kernel(SYS_accept4, what_.fd, what_.address, what_.address_size, what_.flags);
      break;
    case operation::call::connect:
      result_ = connect();
      break;
    case operation::call::close:
      result_ = close_file(what_.fd);
      break;
    case operation::call::fsync:
      result_ = kernel(SYS_fsync, what_.fd);
      break;
    case operation::call::fdatasync:
      result_ = kernel(SYS_fdatasync, what_.fd);
      break;
    case operation::call::statx:
      result_ = kernel(SYS_statx, what_.fd, what_.path, what_.flags, what_.mode, what_.about);
      break;
    case operation::call::open:
      result_ = what_.on_disk && opens_for_peer()
                    ? io_result(-operation::waits_for_peer)
                    : kernel(SYS_openat, what_.fd, what_.path, what_.flags, what_.mode);
      break;
    case operation::call::sendmsg:
      result_ = kernel(SYS_sendmsg, what_.fd, what_.message, what_.flags);
      break;
  }
}

}  // namespace annulet::detail
