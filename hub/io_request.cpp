// The parks of a call that are not for an event: for what the kernel carries out, and for what nothing tells
// of.

#include "io_call.hpp"

#include "hub_core.hpp"
#include "syscalls.hpp"

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>

namespace annulet::detail {

namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

bool says_ready(const operation& what) noexcept {
  const bool writes = what.what == operation::call::writev;
  std::array<pollfd, 1> file{pollfd{what.fd, static_cast<short>(writes ? POLLOUT : POLLIN), 0}};
  const io_result ready = poll_now(file);
  return ready.ok() && ready.value() != 0;
}

}  // namespace

bool io_call::rest(deadline until) {
  waiter w(hub_.fibers().running(), name_, fd_);
  (void)hub_.fibers().park(w, std::min(until, deadline(milliseconds(1))), wakers::outside);
  require_open();
  return !until.reached();
}

// Told as who waits for an event is, should the number be closed. One may come, and is as good as none.
bool io_call::await_transfer(deadline until) {
  disk_transfers::entry* const other = hub_.transfers().find(fd_);
  if (other == nullptr) {
    return true;  // its number has another file since a moment ago
  }
  control_block& self = hub_.fibers().running();
  waiter w(self, name_, fd_);
  const sleeping here(file_->side(direction_), w, self);
  other->wait_with(w);
  const wake_reason why = hub_.fibers().park(w, until, wakers::outside);
  require_open();
  return why != wake_reason::timed_out;
}

bool io_call::gives_way() {
  if (!hub_.transfers().hand_over()) {
    return false;
  }
  hub_.fibers().yield();
  require_open();
  return true;
}

wake_reason io_call::await_completion(request& r, deadline until, park_function park) {
  if (r.done()) {
    return wake_reason::ready;
  }
  waiter w(hub_.fibers().running(), name_, fd_);
  r.wait_with(&w);
  const wake_reason why = (hub_.fibers().*park)(w, until, wakers::outside);
  r.wait_with(nullptr);
  return why;
}

// Returns when the kernel is done with it. A cancellation misses a request that is just going from a worker
// thread of the ring's to the poll that it waits on, or back, and what a disk has begun it cannot end: it is
// repeated, ever less often.
void io_call::call_off(request& r) {
  r.give_up();
  milliseconds patience(1);
  do {
    hub_.io().cancel(r);
    (void)await_completion(r, patience, &scheduler::park_uninterrupted);
    patience = std::min(2 * patience, milliseconds(64));
  } while (!r.done());
}

std::optional<io_result> io_call::perform(const operation& what, deadline until) {
  // A worker that finds the file ready has it done in less, on a machine however busy.
  constexpr milliseconds grace(50);
  scheduler& fibers = hub_.fibers();
  for (;;) {
    fibers.throw_if_interrupted();
    if (file_->closing()) {  // a dup2 onto it waits until no request is left
      throw_closed(name_, fd_);
    }
    request r;
    file_->requests_.push_back(r);
    std::optional<disk_transfers::entry> on_disk;
    if (what.on_disk) {
      on_disk.emplace(hub_.transfers(), what.fd, what.file);
    }
    hub_.io().start(r, what);
    // A disk waits for no peer: a transfer has its look, however long that takes, for a disk takes notice of
    // no interruption. But there are regular files behind which somebody has to act.
    wake_reason why = await_completion(r, what.on_disk && until.is_past() ? deadline(seconds(1)) : until,
                                       &scheduler::park_and_tell);
    const bool by_thread = what.by_worker || what.what == operation::call::accept;
    if (why == wake_reason::timed_out && by_thread && says_ready(what)) {
      why = await_completion(r, grace, &scheduler::park_and_tell);  // who carries it out has yet to look
    }
    if (!r.done()) {
      call_off(r);
    }
    on_disk.reset();
    r.unlink();
    file_->request_ended();
    const int error = r.result().error();
    const bool called_off = error == ECANCELED && why != wake_reason::ready;
    if (!called_off && error != EINTR && error != EAGAIN) {
      return r.result();
    }
    require_open();
    if (error == EAGAIN) {
      return r.result();
    }
    if (why == wake_reason::timed_out) {
      return std::nullopt;
    }
    if (why == wake_reason::interrupted) {
      fibers.throw_interruption();
    }
    // A signal, and nobody wants it to end: again.
  }
}

}  // namespace annulet::detail
