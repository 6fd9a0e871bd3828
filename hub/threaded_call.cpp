#include "threaded_call.hpp"

#include "syscalls.hpp"

#include <cerrno>

#include <fcntl.h>
#include <poll.h>
#include <sys/socket.h>

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
    case operation::call::close:
      break;
  }
  return 0;
}

int threaded_call::refusal() const noexcept {
  if (what_.what == operation::call::accept) {
    int listens = 0;
    socklen_t size = sizeof(listens);
    const io_result asked = kernel(SYS_getsockopt, what_.fd, SOL_SOCKET, SO_ACCEPTCONN, &listens, &size);
    return asked.ok() && listens == 0 ? EINVAL : asked.error();
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

void threaded_call::run() noexcept {
  switch (what_.what) {
    case operation::call::readv:
      result_ = kernel(SYS_readv, what_.fd, what_.vectors, what_.vector_count);
      break;
    case operation::call::writev:
      result_ = kernel(SYS_writev, what_.fd, what_.vectors, what_.vector_count);
      break;
    case operation::call::accept:
      result_ = kernel(SYS_accept4, what_.fd, what_.address, what_.address_size, what_.flags);
      break;
    case operation::call::connect:
      result_ = kernel(SYS_connect, what_.fd, what_.address, *what_.address_size);
      break;
    case operation::call::close:
      result_ = close_file(what_.fd);
      break;
  }
}

}  // namespace annulet::detail
