#include "syscall_counter.hpp"

#include <linux/perf_event.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/syscall.h>
#include <unistd.h>
#include <cerrno>
#include <cstring>
#include <fstream>
#include <utility>

namespace bench {
namespace {

std::string reason;

std::optional<std::uint64_t> read_tracepoint_id() {
  for (const char* path : {"/sys/kernel/tracing/events/raw_syscalls/sys_enter/id",
                           "/sys/kernel/debug/tracing/events/raw_syscalls/sys_enter/id"}) {
    std::uint64_t id = 0;
    if (std::ifstream(path) >> id) {
      return id;
    }
  }
  return std::nullopt;
}

// Where tracefs is not mounted, root can mount it in a mount namespace of this process alone, which leaves
// the machine as it was.
std::optional<std::uint64_t> find_tracepoint_id() {
  if (auto id = read_tracepoint_id()) {
    return id;
  }
  if (unshare(CLONE_NEWNS) != 0 || mount("none", "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0 ||
      mount("tracefs", "/sys/kernel/tracing", "tracefs", 0, nullptr) != 0) {
    reason = std::string("tracefs is not readable and cannot be mounted: ") + std::strerror(errno);
    return std::nullopt;
  }
  auto id = read_tracepoint_id();
  if (!id) {
    reason = "the kernel has no raw_syscalls tracepoints";
  }
  return id;
}

}  // namespace

std::optional<syscall_counter> syscall_counter::open() {
  static const std::optional<std::uint64_t> id = find_tracepoint_id();
  if (!id) {
    return std::nullopt;
  }
  perf_event_attr attributes{};
  attributes.type = PERF_TYPE_TRACEPOINT;
  attributes.size = sizeof attributes;
  attributes.config = *id;
  attributes.disabled = 1;
  attributes.inherit = 1;  // by threads begun from here on: a turn may be made by one
  const long fd = syscall(SYS_perf_event_open, &attributes, 0, -1, -1, PERF_FLAG_FD_CLOEXEC);
  if (fd < 0) {
    reason = std::string("perf_event_open: ") + std::strerror(errno);
    return std::nullopt;
  }
  return syscall_counter(static_cast<int>(fd));
}

const std::string& syscall_counter::why_not() { return reason; }

syscall_counter::syscall_counter(syscall_counter&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}

syscall_counter::~syscall_counter() {
  if (fd_ >= 0) {
    ::close(fd_);
  }
}

void syscall_counter::start() {
  ioctl(fd_, PERF_EVENT_IOC_RESET, 0);
  ioctl(fd_, PERF_EVENT_IOC_ENABLE, 0);
}

std::uint64_t syscall_counter::stop() {
  ioctl(fd_, PERF_EVENT_IOC_DISABLE, 0);
  std::uint64_t count = 0;
  if (::read(fd_, &count, sizeof count) != sizeof count || count == 0) {
    return 0;
  }
  return count - 1;  // the ioctl that ended the count entered the kernel while it still ran
}

}  // namespace bench
