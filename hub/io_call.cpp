#include "io_call.hpp"

#include "descriptor.hpp"
#include "hub_core.hpp"
#include "io_error.hpp"
#include "syscalls.hpp"

#include <cerrno>

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

io_call::io_call(const file_ref& file, const char* name)
    : hub_(hub_of(file, name)),
      file_(hub_.find_state(file.fd_)),
      incarnation_(file_ == nullptr ? 0 : file_->incarnation()),
      owner_asks_(file.owner_ != nullptr) {
  const bool closed = owner_asks_ ? file_ == nullptr || incarnation_ != file.owner_->incarnation_
                                  : file_ != nullptr && file_->closing();
  if (closed) [[unlikely]] {
    throw_io_error(EBADF, name, file.fd_);
  }
  if (hub_.fibers().due_to_breathe(1)) [[unlikely]] {
    let_others_run(file.fd_, name);
  }
}

// Who runs meanwhile may close the number, and it may be another's afterwards.
void io_call::let_others_run(int number, const char* name) {
  if (file_ == nullptr) {
    if (const io_result open = kernel(SYS_fcntl, number, F_GETFD); !open.ok()) {
      throw_io_error(open.error(), name, number);
    }
    file_ = &hub_.state_of(number);
    incarnation_ = file_->incarnation();
  }
  hub_.fibers().breathe_now();
  if (file_->incarnation() != incarnation_) {
    throw_io_error(EBADF, name, number);
  }
}

// A descriptor's watch that has said nothing since the last try need not be asked again, unless the caller
// wants to know now.
bool io_call::worth_a_try(const io_step& step, deadline until) const noexcept {
  return !owner_asks_ || !step.asks_the_stream() || file_->worth_a_try(step.way()) || until.is_past();
}

bool io_call::may_try_at_once(const io_step& step, deadline until) const noexcept {
  return file_ == nullptr || step.out_of_turn() || (file_->free(step.way()) && worth_a_try(step, until));
}

io_result io_call::finish(const io_step& step) noexcept {
  if (owner_asks_ && step.drained()) {
    file_->drained(step.way());
  }
  return step.result();
}

bool io_call::take_turn(const io_step& step, deadline until, std::optional<turn>& own) {
  if (file_ == nullptr) {
    file_ = &hub_.state_of(step.fd());
    incarnation_ = file_->incarnation();
  }
  return own.emplace(hub_, *file_, incarnation_, step.way(), step.name()).take(until);
}

std::optional<io_result> io_call::run(io_step& step, deadline until, std::optional<turn>& own) {
  std::optional<io_step::outcome> tried;
  if (!own) {
    if (may_try_at_once(step, until)) {
      tried = step.attempt();
      if (tried == io_step::outcome::done) {
        return finish(step);
      }
    }
    const bool queues = file_ != nullptr && !file_->free(step.way());
    if (!take_turn(step, until, own)) {
      return std::nullopt;
    }
    if (queues) {
      tried.reset();  // that was long ago
    }
  }
  if (!tried) {
    tried = worth_a_try(step, until) ? step.attempt() : io_step::outcome::wait;
  }
  return go_on(*own, step, *tried, until);
}

// The rest of a call, within its turn, from what the last try has shown.
std::optional<io_result> io_call::go_on(turn& own, io_step& step, io_step::outcome next, deadline until) {
  for (bool last = until.is_past();;) {
    if (next == io_step::outcome::done) {
      own.progressed();
      return finish(step);
    }
    if (next == io_step::outcome::delegate) {
      const auto result = own.perform(step.as_operation(), until);
      if (!result || result->error() != EAGAIN) {
        return result;
      }
      next = step.attempt();  // O_NONBLOCK was set meanwhile
      continue;
    }
    file_->found_empty(step.way());
    if (last) {
      return std::nullopt;
    }
    last = !(next == io_step::outcome::later ? own.rest(until) : own.await_event(until));
    next = step.attempt();
    if (next != io_step::outcome::done && until.reached()) {
      last = true;  // however many events come for nothing
    }
  }
}

void io_call::breathe_between(const io_step& step, std::optional<turn>& own) {
  if (!own) {
    (void)take_turn(step, deadline::never(), own);  // nobody has it: the step before was not in one
  }
  hub_.fibers().breathe(1);
  own->require_open();
}

}  // namespace annulet::detail
