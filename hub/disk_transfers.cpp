#include "disk_transfers.hpp"

#include "syscalls.hpp"

#include <fcntl.h>
#include <linux/kcmp.h>

namespace annulet::detail {

namespace {

constexpr int dupfd_query = 1024 + 3;  // F_DUPFD_QUERY, Linux 6.10; newer than Debian 12's headers

// Nothing where the kernel does not say.
std::optional<bool> are_one_open_file(int first, int second) noexcept {
  const io_result same = kernel(SYS_fcntl, first, dupfd_query, second);
  if (same.ok()) {
    return same.value() == 1;
  }
  const io_result self = kernel(SYS_getpid);
  const io_result order = kernel(SYS_kcmp, self.value(), self.value(), KCMP_FILE, first, second);
  return order.ok() ? std::optional(order.value() == 0) : std::nullopt;
}

}  // namespace

// An answer of the kernel's is about the files that the numbers stand for now. That of the one under way may
// have been closed behind the hub's back: then the identities are all that is known. (Where the same file was
// opened anew under that number nothing shows it, and who comes by a duplicate of the old one is not told to
// wait.)
disk_transfers::entry* disk_transfers::find(int fd) noexcept {
  const std::optional<file_identity> file = identity_of(fd);
  const auto is_same = [&](const entry& e) {
    if (file && e.file_ && *file != *e.file_) {
      return false;
    }
    return e.fd_ == fd || are_one_open_file(fd, e.fd_).value_or(true) || identity_of(e.fd_) != e.file_;
  };
  entry* found = nullptr;
  entries_.for_each([&](entry& e) {
    if (found == nullptr && is_same(e)) {
      found = &e;
    }
  });
  return found;
}

}  // namespace annulet::detail
