#include "ring.hpp"

#include <annulet/runtime/check.hpp>

#include <array>
#include <cstddef>
#include <cstdint>
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

std::string name_of(int error) {
  const char* const name = ::strerrorname_np(error);
  return name != nullptr ? name : "error " + std::to_string(error);
}

// "EPERM (Operation not permitted)".
std::string in_words(int error) { return name_of(error) + " (" + std::strerror(error) + ")"; }

const char* advice(int error) noexcept {
  switch (error) {
    case EPERM:
    case EACCES:
      return "io_uring is forbidden here: allow io_uring_setup, io_uring_enter and io_uring_register in the "
             "container's seccomp profile, or see sysctl kernel.io_uring_disabled";
    case ENOSYS:
      return "this kernel, or the container's seccomp profile, knows no io_uring; Linux 5.13 or newer is "
             "needed";
    case ENOMEM:
      return "no memory for the ring: raise the container's limit, or RLIMIT_MEMLOCK on kernels before 5.12";
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

[[noreturn]] void refuse(const char* call, int error, const engine_info& info) {
  if (error == EMFILE || error == ENFILE) {
    throw std::system_error(error, std::generic_category(),
                            std::string("annulet: hub: ") + call + ": " + advice(error));
  }
  throw ring_refused(call, error, info.refused);
}

void require_in_range(const char* what, unsigned value, unsigned least, unsigned most) {
  if (value < least || value > most) {
    throw std::invalid_argument(std::string("annulet: hub_options::") + what + " is " +
                                std::to_string(value) + ", must be from " + std::to_string(least) + " to " +
                                std::to_string(most));
  }
}

}  // namespace

std::string words_on_lost_ring(int error) {
  const std::string lost =
      "hub: io_uring_enter: " + in_words(error) + ": the ring, which had worked until now, is lost. ";
  if (error == EBADF) {
    return lost + "Its descriptor was closed, and not by the hub.";
  }
  return lost + advice(error) + ". ANNULET_ENGINE=epoll does without a ring.";
}

void ring::require_valid(const hub_options& options) {
  require_in_range("sq_entries", options.sq_entries, 1, 32768);
  require_in_range("cq_entries", options.cq_entries, options.sq_entries * 2, 65536);
  if (options.mode < ring_mode::defer_taskrun || options.mode > ring_mode::plain) {
    throw std::invalid_argument("annulet: hub_options::mode is no ring_mode");
  }
}

ring_refused::ring_refused(const char* call, int error, std::vector<std::string> before)
    : std::system_error(error, std::generic_category(),
                        std::string("annulet: hub: ") + call + ": " + name_of(error) + ": " + advice(error)),
      reasons_(std::move(before)) {
  reasons_.push_back(std::string(call) + ": " + in_words(error) + ": " + advice(error));
}

ring::ring(const hub_options& options, engine_info& info) {
  set_up(options, info);
  try {
    // Both are older than multishot poll, which everything here stands on (Linux 5.13).
    if ((ring_.features & IORING_FEAT_EXT_ARG) == 0 || (ring_.features & IORING_FEAT_RSRC_TAGS) == 0) {
      refuse("io_uring_setup", EINVAL, info);
    }
    // Entry i of the queue is entry i of the array, always.
    for (unsigned i = 0; i < ring_.sq.ring_entries; ++i) {
      ring_.sq.array[i] = i;
    }
    register_itself(info);
    confine(info);
    no_iowait_ = (ring_.features & feature_no_iowait) != 0 ? enter_no_iowait : 0;
    if (no_iowait_ != 0) {
      info.features.emplace_back("no iowait");
    }
    if (can_skip_success()) {
      info.features.emplace_back("silent success");
    }
    try_nop(info);
  } catch (...) {
    tear_down();
    throw;
  }
}

// liburing maps and unmaps this memory by system calls of its own, which the thread sanitizer does not see:
// it would hold the uses of two rings against each other where the later one has got the earlier one's pages.
void ring::for_each_page(void (*fn)(void* page)) const noexcept {
  constexpr std::size_t page = 4096;  // or more: then some are told twice
  const auto each_of = [fn](void* start, std::size_t length) {
    for (std::size_t at = 0; at < length; at += page) {
      fn(static_cast<std::byte*>(start) + at);
    }
  };
  each_of(ring_.sq.ring_ptr, ring_.sq.ring_sz);
  each_of(ring_.cq.ring_ptr, ring_.cq.ring_sz);
  each_of(ring_.sq.sqes, ring_.sq.ring_entries * sizeof(io_uring_sqe));
}

void ring::leave_to_parent() noexcept { (void)kernel(SYS_close, ring_.ring_fd); }

void ring::tear_down() noexcept {
  if constexpr (built_in == sanitizer::thread) {
    for_each_page(__tsan_release);
  }
  io_uring_queue_exit(&ring_);
}

// With the most of what is asked for that the kernel accepts. Leaves nothing behind where it throws.
void ring::set_up(const hub_options& options, engine_info& info) {
  for (const step& s : ladder()) {
    if (s.mode < options.mode) {
      continue;
    }
    io_uring_params params{};
    params.flags = s.flags | IORING_SETUP_CQSIZE | IORING_SETUP_CLAMP | IORING_SETUP_R_DISABLED;
    params.cq_entries = options.cq_entries;
    engine_info made{"io_uring", s.names, {}, {}, 0, 0};  // before there is a ring, for memory may run out
    const int error = -io_uring_queue_init_params(options.sq_entries, &ring_, &params);
    if (error == 0) {
      // A child must not reach the parent's requests through inherited memory. Refused only where there is no
      // fork to fear.
      (void)io_uring_ring_dontfork(&ring_);
      if constexpr (built_in == sanitizer::thread) {
        for_each_page(__tsan_acquire);
      }
      made.refused = std::move(info.refused);
      made.sq_entries = params.sq_entries;
      made.cq_entries = params.cq_entries;
      info = std::move(made);
      return;
    }
    if (error != EINVAL) {
      refuse("io_uring_setup", error, info);
    }
    info.refused.push_back("io_uring_setup with " + joined(s.names) + ": " + in_words(error));
  }
  refuse("io_uring_setup", EINVAL, info);
}

// Spares each enter the look-up of the descriptor, since 5.18; without it everything works as well. But who
// forbids this call forbids io_uring, and not just a saving.
void ring::register_itself(engine_info& info) {
  const int registered = io_uring_register_ring_fd(&ring_);
  if (registered == 1) {
    enter_flags_ = IORING_ENTER_REGISTERED_RING;
    info.features.emplace_back("registered ring");
    return;
  }
  if (registered == -EPERM || registered == -EACCES || registered == -ENOSYS) {
    refuse("io_uring_register", -registered, info);
  }
  info.refused.push_back("io_uring_register of the ring: " + in_words(-registered));
}

// From here on the ring carries out what the engine asks for and nothing else, whoever gets at its memory.
void ring::confine(const engine_info& info) {
  constexpr std::array requests = {
      IORING_OP_NOP,    IORING_OP_POLL_ADD, IORING_OP_POLL_REMOVE, IORING_OP_READV, IORING_OP_WRITEV,
      IORING_OP_ACCEPT, IORING_OP_CONNECT,  IORING_OP_FSYNC,       IORING_OP_STATX, IORING_OP_ASYNC_CANCEL};
  std::array<io_uring_restriction, requests.size() + 2> allowed{};
  for (std::size_t i = 0; i < requests.size(); ++i) {
    allowed[i].opcode = IORING_RESTRICTION_SQE_OP;
    allowed[i].sqe_op = static_cast<std::uint8_t>(requests[i]);
  }
  allowed[requests.size()].opcode = IORING_RESTRICTION_SQE_FLAGS_ALLOWED;
  allowed[requests.size()].sqe_flags = IOSQE_ASYNC | IOSQE_CQE_SKIP_SUCCESS;
  allowed.back().opcode = IORING_RESTRICTION_REGISTER_OP;
  allowed.back().register_op = IORING_UNREGISTER_RING_FDS;  // its end
  // By hand, for liburing 2.3 forgets to export its own.
  const int fd = ring_.ring_fd;
  int error =
      kernel(SYS_io_uring_register, fd, IORING_REGISTER_RESTRICTIONS, allowed.data(), allowed.size()).error();
  if (error == 0) {
    error = kernel(SYS_io_uring_register, fd, IORING_REGISTER_ENABLE_RINGS, nullptr, 0).error();
  }
  if (error != 0) {
    refuse("io_uring_register", error, info);
  }
}

// A filter may allow the set-up and refuse the enter, or pretend that it was made.
void ring::try_nop(const engine_info& info) {
  io_uring_prep_nop(next_sqe());
  constexpr int patience = 1000;  // with a kernel short of memory, and with signals
  for (int turn = 0;; ++turn) {
    const int error = enter(1, IORING_ENTER_GETEVENTS, nullptr, nullptr);
    if (reap([](std::uint64_t, int, unsigned) {}, [](std::uint64_t) {}, [](std::uint64_t) {}) != 0) {
      return;
    }
    const bool passing = error == EINTR || error == EAGAIN || error == ENOMEM || error == EBUSY;
    if (!passing || turn == patience) {
      refuse("io_uring_enter", error == 0 ? EIO : error, info);
    }
  }
}

}  // namespace annulet::detail
