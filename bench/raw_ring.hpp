// A bare io_uring, set up as a hub sets up its own, for the servers that are written on liburing itself.
#pragma once

#include <liburing.h>
#include <cerrno>
#include <cstring>

#include "harness.hpp"

namespace bench {

class raw_ring {
 public:
  raw_ring() {
    io_uring_params parameters{};
    parameters.flags = IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN | IORING_SETUP_TASKRUN_FLAG |
                       IORING_SETUP_SUBMIT_ALL | IORING_SETUP_CQSIZE | IORING_SETUP_CLAMP;
    parameters.cq_entries = 4096;
    int error = io_uring_queue_init_params(256, &ring_, &parameters);
    if (error == -EINVAL) {
      parameters = {};
      parameters.flags = IORING_SETUP_CQSIZE | IORING_SETUP_CLAMP;
      parameters.cq_entries = 4096;
      error = io_uring_queue_init_params(256, &ring_, &parameters);
    }
    if (error != 0) {
      fail("io_uring_queue_init: %s", std::strerror(-error));
    }
  }
  ~raw_ring() { io_uring_queue_exit(&ring_); }
  raw_ring(const raw_ring&) = delete;
  raw_ring& operator=(const raw_ring&) = delete;

  io_uring_sqe& sqe() {
    io_uring_sqe* entry = io_uring_get_sqe(&ring_);
    if (entry == nullptr) {
      io_uring_submit(&ring_);
      entry = io_uring_get_sqe(&ring_);
    }
    if (entry == nullptr) {
      fail("io_uring: the submission queue stays full");
    }
    return *entry;
  }

  // Submits, waits for one completion at least, and calls each(completion) for all that there are.
  template <class Each>
  void wait(Each&& each) {
    const int error = io_uring_submit_and_wait(&ring_, 1);
    if (error < 0 && error != -EINTR) {
      fail("io_uring_submit_and_wait: %s", std::strerror(-error));
    }
    io_uring_cqe* completion = nullptr;
    unsigned head = 0, count = 0;
    io_uring_for_each_cqe(&ring_, head, completion) {
      each(*completion);
      ++count;
    }
    io_uring_cq_advance(&ring_, count);
  }

 private:
  io_uring ring_{};
};

}  // namespace bench
