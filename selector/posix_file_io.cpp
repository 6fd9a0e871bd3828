// read and write and their vectored forms, on files of every kind.

#include "posix.h"
#include "stream_rest.hpp"
#include "terminal_jobs.hpp"

#include <annulet/hub/io_call.hpp>
#include <annulet/hub/io_step.hpp>
#include <annulet/hub/syscalls.hpp>

#include <algorithm>
#include <csignal>
#include <cstdint>
#include <limits>
#include <optional>

#include <fcntl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

namespace annulet::detail {

namespace {

// A caller's vectors, which the kernel looks at first.
struct file_call {
  const char* name;
  int fd;
  direction way;
  const iovec* vectors;
  int count;

  [[nodiscard]] bool reads() const noexcept { return way == direction::reading; }
  [[nodiscard]] io_result plain() const noexcept {
    return kernel(reads() ? SYS_readv : SYS_writev, fd, vectors, count);
  }
  [[nodiscard]] io_result without_waiting() const noexcept {
    constexpr long own_position = -1;
    return kernel(reads() ? SYS_preadv2 : SYS_pwritev2, fd, vectors, count, own_position, own_position,
                  RWF_NOWAIT);
  }
  [[nodiscard]] io_result as_socket(int flags) const noexcept {
    msghdr message{};
    message.msg_iov = const_cast<iovec*>(vectors);
    message.msg_iovlen = static_cast<std::size_t>(count);
    return kernel(reads() ? SYS_recvmsg : SYS_sendmsg, fd, &message, MSG_DONTWAIT | flags);
  }
  enum class carrier : std::uint8_t { disk, worker, thread };
  [[nodiscard]] operation as_operation(carrier who) const noexcept {
    return {.what = reads() ? operation::call::readv : operation::call::writev,
            .fd = fd,
            .vectors = vectors,
            .vector_count = static_cast<unsigned>(count),
            .by_worker = who == carrier::worker,
            .on_disk = who == carrier::disk,
            .by_thread = who == carrier::thread,
            .file = identity_of(fd)};
  }
};

// Whether the next byte would be beyond what the process may write to a file.
bool is_at_file_limit(int fd) noexcept {
  rlimit limit{};
  if (::getrlimit(RLIMIT_FSIZE, &limit) != 0 || limit.rlim_cur == RLIM_INFINITY) {
    return false;
  }
  const io_result flags = kernel(SYS_fcntl, fd, F_GETFL);
  struct stat about {};
  if (flags.ok() && (flags.value() & O_APPEND) != 0) {
    return ::fstat(fd, &about) == 0 && static_cast<rlim_t>(about.st_size) >= limit.rlim_cur;
  }
  const off_t position = ::lseek(fd, 0, SEEK_CUR);
  return position >= 0 && static_cast<rlim_t>(position) >= limit.rlim_cur;
}

// A signal that comes with an error went to who carried it out.
void send_signal_of(const file_call& call, io_result written) noexcept {
  const bool limited = written.error() == EFBIG && is_at_file_limit(call.fd);
  if (written.error() == EPIPE || limited) {
    (void)kernel(SYS_tgkill, kernel(SYS_getpid).value(), kernel(SYS_gettid).value(),
                 limited ? SIGXFSZ : SIGPIPE);
  }
}

io_result carried_out(const file_call& call, blocking_call& waiting, file_call::carrier who) {
  const io_result moved = waiting.carry_out(call.as_operation(who));
  if (!call.reads()) {
    send_signal_of(call, moved);
  }
  return moved;
}

io_result carried_out_by_thread(const file_call& call, blocking_call& waiting) {
  for (;;) {
    const io_result moved = carried_out(call, waiting, file_call::carrier::thread);
    if (!call.reads() || moved.error() != EIO) {
      return moved;
    }
    if (const int error = ask_to_read_again(call.fd); error != 0) {
      return io_result(-error);
    }
  }
}

// What a read of a terminal waits for poll does not know (VMIN, VTIME), and who is in a read when the other
// side is closed is told more than who comes after.
io_result carried_out_anyhow(const file_call& call, blocking_call& waiting) {
  const std::optional<termios> terminal = terminal_of(call.fd);
  if (!terminal) {
    return carried_out(call, waiting, file_call::carrier::worker);
  }
  if (const int error = call.reads() ? 0 : ask_to_write(call.fd, *terminal); error != 0) {
    return io_result(-error);
  }
  return carried_out_by_thread(call, waiting);
}

// One transfer, whole or in part, or the error that the call ends with.
io_result transfer(hub_core& hub, const file_call& call, blocking_call& waiting, bool nothing_yet) {
  const bool occupied = !hub.transfers().none() && hub.transfers().find(call.fd) != nullptr;
  for (bool woken = false, ended = false;;) {
    const io_result moved = occupied ? io_result(-EAGAIN) : call.without_waiting();
    if (moved.error() != EAGAIN && moved.error() != EOPNOTSUPP) {
      return moved;
    }
    const file_kind kind = kind_of(call.fd);
    if (kind == file_kind::disk) {
      return carried_out(call, waiting, file_call::carrier::disk);
    }
    if (moved.error() == EOPNOTSUPP) {
      if (kind == file_kind::other) {
        return waiting.may_wait() ? carried_out_anyhow(call, waiting) : call.plain();
      }
      const io_result again = call.as_socket(0);  // kernels before 6.5
      if (again.error() != EAGAIN) {
        return again;
      }
    }
    if (!waiting.may_wait()) {
      return io_result(-EAGAIN);
    }
    if (ended) {
      return io_result(0);
    }
    ended = woken && call.reads() && is_shut_down(call.fd);
    if (ended) {
      continue;  // what came before the end may have come after the call
    }
    if (const int error = waiting.wait(nothing_yet); error != 0) {
      return io_result(-error);
    }
    woken = true;
  }
}

// After a part: the rest, until an error or nothing comes, which is not told then.
std::size_t transfer_rest(hub_core& hub, const file_call& call, blocking_call& waiting, std::size_t moved) {
  remaining left(call.vectors, static_cast<std::size_t>(call.count));
  left.advance(moved);
  while (!left.none()) {
    const file_call more{call.name, call.fd, call.way, left.data(), static_cast<int>(left.size())};
    const io_result now = call.reads() ? carried_out(more, waiting, file_call::carrier::disk)
                                       : transfer(hub, more, waiting, false);
    if (!now.ok() || now.value() == 0) {
      break;
    }
    left.advance(now.value());
    moved += now.value();
    waiting.has_moved();
  }
  return moved;
}

// A blocking write ends when all is written, of what takes a part where it has room.
std::size_t write_rest(hub_core& hub, const file_call& call, blocking_call& waiting, std::size_t moved) {
  struct stat about {};
  if (!waiting.may_wait() || ::fstat(call.fd, &about) != 0) {
    return moved;
  }
  if (S_ISSOCK(about.st_mode)) {
    remaining left(call.vectors, static_cast<std::size_t>(call.count));
    left.advance(moved);
    return moved + send_rest(waiting, call.fd, left, 0, msghdr{});
  }
  const bool goes_on = S_ISFIFO(about.st_mode) || (S_ISREG(about.st_mode) && !is_at_file_limit(call.fd));
  return goes_on ? transfer_rest(hub, call, waiting, moved) : moved;
}

// A read of a file ends where the file does, and not where the disk would have to be asked. A block device's
// end is found by reading there.
std::size_t read_rest(hub_core& hub, const file_call& call, blocking_call& waiting, std::size_t moved) {
  struct stat about {};
  if (::fstat(call.fd, &about) != 0) {
    return moved;
  }
  const bool goes_on =
      S_ISBLK(about.st_mode) || (S_ISREG(about.st_mode) && ::lseek(call.fd, 0, SEEK_CUR) < about.st_size);
  return goes_on ? transfer_rest(hub, call, waiting, moved) : moved;
}

ssize_t transfer_on(hub_core& hub, const file_call& call) noexcept {
  try {
    breathe(hub);
    sanitize_before(call.way);
    blocking_call waiting(hub, call.name, call.fd, call.way);
    const io_result moved = transfer(hub, call, waiting, true);
    if (!moved.ok()) {
      return as_returned(moved);
    }
    sanitize_after(call.way);
    const std::size_t all = total_of(call.vectors, static_cast<std::size_t>(call.count));
    if (moved.value() == 0 || moved.value() >= all) {
      return moved.value();
    }
    const auto rest = call.reads() ? read_rest : write_rest;
    return static_cast<ssize_t>(rest(hub, call, waiting, moved.value()));
  } catch (const std::bad_alloc&) {
    return as_returned(io_result(-ENOMEM));
  }
}

// read and write refuse a size that goes beyond the memory that programs have, at once and on every file,
// though they would move less. The kernel is asked by mincore, which looks at that before it looks at the
// place for its answer, which is nowhere. What is not larger than what is moved the try refuses itself.
bool is_beyond_memory(const void* start, std::size_t size) noexcept {
  if (size <= most_at_once()) {
    return false;
  }
  constexpr std::uintptr_t nowhere = std::numeric_limits<std::uintptr_t>::max();
  const auto from = reinterpret_cast<std::uintptr_t>(start);
  const std::uintptr_t inset = from & static_cast<std::uintptr_t>(::getpagesize() - 1);
  return size + inset < size || kernel(SYS_mincore, from - inset, size + inset, nowhere).error() == ENOMEM;
}

// There are files that wait all the same (inotify), and refuse it then.
ssize_t read_nothing(hub_core& hub, const file_call& call) noexcept {
  try {
    breathe(hub);
    blocking_call waiting(hub, call.name, call.fd, call.way);
    return as_returned(waiting.may_wait() ? carried_out_by_thread(call, waiting)
                                          : kernel(SYS_read, call.fd, call.vectors->iov_base, 0));
  } catch (const std::bad_alloc&) {
    return as_returned(io_result(-ENOMEM));
  }
}

}  // namespace

}  // namespace annulet::detail

using namespace annulet::detail;

ssize_t annulet_read(int fd, void* into, std::size_t size) {
  hub_core* const hub = hub_core::of_caller();
  if (hub == nullptr || (size == 0 && kind_of(fd) != file_kind::other) || is_beyond_memory(into, size)) {
    return as_returned(kernel(SYS_read, fd, into, size));
  }
  const iovec all{into, std::min(size, most_at_once())};
  if (size == 0) {
    return read_nothing(*hub, {"read", fd, direction::reading, &all, 1});
  }
  return transfer_on(*hub, {"read", fd, direction::reading, &all, 1});
}

ssize_t annulet_write(int fd, const void* from, std::size_t size) {
  hub_core* const hub = hub_core::of_caller();
  if (hub == nullptr || is_beyond_memory(from, size)) {
    return as_returned(kernel(SYS_write, fd, from, size));
  }
  if (size == 0) {
    // Only an empty datagram waits.
    const int kept = errno;
    const ssize_t sent = annulet_send(fd, from, 0, 0);
    if (sent != -1 || errno != ENOTSOCK) {
      return sent;
    }
    errno = kept;
    return as_returned(kernel(SYS_write, fd, from, size));
  }
  const iovec all{const_cast<void*>(from), std::min(size, most_at_once())};
  return transfer_on(*hub, {"write", fd, direction::writing, &all, 1});
}

ssize_t annulet_readv(int fd, const iovec* into, int count) {
  hub_core* const hub = hub_core::of_caller();
  return hub == nullptr ? as_returned(kernel(SYS_readv, fd, into, count))
                        : transfer_on(*hub, {"readv", fd, direction::reading, into, count});
}

ssize_t annulet_writev(int fd, const iovec* from, int count) {
  hub_core* const hub = hub_core::of_caller();
  return hub == nullptr ? as_returned(kernel(SYS_writev, fd, from, count))
                        : transfer_on(*hub, {"writev", fd, direction::writing, from, count});
}

// A handler may have come in the middle of anything that the other one looks at.
int annulet_close(int fd) {
  hub_core* const hub = hub_core::of_caller();
  if (hub != nullptr && !hub->is_in_handler()) {
    return as_returned(close_as_hub(fd));
  }
  const hub_core* const own = hub_core::current();
  return as_returned(own != nullptr && own->owns(fd) ? io_result(-EBADF) : close_file(fd));
}
