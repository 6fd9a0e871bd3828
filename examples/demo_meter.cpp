#include "demo_meter.hpp"

#include <linux/perf_event.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>
#include <algorithm>
#include <cerrno>
#include <cstring>
#include <ctime>
#include <fstream>
#include <stdexcept>
#include <system_error>

namespace demo {

void fail(const std::string& what) { throw std::system_error(errno, std::generic_category(), what); }

std::chrono::nanoseconds thread_cpu() {
  timespec used{};
  ::clock_gettime(CLOCK_THREAD_CPUTIME_ID, &used);
  return std::chrono::seconds(used.tv_sec) + std::chrono::nanoseconds(used.tv_nsec);
}

std::chrono::nanoseconds waited_for_cpu() {
  std::int64_t ran = 0, waited = 0;
  std::ifstream("/proc/thread-self/schedstat") >> ran >> waited;
  return std::chrono::nanoseconds(waited);
}

std::optional<two_cpus> choose_cpus() {
  cpu_set_t allowed;
  CPU_ZERO(&allowed);
  if (::sched_getaffinity(0, sizeof allowed, &allowed) != 0 || CPU_COUNT(&allowed) < 2) {
    return std::nullopt;
  }
  int first = 0;
  while (!CPU_ISSET(first, &allowed)) {
    ++first;
  }
  int second = first + 1;
  while (!CPU_ISSET(second, &allowed)) {
    ++second;
  }
  return two_cpus{first, second};
}

void pin_to(std::optional<int> cpu) {
  if (!cpu) {
    return;
  }
  cpu_set_t only;
  CPU_ZERO(&only);
  CPU_SET(*cpu, &only);
  (void)::sched_setaffinity(0, sizeof only, &only);  // what is measured is less steady without; nothing else
}

void need_descriptors(std::size_t count) {
  rlimit limit{};
  if (::getrlimit(RLIMIT_NOFILE, &limit) != 0) {
    fail("getrlimit");
  }
  if (limit.rlim_cur < count) {
    limit.rlim_cur = std::min<rlim_t>(count, limit.rlim_max);
    (void)::setrlimit(RLIMIT_NOFILE, &limit);
  }
  if (limit.rlim_cur < count) {
    throw std::runtime_error(
        "this needs " + std::to_string(count) + " descriptors, and the process may have no more than " +
        std::to_string(limit.rlim_max) + " (ulimit -Hn); fewer --connections need fewer");
  }
}

namespace {

std::optional<std::uint64_t> tracepoint_number() {
  for (const char* const tracefs : {"/sys/kernel/tracing", "/sys/kernel/debug/tracing"}) {
    std::uint64_t number = 0;
    if (std::ifstream(std::string(tracefs) + "/events/raw_syscalls/sys_enter/id") >> number) {
      return number;
    }
  }
  return std::nullopt;
}

// Often nobody has mounted tracefs. Root may, in a mount namespace of this process alone, so that the machine
// is not changed.
bool mount_tracefs_for_us() {
  return ::unshare(CLONE_NEWNS) == 0 && ::mount("none", "/", nullptr, MS_REC | MS_PRIVATE, nullptr) == 0 &&
         ::mount("tracefs", "/sys/kernel/tracing", "tracefs", 0, nullptr) == 0;
}

}  // namespace

syscall_counter::syscall_counter() {
  auto number = tracepoint_number();
  if (!number && !mount_tracefs_for_us()) {
    why_not_ = std::string("tracefs cannot be read, nor mounted: ") + std::strerror(errno);
    return;
  }
  number = number ? number : tracepoint_number();
  if (!number) {
    why_not_ = "this kernel has no tracepoint for system calls";
    return;
  }
  perf_event_attr wanted{};
  wanted.type = PERF_TYPE_TRACEPOINT;
  wanted.size = sizeof wanted;
  wanted.config = *number;
  fd_ = static_cast<int>(::syscall(SYS_perf_event_open, &wanted, 0, -1, -1, PERF_FLAG_FD_CLOEXEC));
  if (fd_ < 0) {
    why_not_ = std::string("perf_event_open: ") + std::strerror(errno);
  }
}

syscall_counter::~syscall_counter() {
  if (fd_ >= 0) {
    ::close(fd_);
  }
}

std::optional<std::uint64_t> syscall_counter::count() const {
  std::uint64_t count = 0;
  if (fd_ < 0 || ::read(fd_, &count, sizeof count) != sizeof count) {
    return std::nullopt;
  }
  return count;
}

}  // namespace demo
