// What can be chosen about a hub. Every default is meant to be right.
#pragma once

#include <annulet/runtime/stack.hpp>

#include <chrono>
#include <cstddef>

namespace annulet {

// Which of io_uring's set-up flags to begin with. Where the kernel does not know them the next step is taken.
// The environment variable ANNULET_RING_MODE names one for hubs whose options leave it at the default.
enum class ring_mode {
  defer_taskrun,  // Linux 6.1: completions are made when the hub looks, in batches
  coop_taskrun,   // Linux 5.19: whenever the thread enters the kernel anyway
  submit_all,     // Linux 5.18
  plain,
};

// An engine that is named, here or by the environment, and refused is an error: std::system_error.
enum class engine_choice {
  // What the environment variable ANNULET_ENGINE names, `uring` or `epoll`. Without it io_uring; and epoll
  // where the kernel, a limit on memory or a seccomp filter refuses that, as hub::engine_report() then tells.
  // That no descriptor is to be had (EMFILE, ENFILE) is an error all the same: either engine needs two.
  automatic,
  uring,
  epoll,
};

struct hub_options {
  engine_choice engine = engine_choice::automatic;
  unsigned sq_entries = 256;  // 1 to 32,768; the kernel rounds up to a power of two
  // At least 2x sq_entries, at most 65,536; beyond what fits the kernel keeps a list.
  unsigned cq_entries = 4096;
  ring_mode mode = ring_mode::defer_taskrun;
  std::size_t stack_size = default_stack_size;  // of fibers that ask for none, in bytes
  stack_guard guard = stack_guard::best;
  // Whether a fiber that runs over its stack is named. That takes a handler for SIGSEGV while there is a hub,
  // which passes on what it gets to one that was there before, and a signal stack for each thread with a hub.
  // What a program installs over it later stands: runtime/stack_overflow.hpp.
  overflow_report overflows = overflow_report::on_stderr;
  unsigned look_every = 64;  // switches between two looks at the kernel while fibers are busy; at least 1
  // A signal on which the hub lists its fibers on stderr, as dump_fibers() does; 0 for none, and none that a
  // fault raises. It must not be blocked on all threads. What handled it before is put back when the last hub
  // that wants it ends; what the program has installed since then stands.
  int dump_signal = 0;
  // A fiber that runs for longer than this without parking or yielding is reported on stderr; 0 for never.
  // Measuring costs a look at the clock a switch.
  std::chrono::nanoseconds slow_slice = std::chrono::nanoseconds::zero();
  // How long ~hub waits for killed fibers to end. Then it names them on stderr and aborts.
  std::chrono::nanoseconds shutdown_limit = std::chrono::seconds(5);
};

}  // namespace annulet
