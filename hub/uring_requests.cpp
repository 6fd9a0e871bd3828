// Calls that the ring carries out, and those that it must leave to a thread. uring_engine.cpp has the rest.
#include "uring_engine.hpp"

#include <cstdint>
#include <new>

namespace annulet::detail {

void uring_engine::start(request& r, const operation& what) noexcept {
  if (what.what == operation::call::close || what.on_disk) {
    start_on_thread(r, what);
    return;
  }
  io_uring_sqe& entry = sqe();
  constexpr auto own_position = static_cast<std::uint64_t>(-1);
  switch (what.what) {
    case operation::call::readv:
      io_uring_prep_readv(&entry, what.fd, what.vectors, what.vector_count, own_position);
      break;
    case operation::call::writev:
      io_uring_prep_writev(&entry, what.fd, what.vectors, what.vector_count, own_position);
      break;
    case operation::call::accept:
      io_uring_prep_accept(&entry, what.fd, what.address, what.address_size, what.flags);
      break;
    case operation::call::connect:
      io_uring_prep_connect(&entry, what.fd, what.address, *what.address_size);
      break;
    case operation::call::close:
      break;
  }
  if (what.by_worker) {
    entry.flags |= IOSQE_ASYNC;
  }
  io_uring_sqe_set_data64(&entry, tag_of(r));
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
