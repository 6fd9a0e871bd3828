#include "file_identity.hpp"

#include "syscalls.hpp"

#include <fcntl.h>
#include <sys/stat.h>

namespace annulet::detail {

std::optional<file_identity> identity_of(int fd) noexcept {
  struct statx about {};
  const io_result asked =
      kernel(SYS_statx, fd, "", AT_EMPTY_PATH | AT_STATX_DONT_SYNC, static_cast<unsigned>(STATX_INO), &about);
  if (!asked.ok()) {
    return std::nullopt;
  }
  return file_identity{std::uint64_t{about.stx_dev_major} << 32 | about.stx_dev_minor, about.stx_ino};
}

}  // namespace annulet::detail
