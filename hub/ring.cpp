#include "ring.hpp"

#include <annulet/runtime/check.hpp>

#include <cstring>
#include <stdexcept>
#include <string>
#include <system_error>

namespace annulet::detail {

namespace {

// Newer than Debian 12's headers: Linux 6.15.
constexpr unsigned enter_no_iowait = 1U << 7;
constexpr unsigned feature_no_iowait = 1U << 17;

struct step {
  ring_mode mode;
  unsigned flags;
  std::vector<std::string> names;
};

const std::vector<step>& ladder() {
  static const std::vector<step> steps = {
      {ring_mode::defer_taskrun,
       IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN | IORING_SETUP_TASKRUN_FLAG |
           IORING_SETUP_SUBMIT_ALL,
       {"SINGLE_ISSUER", "DEFER_TASKRUN", "TASKRUN_FLAG", "SUBMIT_ALL"}},
      {ring_mode::coop_taskrun,
       IORING_SETUP_COOP_TASKRUN | IORING_SETUP_TASKRUN_FLAG | IORING_SETUP_SUBMIT_ALL,
       {"COOP_TASKRUN", "TASKRUN_FLAG", "SUBMIT_ALL"}},
      {ring_mode::submit_all, IORING_SETUP_SUBMIT_ALL, {"SUBMIT_ALL"}},
      {ring_mode::plain, 0, {}},
  };
  return steps;
}

std::string joined(const std::vector<std::string>& names) {
  std::string text;
  for (const std::string& name : names) {
    text.append(text.empty() ? "" : "|").append(name);
  }
  return text.empty() ? "no flags" : text;
}

const char* advice(int error) noexcept {
  switch (error) {
    case EPERM:
      return "io_uring is forbidden here: allow io_uring_setup, io_uring_enter and io_uring_register in the "
             "container's seccomp profile, or see sysctl kernel.io_uring_disabled";
    case ENOSYS:
      return "this kernel, or the container's seccomp profile, knows no io_uring; Linux 5.13 or newer is "
             "needed";
    case ENOMEM:
      return "no memory for the ring; on kernels before 5.12 raise RLIMIT_MEMLOCK";
    case EMFILE:
      return "this process may open no more descriptors: raise RLIMIT_NOFILE";
    case ENFILE:
      return "the system may open no more files: raise sysctl fs.file-max";
    case EINVAL:
      return "the kernel accepts none of the set-ups that annulet can use; Linux 5.13 or newer is needed";
    default:
      return "io_uring cannot be used";
  }
}

[[noreturn]] void refused(const char* call, int error) {
  throw std::system_error(error, std::generic_category(),
                          std::string("annulet: hub: ") + call + ": " + advice(error));
}

void require_in_range(const char* what, unsigned value, unsigned least, unsigned most) {
  if (value < least || value > most) {
    throw std::invalid_argument(std::string("annulet: hub_options::") + what + " is " +
                                std::to_string(value) + ", must be from " + std::to_string(least) + " to " +
                                std::to_string(most));
  }
}

}  // namespace

void ring::require_valid(const hub_options& options) {
  require_in_range("sq_entries", options.sq_entries, 1, 32768);
  require_in_range("cq_entries", options.cq_entries, options.sq_entries * 2, 65536);
  if (options.mode < ring_mode::defer_taskrun || options.mode > ring_mode::plain) {
    throw std::invalid_argument("annulet: hub_options::mode is no ring_mode");
  }
}

ring::ring(const hub_options& options, engine_info& info) {
  int error = EINVAL;
  for (const step& s : ladder()) {
    if (s.mode < options.mode) {
      continue;
    }
    io_uring_params params{};
    params.flags = s.flags | IORING_SETUP_CQSIZE | IORING_SETUP_CLAMP;
    params.cq_entries = options.cq_entries;
    error = -io_uring_queue_init_params(options.sq_entries, &ring_, &params);
    if (error == 0) {
      info = {"io_uring", s.names, {}, std::move(info.refused), params.sq_entries, params.cq_entries};
      break;
    }
    info.refused.push_back("io_uring_setup with " + joined(s.names) + ": " + std::strerror(error));
    if (error != EINVAL) {
      break;
    }
  }
  if (error != 0) {
    refused("io_uring_setup", error);
  }
  // Both are older than multishot poll, which everything here stands on (Linux 5.13).
  if ((ring_.features & IORING_FEAT_EXT_ARG) == 0 || (ring_.features & IORING_FEAT_RSRC_TAGS) == 0) {
    io_uring_queue_exit(&ring_);
    refused("io_uring_setup", EINVAL);
  }
  // Entry i of the queue is entry i of the array, always.
  for (unsigned i = 0; i < ring_.sq.ring_entries; ++i) {
    ring_.sq.array[i] = i;
  }
  no_iowait_ = (ring_.features & feature_no_iowait) != 0 ? enter_no_iowait : 0;
  // A child must not reach the parent's requests through inherited memory. Refused only where there is no
  // fork to fear.
  io_uring_ring_dontfork(&ring_);
  // Spares each enter the look-up of the descriptor, since 5.18; without it everything works as well.
  if (const int registered = io_uring_register_ring_fd(&ring_); registered == 1) {
    enter_flags_ = IORING_ENTER_REGISTERED_RING;
    info.features.emplace_back("registered ring");
  } else {
    info.refused.push_back(std::string("io_uring_register of the ring: ") + std::strerror(-registered));
  }
  if (no_iowait_ != 0) {
    info.features.emplace_back("no iowait");
  }
  if (can_skip_success()) {
    info.features.emplace_back("silent success");
  }
  // A filter may allow the set-up and refuse the enter.
  io_uring_prep_nop(next_sqe());
  int refusal = EINTR;
  while (refusal == EINTR || refusal == EAGAIN) {
    refusal = enter(1, IORING_ENTER_GETEVENTS, nullptr);
  }
  if (refusal != 0) {
    io_uring_queue_exit(&ring_);
    refused("io_uring_enter", refusal);
  }
  reap([](std::uint64_t, int, unsigned) {}, [](std::uint64_t) {}, [](std::uint64_t) {});
}

int ring::enter(unsigned want, unsigned flags, __kernel_timespec* timeout) noexcept {
  const unsigned to_submit = queued();
  if (to_submit == 0 && flags == 0) {
    return 0;
  }
  io_uring_smp_store_release(ring_.sq.ktail, ring_.sq.sqe_tail);
  ring_.sq.sqe_head = ring_.sq.sqe_tail;
  io_uring_getevents_arg arg{};
  void* extra = nullptr;
  std::size_t extra_size = _NSIG / 8;
  if (timeout != nullptr && want != 0) {
    arg.ts = reinterpret_cast<std::uintptr_t>(timeout);
    extra = &arg;
    extra_size = sizeof(arg);
    flags |= IORING_ENTER_EXT_ARG;
  }
  const int result = io_uring_enter2(static_cast<unsigned>(ring_.enter_ring_fd), to_submit, want,
                                     flags | enter_flags_, static_cast<sigset_t*>(extra), extra_size);
  return result < 0 ? -result : 0;
}

int ring::wait(std::optional<std::int64_t> nanoseconds) noexcept {
  constexpr std::int64_t second = 1'000'000'000;
  __kernel_timespec limit{};
  if (nanoseconds) {
    limit.tv_sec = *nanoseconds / second;
    limit.tv_nsec = *nanoseconds % second;
  }
  return enter(1, IORING_ENTER_GETEVENTS | no_iowait_, nanoseconds ? &limit : nullptr);
}

}  // namespace annulet::detail
