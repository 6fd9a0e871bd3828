// In place of what the linker would find in liburing, libc and libstdc++ (--wrap).
#include "kernel.hpp"

#include <cstdint>

#include <time.h>

using simulated::kernel;
using simulated::second;

extern "C" {

int __real_io_uring_queue_init_params(unsigned entries, io_uring* ring, io_uring_params* params);
void __real_io_uring_queue_exit(io_uring* ring);
int __real_io_uring_register_ring_fd(io_uring* ring);
int __real_io_uring_ring_dontfork(io_uring* ring);
int __real_clock_gettime(clockid_t clock, timespec* time);
std::int64_t __real__ZNSt6chrono3_V212steady_clock3nowEv();

int __wrap_io_uring_queue_init_params(unsigned entries, io_uring* ring, io_uring_params* params) {
  kernel* const here = kernel::current();
  return here != nullptr ? here->set_up(entries, ring, params)
                         : __real_io_uring_queue_init_params(entries, ring, params);
}

void __wrap_io_uring_queue_exit(io_uring* ring) {
  kernel* const here = kernel::current();
  here != nullptr ? here->tear_down(ring) : __real_io_uring_queue_exit(ring);
}

int __wrap_io_uring_register_ring_fd(io_uring* ring) {
  return kernel::current() != nullptr ? 1 : __real_io_uring_register_ring_fd(ring);
}

int __wrap_io_uring_ring_dontfork(io_uring* ring) {
  return kernel::current() != nullptr ? 0 : __real_io_uring_ring_dontfork(ring);
}

int __wrap_clock_gettime(clockid_t clock, timespec* time) {
  const kernel* const here = kernel::current();
  if (here == nullptr) {
    return __real_clock_gettime(clock, time);
  }
  *time = {here->now() / second, here->now() % second};
  return 0;
}

std::int64_t __wrap__ZNSt6chrono3_V212steady_clock3nowEv() {
  const kernel* const here = kernel::current();
  return here != nullptr ? here->now() : __real__ZNSt6chrono3_V212steady_clock3nowEv();
}
}
