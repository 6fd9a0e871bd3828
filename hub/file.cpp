#include "file.hpp"

#include "carry_out.hpp"
#include "hub_core.hpp"
#include "io_call.hpp"
#include "io_error.hpp"
#include "io_step.hpp"
#include "syscalls.hpp"

#include <cerrno>
#include <cstdint>
#include <limits>
#include <optional>
#include <stdexcept>

#include <sys/uio.h>

namespace annulet {

namespace {

using detail::carry_out;
using detail::direction;
using detail::file_step;
using detail::hub_core;
using detail::io_call;
using detail::io_result;
using detail::kernel;
using detail::operation;

// preadv2 and pwritev2 at a position, which take no lock that a transfer holds for long.
class positioned_transfer final : public file_step {
 public:
  positioned_transfer(const io_call& call, const iovec& memory, std::uint64_t position) noexcept
      : file_step(call.fd(), call.way(), {}, call.kind()), memory_(memory), position_(position) {}

  outcome attempt() noexcept {
    if (position_ > std::uint64_t{std::numeric_limits<std::int64_t>::max()}) {
      return done(io_result(-EINVAL));  // the kernel would take one of them for the file's own
    }
    return after_nowait(call(RWF_NOWAIT), [this] { return call(0); });
  }

  [[nodiscard]] operation as_operation() noexcept {
    operation what = transfer_of({&memory_, 1});
    what.position = position_;
    return what;
  }

 private:
  [[nodiscard]] io_result call(int flags) const noexcept {
    const auto low = static_cast<long>(position_);
    const auto high = static_cast<long>(position_ >> 32);
    return detail::uninterrupted(
        [&] { return kernel(reads() ? SYS_preadv2 : SYS_pwritev2, fd(), &memory_, 1, low, high, flags); });
  }

  const iovec& memory_;
  const std::uint64_t position_;
};

unsigned value_of(const std::optional<io_result>& result, const io_call& call) {
  if (!result) {
    detail::throw_deadline_passed(call.name(), call.fd());
  }
  if (!result->ok()) {
    detail::throw_io_error(result->error(), call.name(), call.fd());
  }
  detail::sanitize_after(call.way());
  return result->value();
}

unsigned value_of(const std::optional<io_result>& result, const char* call, const std::string& path) {
  if (!result) {
    detail::throw_deadline_passed(call, path);
  }
  if (!result->ok()) {
    detail::throw_io_error(result->error(), call, path);
  }
  return result->value();
}

std::size_t transfer(io_call& call, const iovec& memory, std::uint64_t position, deadline until) {
  positioned_transfer step(call, memory, position);
  return value_of(call.run_beside(step, until), call);
}

std::size_t transfer_all(io_call&& call, iovec rest, std::uint64_t position, deadline until,
                         std::size_t& moved) {
  moved = 0;
  for (;;) {
    const std::size_t count = transfer(call, rest, position, until);
    moved += count;
    if (count == rest.iov_len || count == 0) {
      return moved;
    }
    if (until.reached()) {
      detail::throw_deadline_passed(call.name(), call.fd());
    }
    rest = {static_cast<std::byte*>(rest.iov_base) + count, rest.iov_len - count};
    position += count;
    call.breathe_beside();
  }
}

iovec memory_of(mutable_buffer into) noexcept { return {into.data(), into.size()}; }
iovec memory_of(const_buffer from) noexcept { return {const_cast<std::byte*>(from.data()), from.size()}; }

void sync(file_ref file, operation::call what, const char* name, deadline until) {
  io_call call(file, direction::writing, name);
  const operation all{.what = what, .fd = call.fd(), .on_disk = true, .file = detail::identity_of(call.fd())};
  (void)value_of(call.request_beside(all, until), call);
}

hub_core& hub_for_path(const char* call, const std::string& path) {
  if (path.find('\0') != std::string::npos) {
    throw std::invalid_argument(std::string("annulet: ") + call + ": a zero within the path " + path);
  }
  hub_core& hub = hub_core::here(call);
  hub.fibers().breathe(1);
  return hub;
}

}  // namespace

// Twice where it waits for a peer: only then is it known to need a thread for longer than a disk takes.
descriptor open(const std::string& path, int flags, mode_t mode, deadline until) {
  hub_core& hub = hub_for_path("open", path);
  operation what{.what = operation::call::open,
                 .fd = AT_FDCWD,
                 .path = path.c_str(),
                 .flags = flags | O_CLOEXEC,
                 .mode = mode,
                 .on_disk = true};
  std::optional<io_result> opened = carry_out(hub, "open", what, until);
  if (opened && opened->error() == operation::waits_for_peer) {
    what.on_disk = false;
    what.by_worker = true;
    opened = carry_out(hub, "open", what, until);
  }
  const int fd = static_cast<int>(value_of(opened, "open", path));
  return detail::adopt_new(hub, fd, detail::kind_of(fd));
}

descriptor open(const std::string& path, int flags, deadline until) {
  constexpr mode_t for_all = 0666;
  return open(path, flags, for_all, until);
}

std::size_t pread(file_ref file, mutable_buffer into, std::uint64_t position, deadline until) {
  io_call call(file, direction::reading, "pread");
  return transfer(call, memory_of(into), position, until);
}

std::size_t pwrite(file_ref file, const_buffer from, std::uint64_t position, deadline until) {
  io_call call(file, direction::writing, "pwrite");
  return transfer(call, memory_of(from), position, until);
}

std::size_t pread_exactly(file_ref file, mutable_buffer into, std::uint64_t position, deadline until,
                          std::size_t* done) {
  std::size_t moved = 0;
  return transfer_all(io_call(file, direction::reading, "pread_exactly"), memory_of(into), position, until,
                      done == nullptr ? moved : *done);
}

void pwrite_all(file_ref file, const_buffer from, std::uint64_t position, deadline until, std::size_t* done) {
  std::size_t moved = 0;
  if (transfer_all(io_call(file, direction::writing, "pwrite_all"), memory_of(from), position, until,
                   done == nullptr ? moved : *done) < from.size()) {
    detail::throw_io_error(EIO, "pwrite_all", file.number());  // it takes nothing, and gives no reason
  }
}

void fsync(file_ref file, deadline until) { sync(file, operation::call::fsync, "fsync", until); }
void fdatasync(file_ref file, deadline until) { sync(file, operation::call::fdatasync, "fdatasync", until); }

struct ::statx statx(file_ref file, unsigned mask, deadline until) {
  io_call call(file, direction::reading, "statx");
  struct ::statx about {};
  const operation what{.what = operation::call::statx,
                       .fd = call.fd(),
                       .path = "",
                       .about = &about,
                       .flags = AT_EMPTY_PATH,
                       .mode = mask,
                       .on_disk = true,
                       .file = detail::identity_of(call.fd())};
  (void)value_of(call.request_beside(what, until), call);
  return about;
}

struct ::statx statx(const std::string& path, unsigned mask, int flags, deadline until) {
  hub_core& hub = hub_for_path("statx", path);
  struct ::statx about {};
  const operation what{.what = operation::call::statx,
                       .fd = AT_FDCWD,
                       .path = path.c_str(),
                       .about = &about,
                       .flags = flags,
                       .mode = mask,
                       .on_disk = true};
  (void)value_of(carry_out(hub, "statx", what, until), "statx", path);
  return about;
}

}  // namespace annulet
