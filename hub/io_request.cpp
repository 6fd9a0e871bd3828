// The parks of a call that are not for an event: for what the kernel carries out, and for what nothing tells
// of.

#include "io_call.hpp"

#include "carry_out.hpp"
#include "hub_core.hpp"
#include "syscalls.hpp"

#include <annulet_plants.hpp>

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>

namespace annulet::detail {

namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

bool says_ready(const operation& what) noexcept {
  if (what.path != nullptr) {
    return false;
  }
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

wake_reason carrying::await_completion(deadline until, park_function park) {
  if (request_.done()) {
    return wake_reason::ready;
  }
  waiter w(hub_.fibers().running(), name_, fd_);
  request_.wait_with(&w);
  std::optional<parked_call> self;
  if (signals_ != nullptr && park == &scheduler::park_and_tell) {
    hub_.signals().add(self.emplace(w, signals_->mask, signals_->restarts));
  }
  const wake_reason why = (hub_.fibers().*park)(w, until, wakers::outside);
  if (self) {
    hub_.signals().remove(*self);
  }
  request_.wait_with(nullptr);
  return why;
}

// Returns when the kernel is done with it. A cancellation misses a request that is just going from a worker
// thread of the ring's to the poll that it waits on, or back, and what a disk has begun it cannot end: it is
// repeated, ever less often.
void carrying::call_off() {
  request_.give_up();
  milliseconds patience(1);
  do {
    hub_.io().cancel(request_);
    (void)await_completion(patience, &scheduler::park_uninterrupted);
    patience = std::min(2 * patience, milliseconds(64));
  } while (!request_.done());
}

void carrying::out(const operation& what, deadline until) {
  // A worker that finds the file ready has it done in less, on a machine however busy.
  constexpr milliseconds grace(50);
  hub_.io().start(request_, what);
  // A disk waits for no peer: a transfer has its look, however long that takes, for a disk takes notice of
  // no interruption. But there are regular files behind which somebody has to act.
  why_ = await_completion(what.on_disk && until.is_past() ? deadline(seconds(1)) : until, park_);
  const bool by_thread = what.by_worker || what.what == operation::call::accept;
  if (why_ == wake_reason::timed_out && by_thread && says_ready(what)) {
    why_ = await_completion(grace, park_);  // who carries it out has yet to look
  }
  if (!request_.done() && !planted(plant::left_early)) {
    call_off();
  }
}

void carrying::out_on(fd_state& file, const operation& what, deadline until) {
  file.requests_.push_back(request_);
  std::optional<disk_transfers::entry> on_disk;
  if (what.on_disk && what.at_own_position()) {
    on_disk.emplace(hub_.transfers(), what.fd, what.file);
  }
  out(what, until);
  on_disk.reset();
  request_.unlink();
  file.request_ended();
}

std::optional<io_result> carry_out(hub_core& hub, const char* name, const operation& what, deadline until) {
  for (;;) {
    hub.fibers().throw_if_interrupted();
    request r;
    carrying call(hub, r, name, waiter::no_descriptor);
    call.out(what, until);
    if (!call.ended_early()) {
      return r.result();
    }
    if (call.why() == wake_reason::timed_out) {
      return std::nullopt;
    }
    if (call.why() == wake_reason::interrupted) {
      hub.fibers().throw_interruption();
    }
  }
}

std::optional<io_result> io_call::perform(const operation& what, deadline until) {
  scheduler& fibers = hub_.fibers();
  for (;;) {
    fibers.throw_if_interrupted();
    if (file_->closing()) {  // a dup2 onto it waits until no request is left
      throw_closed(name_, fd_);
    }
    request r;
    carrying call(hub_, r, name_, fd_);
    call.out_on(*file_, what, until);
    const bool again = r.result().error() == EAGAIN;
    if (!call.ended_early() && !again) {
      return r.result();
    }
    require_open();
    if (again) {
      return r.result();
    }
    if (call.why() == wake_reason::timed_out) {
      return std::nullopt;
    }
    if (call.why() == wake_reason::interrupted) {
      fibers.throw_interruption();
    }
    // A signal, and nobody wants it to end: again.
  }
}

}  // namespace annulet::detail
