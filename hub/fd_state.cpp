#include "fd_state.hpp"

#include "hub_core.hpp"
#include "syscalls.hpp"

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <string>
#include <system_error>
#include <utility>

namespace annulet::detail {

namespace {

// Without POLLPRI: the ring says it with every byte that comes, urgent or not.
constexpr std::uint16_t for_reading = POLLIN | POLLRDHUP;

}  // namespace

void throw_io_error(int error, const char* call, int fd) {
  throw std::system_error(error, std::generic_category(),
                          std::string("annulet: ") + call + "(" + std::to_string(fd) + ")");
}

// --- the watch

void fd_state::own(file_kind kind) {
  if (!attached()) {
    hub_.attach(*this, number_);
  }
  once_ = false;
  owned_ = true;
  kind_ = kind;
  hung_up_ = false;
  for (lane& l : lanes_) {
    l.ready = true;
  }
}

// Readers are always listened for; writers only while one waits, for room comes and goes with each message.
// With a plain number one event is awaited, and the request is over; who waits again keeps it armed.
void fd_state::arm(bool again) {
  if (!attached()) {
    once_ = true;
    hub_.attach(*this, number_);
  }
  if (again && !armed()) {
    once_ = false;
  }
  unsigned mask = 0;
  if (owned_ || side(direction::reading).sleeper != nullptr) {
    mask |= for_reading;
  }
  if (side(direction::writing).sleeper != nullptr) {
    mask |= POLLOUT;
  }
  hub_.io().set_interest(*this, static_cast<std::uint16_t>(mask));
}

// A plain number's watch ends with the last turn.
void fd_state::disarm() noexcept {
  if (!owned_ && attached()) {
    const std::array<watch*, 1> self{this};
    hub_.detach(self);
  }
}

void fd_state::on_event(io_result mask) noexcept {
  const bool tells = mask.ok() && mask.value() != 0;
  hung_up_ = hung_up_ || (tells && (mask.value() & (POLLRDHUP | POLLHUP | POLLERR)) != 0);
  // Where it does not say what happened, or nothing is armed any more, everybody looks for himself.
  const unsigned what = tells && armed() ? mask.value() : ~0U;
  if ((what & ~static_cast<unsigned>(POLLOUT)) != 0) {
    tell(side(direction::reading));
  }
  if ((what & (POLLOUT | POLLHUP | POLLERR)) != 0) {
    lane& writing = side(direction::writing);
    if (armed() && !writing.held) {
      hub_.io().set_interest(*this, for_reading);  // nobody waits for room any more
    }
    tell(writing);
  }
}

void fd_state::tell(lane& l) noexcept {
  l.ready = true;
  if (l.sleeper != nullptr) {
    l.sleeper->wake(wake_reason::ready);
  }
}

// --- closing

void fd_state::begin_closing() noexcept {
  ++incarnation_;
  closing_ = true;
  owned_ = false;
  kind_ = file_kind::unknown;
  hung_up_ = false;
  for (lane& l : lanes_) {
    l.held = false;
    l.ready = true;
    if (l.sleeper != nullptr) {
      std::exchange(l.sleeper, nullptr)->wake(wake_reason::closed);
    }
    while (!l.line.empty()) {
      l.line.front().wake(wake_reason::closed);
    }
  }
  requests_.for_each([](request& r) { r.disturb(); });
  disarm();
}

void fd_state::await_requests() {
  while (!requests_.empty()) {
    waiter ended(hub_.fibers().running());
    closer_ = &ended;
    (void)hub_.fibers().park_uninterrupted(ended, deadline::never(), wakers::outside);
    closer_ = nullptr;
  }
}

void fd_state::request_ended() noexcept {
  if (!closing_ || !requests_.empty()) {
    return;
  }
  if (closer_ != nullptr) {
    closer_->wake(wake_reason::ready);
  } else if (std::exchange(orphaned_, false)) {
    closing_ = false;
    (void)kernel(SYS_close, number_);
  }
}

// --- turns

turn::~turn() {
  if (!taken_ || file_.incarnation() != incarnation_) {
    return;
  }
  fd_state::lane& lane = file_.side(direction_);
  if (!lane.line.empty()) {
    lane.line.front().wake(wake_reason::ready);  // it is handed on
    return;
  }
  lane.held = false;
  if (file_.free(direction::reading) && file_.free(direction::writing)) {
    file_.disarm();
  }
}

void turn::require_open() const {
  if (file_.incarnation() != incarnation_) {
    throw_io_error(EBADF, call_, file_.number());
  }
}

bool turn::take(deadline until) {
  fd_state::lane& lane = file_.side(direction_);
  if (!std::exchange(lane.held, true)) {
    taken_ = true;
    return true;
  }
  if (until.is_past()) {
    return false;
  }
  waiter w(hub_.fibers().running());
  lane.line.push_back(w);
  taken_ = hub_.fibers().park(w, until, wakers::outside) == wake_reason::ready;
  require_open();
  return taken_;
}

bool turn::await_event(deadline until) {
  struct sleeping {
    sleeping(fd_state::lane& l, waiter& w) noexcept : at(l), self(w) { at.sleeper = &self; }
    ~sleeping() {
      if (at.sleeper == &self) {  // else the descriptor was closed, and the lane may be another's
        at.sleeper = nullptr;
      }
    }
    fd_state::lane& at;
    waiter& self;
  };
  // Some files say that they are ready and are not: an unconnected datagram socket whose receiver is full, a
  // listener whose connections others take. That must not become a busy loop.
  constexpr unsigned unhurried = 16;
  if (waits_ >= unhurried) {
    const bool in_time = rest(until);
    if (!in_time || file_.side(direction_).ready) {
      return in_time;
    }
  }
  waiter w(hub_.fibers().running());
  const sleeping here(file_.side(direction_), w);
  file_.arm(waits_++ != 0);
  const wake_reason why = hub_.fibers().park(w, until, wakers::outside);
  require_open();
  return why != wake_reason::timed_out;
}

bool turn::rest(deadline until) {
  waiter w(hub_.fibers().running());
  (void)hub_.fibers().park(w, std::min(until, deadline(std::chrono::milliseconds(1))), wakers::outside);
  require_open();
  return !until.reached();
}

wake_reason turn::await_completion(request& r, deadline until, park_function park) {
  if (r.done()) {
    return wake_reason::ready;
  }
  waiter w(hub_.fibers().running());
  r.wait_with(&w);
  const wake_reason why = (hub_.fibers().*park)(w, until, wakers::outside);
  r.wait_with(nullptr);
  return why;
}

// Returns when the kernel is done with it. A cancellation misses a request that is just going from a worker
// thread of the ring's to the poll that it waits on, or back, and what a disk has begun it cannot end: it is
// repeated, ever less often.
void turn::call_off(request& r) {
  r.give_up();
  std::chrono::milliseconds patience(1);
  do {
    hub_.io().cancel(r);
    (void)await_completion(r, patience, &scheduler::park_uninterrupted);
    patience = std::min(2 * patience, std::chrono::milliseconds(64));
  } while (!r.done());
}

std::optional<io_result> turn::perform(const operation& what, deadline until) {
  scheduler& fibers = hub_.fibers();
  for (;;) {
    fibers.throw_if_interrupted();
    request r;
    file_.requests_.push_back(r);
    hub_.io().start(r, what);
    const wake_reason why = await_completion(r, until, &scheduler::park_and_tell);
    if (!r.done()) {
      call_off(r);
    }
    r.unlink();
    file_.request_ended();
    if (r.result().error() != ECANCELED && r.result().error() != EINTR) {
      return r.result();
    }
    require_open();
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
