// How a call on a descriptor goes: try without waiting; where that will not do, take a turn at the
// descriptor, park until it may be ready, try again. What cannot be tried is handed to the kernel. Internal.
//
// While a fiber is parked in a call, this object, the step and the waiter are what lies on its stack: they
// are small, and the frames few, for with many connections each line of them comes from far away. What a call
// goes through when all is well is inline, so that one return stands behind a system call or a switch, and
// not five: the CPU can predict none of them (syscalls.hpp).
#pragma once

#include "descriptor.hpp"
#include "fd_state.hpp"
#include "hub_core.hpp"
#include "io_step.hpp"
#include "request.hpp"

#include <annulet/runtime/deadline.hpp>
#include <annulet/runtime/sanitizer.hpp>
#include <annulet/runtime/scheduler.hpp>

#include <cerrno>
#include <cstdint>
#include <optional>
#include <utility>

namespace annulet::detail {

// What was done before a write was done before the read that finds it, by whatever thread: the thread
// sanitizer has to be told that, for it sees none of our system calls. As it does for sockets by itself, any
// write counts for any read. Their place is this variable, which is of no other use.
inline constinit char tsan_transfers = 0;

inline void sanitize_before(direction way) noexcept {
  if constexpr (built_in == sanitizer::thread) {
    if (way == direction::writing) {
      __tsan_release(&tsan_transfers);
    }
  }
}
inline void sanitize_after(direction way) noexcept {
  if constexpr (built_in == sanitizer::thread) {
    if (way == direction::reading) {
      __tsan_acquire(&tsan_transfers);
    }
  }
}

class io_call {
 public:
  // The hub that it is made on, and what that knows of the descriptor. Lets others run first now and then,
  // for nothing may be thrown once something was transferred. Throws no_hub, hub_gone, wrong_thread, EBADF,
  // and interruptions.
  io_call(const file_ref& file, direction d, const char* name);
  ~io_call() {
    if (has_turn_) {
      give_turn_back();
    }
  }
  io_call(const io_call&) = delete;
  io_call& operator=(const io_call&) = delete;

  [[nodiscard]] hub_core& hub() const noexcept { return hub_; }
  [[nodiscard]] const char* name() const noexcept { return name_; }
  [[nodiscard]] int fd() const noexcept { return fd_; }
  [[nodiscard]] direction way() const noexcept { return direction_; }
  // Of a plain number nothing is remembered, also where a descriptor owns it.
  [[nodiscard]] file_kind kind() const noexcept { return owner_asks_ ? file_->kind() : file_kind::unknown; }

  // A step, whole. Says nothing where the deadline came first. Throws EBADF where the descriptor was closed,
  // and interruptions. The first that waits takes a turn, which is kept to the call's end.
  template <class Step>
  [[nodiscard]] std::optional<io_result> run(Step& step, deadline until);
  // The same without a turn, for a step at a position of its own: any number of them go on side by side.
  template <class Step>
  [[nodiscard]] std::optional<io_result> run_beside(Step& step, deadline until);
  // What cannot be tried. Without a turn, too.
  [[nodiscard]] std::optional<io_result> request_beside(const operation& what, deadline until);
  void breathe_beside();
  // Between two steps that belong together: nobody comes in between, though others run.
  void breathe_between();

 private:
  class sleeping;

  static hub_core& hub_of(const file_ref& file, const char* name);
  [[gnu::cold]] void let_others_run();
  [[nodiscard]] bool worth_a_try(const io_step& step, deadline until) const noexcept;
  [[nodiscard]] io_result finish(const io_step& step) noexcept;
  template <class Step>
  [[nodiscard]] std::optional<io_result> go_on(Step& step, io_step::outcome next, deadline until);

  // These throw EBADF where the descriptor was closed, and interruptions; and say nothing, or false, where
  // the deadline came.

  [[nodiscard]] bool take_turn(deadline until);
  // Parks behind those that came first.
  [[nodiscard]] bool stand_in_line(deadline until);
  // Parks until the descriptor may be ready. At the deadline one more try is due.
  [[nodiscard]] bool await_event(deadline until);
  // Where events come again and again and there is nothing: some files say that they are ready and are not,
  // an unconnected datagram socket whose receiver is full, a listener whose connections others take. That
  // must not become a busy loop.
  [[nodiscard]] bool hurries_in_vain() const noexcept { return vain_waits_ >= 16; }
  // Parks for a millisecond: for what no event tells of.
  [[nodiscard]] bool rest(deadline until);
  // Parks until a transfer by the same open file has ended, if there is one.
  [[nodiscard]] bool await_transfer(deadline until);
  // Lets those go first that have been waiting for such a transfer, if there are any: then a try is due.
  [[nodiscard]] bool gives_way();
  // Has the kernel carry it out, and parks meanwhile. What the kernel has done counts, whatever came between.
  [[nodiscard]] std::optional<io_result> perform(const operation& what, deadline until);

  void give_turn_back() noexcept;
  // After each park: the number may be another's.
  void require_open() const {
    if (file_->incarnation() != incarnation_) [[unlikely]] {
      throw_closed(name_, fd_);
    }
  }
  [[noreturn, gnu::cold]] static void throw_closed(const char* name, int fd);
  void learn_of_file();

  hub_core& hub_;
  fd_state* file_;  // null where nothing is known
  const char* const name_;
  const int fd_;
  std::uint32_t incarnation_;     // of the number, when the call began
  std::uint32_t vain_waits_ = 0;  // for events, since there was progress
  const direction direction_;
  const bool owner_asks_;
  bool has_turn_ = false;
};

inline hub_core& io_call::hub_of(const file_ref& file, const char* name) {
  if (file.owner_ == nullptr) {
    return hub_core::here(name);
  }
  if (file.owner_->link_ == nullptr) [[unlikely]] {
    throw_closed(name, file.fd_);  // it owns nothing
  }
  return hub_core::of(*file.owner_->link_, name);
}

inline io_call::io_call(const file_ref& file, direction d, const char* name)
    : hub_(hub_of(file, name)),
      file_(file.owner_ != nullptr ? file.owner_->file_ : hub_.find_state(file.fd_)),
      name_(name),
      fd_(file.fd_),
      incarnation_(file_ == nullptr ? 0 : file_->incarnation()),
      direction_(d),
      owner_asks_(file.owner_ != nullptr) {
  const bool lost = owner_asks_ && incarnation_ != file.owner_->incarnation_;
  if (lost || (file_ != nullptr && file_->closing())) [[unlikely]] {
    throw_closed(name_, fd_);
  }
  if (hub_.fibers().due_to_breathe(1)) [[unlikely]] {
    let_others_run();
  }
  sanitize_before(direction_);
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

template <class Step>
[[gnu::always_inline]] inline std::optional<io_result> io_call::run(Step& step, deadline until) {
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
template <class Step>
[[gnu::always_inline]] inline std::optional<io_result> io_call::go_on(Step& step, io_step::outcome next,
                                                                      deadline until) {
  bool was_in_line = false;  // for the open file
  for (bool last = until.is_past();;) {
    if (next == io_step::outcome::done) {
      vain_waits_ = 0;
      return finish(step);
    }
    if (next == io_step::outcome::occupied) {
      if (last || !await_transfer(until)) {
        return std::nullopt;
      }
      was_in_line = true;
      next = step.attempt();
      if (next != io_step::outcome::done && until.reached()) {
        return std::nullopt;
      }
      continue;
    }
    if (next == io_step::outcome::delegate) {
      if (!std::exchange(was_in_line, true) && gives_way()) {
        next = step.attempt();
        continue;
      }
      const auto result = perform(step.as_operation(), until);
      if (!result || result->error() != EAGAIN) {
        return result;
      }
      next = step.attempt();  // O_NONBLOCK was set meanwhile
      if (next == io_step::outcome::delegate) {
        next = io_step::outcome::wait;  // a file that only seems to be a disk's has nothing
      }
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

template <class Step>
std::optional<io_result> io_call::run_beside(Step& step, deadline until) {
  const io_step::outcome tried = step.attempt();
  if (tried == io_step::outcome::done) {
    return step.result();
  }
  if (tried == io_step::outcome::delegate && step.is_disk()) {
    return request_beside(step.as_operation(), until);
  }
  if (!take_turn(until)) {
    return std::nullopt;
  }
  return go_on(step, step.attempt(), until);
}

inline bool io_call::take_turn(deadline until) {
  if (file_ == nullptr) [[unlikely]] {
    learn_of_file();
  }
  if (!std::exchange(file_->side(direction_).held, true)) {
    return has_turn_ = true;
  }
  return stand_in_line(until);
}

inline void io_call::give_turn_back() noexcept {
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

// While a fiber waits for an event on a lane.
class io_call::sleeping {
 public:
  sleeping(fd_state::lane& at, waiter& w, const control_block& fiber) noexcept : at_(at), self_(w) {
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
  fd_state::lane& at_;
  waiter& self_;
};

[[gnu::always_inline]] inline bool io_call::await_event(deadline until) {
  if (hurries_in_vain()) [[unlikely]] {
    const bool in_time = rest(until);
    if (!in_time || file_->side(direction_).ready) {
      return in_time;
    }
  }
  control_block& self = hub_.fibers().running();
  waiter w(self, name_, fd_);
  const sleeping here(file_->side(direction_), w, self);
  file_->arm(vain_waits_++ == 0 ? fd_state::arming::once : fd_state::arming::anew);
  const wake_reason why = hub_.fibers().park(w, until, wakers::outside);
  require_open();
  return why != wake_reason::timed_out;
}

}  // namespace annulet::detail
