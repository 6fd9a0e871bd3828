// Calls that the ring carries out, and those that it must leave to a thread. uring_engine.cpp has the rest.
//
// An open is a thread's because the ring opens with O_NONBLOCK where it need not wait for the disk: it does
// not wait for a FIFO's other side then, and says ENXIO where that is missing. Its workers would wait, and
// are so few that those who wait for a peer could keep all others, the peer's among them, from beginning. A
// send that has to be whole is one because the ring makes it in parts.
#include "uring_engine.hpp"

#include <cstdint>
#include <new>

namespace annulet::detail {

void uring_engine::start(request& r, const operation& what) noexcept {
  if (what.needs_thread()) {
    start_on_thread(r, what);
    return;
  }
  io_uring_sqe& entry = sqe();
  switch (what.what) {
    case operation::call::readv:
      io_uring_prep_readv(&entry, what.fd, what.vectors, what.vector_count, what.position);
      break;
    case operation::call::writev:
      io_uring_prep_writev(&entry, what.fd, what.vectors, what.vector_count, what.position);
      break;
    case operation::call::accept:
      io_uring_prep_accept(&entry, what.fd, what.address, what.address_size, what.flags);
      break;
    case operation::call::connect:
      io_uring_prep_connect(&entry, what.fd, what.address, *what.address_size);
      break;
    case operation::call::fsync:
    case operation::call::fdatasync:
      io_uring_prep_fsync(&entry, what.fd,
                          what.what == operation::call::fdatasync ? IORING_FSYNC_DATASYNC : 0U);
      break;
    case operation::call::statx:
      io_uring_prep_statx(&entry, what.fd, what.path, what.flags, what.mode, what.about);
      break;
    case operation::call::close:
    case operation::call::open:
    case operation::call::sendmsg:
      break;
  }
  if (what.by_worker) {
    entry.flags |= IOSQE_ASYNC;
  }
  io_uring_sqe_set_data64(&entry, tag_of(r));
  ++requests_;
  unsubmitted_ = true;
}

void uring_engine::start_on_thread(request& r, const operation& what) noexcept {
  auto* const call = new (std::nothrow) threaded_call(r, what, nullptr);
  r.carrier = call;
  if (call == nullptr) {
    r.complete(io_result(-ENOMEM));
  } else {
    (void)calls_->submit(*call);
  }
}

void uring_engine::cancel(request& r) noexcept {
  if (r.carrier != nullptr) {
    calls_->cancel(*static_cast<threaded_call*>(r.carrier));
    return;
  }
  io_uring_sqe& entry = sqe();
  io_uring_prep_cancel64(&entry, tag_of(r), 0);
  io_uring_sqe_set_data64(&entry, tag{kind::nobody, 0, 0}.packed());
  if (ring_.can_skip_success()) {
    entry.flags |= IOSQE_CQE_SKIP_SUCCESS;
  }
  unsubmitted_ = true;
}

}  // namespace annulet::detail
