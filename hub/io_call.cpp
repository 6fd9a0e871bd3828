#include "io_call.hpp"

#include "descriptor.hpp"
#include "hub_core.hpp"
#include "io_error.hpp"
#include "syscalls.hpp"

#include <cerrno>
#include <utility>

#include <fcntl.h>

namespace annulet::detail {

hub_core& io_call::hub_of(const file_ref& file, const char* name) {
  if (file.owner_ == nullptr) {
    return hub_core::here(name);
  }
  if (file.owner_->link_ == nullptr) {
    throw_io_error(EBADF, name, file.fd_);  // it owns nothing
  }
  return hub_core::of(*file.owner_->link_, name);
}

io_call::io_call(const file_ref& file, direction d, const char* name)
    : hub_(hub_of(file, name)),
      file_(file.owner_ != nullptr ? file.owner_->file_ : hub_.find_state(file.fd_)),
      name_(name),
      fd_(file.fd_),
      incarnation_(file_ == nullptr ? 0 : file_->incarnation()),
      direction_(d),
      owner_asks_(file.owner_ != nullptr) {
  const bool closed =
      owner_asks_ ? incarnation_ != file.owner_->incarnation_ : file_ != nullptr && file_->closing();
  if (closed) [[unlikely]] {
    throw_io_error(EBADF, name, fd_);
  }
  if (hub_.fibers().due_to_breathe(1)) [[unlikely]] {
    let_others_run();
  }
}

// Who runs meanwhile may close the number, and it may be another's afterwards.
void io_call::let_others_run() {
  if (file_ == nullptr) {
    if (const io_result open = kernel(SYS_fcntl, fd_, F_GETFD); !open.ok()) {
      throw_io_error(open.error(), name_, fd_);
    }
    file_ = &hub_.state_of(fd_);
    incarnation_ = file_->incarnation();
  }
  hub_.fibers().breathe_now();
  require_open();
}

void io_call::require_open() const {
  if (file_->incarnation() != incarnation_) [[unlikely]] {
    throw_io_error(EBADF, name_, fd_);
  }
}

// A descriptor's watch that has said nothing since the last try need not be asked again, unless the caller
// wants to know now.
inline bool io_call::worth_a_try(const io_step& step, deadline until) const noexcept {
  return !owner_asks_ || file_->worth_a_try(direction_) || !step.about().asks_the_stream || until.is_past();
}

inline io_result io_call::finish(const io_step& step) noexcept {
  if (owner_asks_ && step.drained()) {
    file_->drained(direction_);
  }
  return step.result();
}

std::optional<io_result> io_call::run(io_step& step, deadline until) {
  std::optional<io_step::outcome> tried;
  if (!has_turn_) {
    const bool queues = file_ != nullptr && !file_->free(direction_);
    if (step.about().out_of_turn || file_ == nullptr || (!queues && worth_a_try(step, until))) {
      tried = step.attempt();
      if (tried == io_step::outcome::done) {
        return finish(step);
      }
    }
    if (!take_turn(until)) {
      return std::nullopt;
    }
    if (queues) {
      tried.reset();  // that was long ago
    }
  }
  if (!tried) {
    tried = worth_a_try(step, until) ? step.attempt() : io_step::outcome::wait;
  }
  return go_on(step, *tried, until);
}

// The rest of a step, within the call's turn, from what the last try has shown.
inline std::optional<io_result> io_call::go_on(io_step& step, io_step::outcome next, deadline until) {
  for (bool last = until.is_past();;) {
    if (next == io_step::outcome::done) {
      vain_waits_ = 0;
      return finish(step);
    }
    if (next == io_step::outcome::delegate) {
      const auto result = perform(step.as_operation(), until);
      if (!result || result->error() != EAGAIN) {
        return result;
      }
      next = step.attempt();  // O_NONBLOCK was set meanwhile
      continue;
    }
    file_->found_empty(direction_);
    if (last) {
      return std::nullopt;
    }
    last = !(next == io_step::outcome::later ? rest(until) : await_event(until));
    next = step.attempt();
    if (next != io_step::outcome::done && until.reached()) {
      last = true;  // however many events come for nothing
    }
  }
}

void io_call::breathe_between() {
  if (!has_turn_) {
    (void)take_turn(deadline::never());  // nobody has it: the step before was not in one
  }
  hub_.fibers().breathe(1);
  require_open();
}

bool io_call::take_turn(deadline until) {
  if (file_ == nullptr) {
    file_ = &hub_.state_of(fd_);
    incarnation_ = file_->incarnation();
  }
  fd_state::lane& lane = file_->side(direction_);
  if (!std::exchange(lane.held, true)) {
    return has_turn_ = true;
  }
  if (until.is_past()) {
    return false;
  }
  waiter w(hub_.fibers().running());
  lane.line.push_back(w);
  has_turn_ = hub_.fibers().park(w, until, wakers::outside) == wake_reason::ready;
  require_open();
  return has_turn_;
}

void io_call::give_turn_back() noexcept {
  if (file_->incarnation() != incarnation_) {
    return;
  }
  fd_state::lane& lane = file_->side(direction_);
  if (!lane.line.empty()) {
    lane.line.front().wake(wake_reason::ready);  // it is handed on
    return;
  }
  lane.held = false;
  if (!file_->owned() && file_->free(direction::reading) && file_->free(direction::writing)) {
    file_->disarm();
  }
}

namespace {

// While a fiber waits for an event on a lane.
template <class Lane>
class sleeping {
 public:
  sleeping(Lane& at, waiter& w, const control_block& fiber) noexcept : at_(at), self_(w) {
    at_.sleeper = &self_;
    at_.fiber = &fiber;
  }
  ~sleeping() {
    if (at_.sleeper == &self_) {  // else the descriptor was closed, and the lane may be another's
      at_.sleeper = nullptr;
    }
  }
  sleeping(const sleeping&) = delete;
  sleeping& operator=(const sleeping&) = delete;

 private:
  Lane& at_;
  waiter& self_;
};

}  // namespace

inline bool io_call::await_event(deadline until) {
  // Some files say that they are ready and are not: an unconnected datagram socket whose receiver is full, a
  // listener whose connections others take. That must not become a busy loop.
  constexpr unsigned unhurried = 16;
  if (vain_waits_ >= unhurried) [[unlikely]] {
    const bool in_time = rest(until);
    if (!in_time || file_->side(direction_).ready) {
      return in_time;
    }
  }
  control_block& self = hub_.fibers().running();
  waiter w(self);
  const sleeping here(file_->side(direction_), w, self);
  file_->arm(vain_waits_++ == 0 ? fd_state::arming::once : fd_state::arming::anew);
  const wake_reason why = hub_.fibers().park(w, until, wakers::outside);
  require_open();
  return why != wake_reason::timed_out;
}

}  // namespace annulet::detail
