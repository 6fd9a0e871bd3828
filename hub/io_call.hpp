// How a call on a descriptor goes: try without waiting; where that will not do, take a turn at the
// descriptor, park until it may be ready, try again. What cannot be tried is handed to the kernel. Internal.
//
// While a fiber is parked in a call, this object, the step and the waiter are what lies on its stack: they
// are small, and the frames few, for with many connections each line of them comes from far away.
#pragma once

#include "fd_state.hpp"
#include "io_step.hpp"
#include "request.hpp"

#include <annulet/runtime/deadline.hpp>
#include <annulet/runtime/scheduler.hpp>

#include <cstdint>
#include <optional>

namespace annulet {

class file_ref;

namespace detail {

class hub_core;

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
  [[nodiscard]] std::optional<io_result> run(io_step& step, deadline until);
  // Between two steps that belong together: nobody comes in between, though others run.
  void breathe_between();

 private:
  using park_function = wake_reason (scheduler::*)(waiter&, deadline, wakers);

  static hub_core& hub_of(const file_ref& file, const char* name);
  void let_others_run();
  [[nodiscard]] bool worth_a_try(const io_step& step, deadline until) const noexcept;
  [[nodiscard]] io_result finish(const io_step& step) noexcept;
  [[nodiscard]] std::optional<io_result> go_on(io_step& step, io_step::outcome next, deadline until);

  // These throw EBADF where the descriptor was closed, and interruptions; and say nothing, or false, where
  // the deadline came.

  // Parks behind those that came first.
  [[nodiscard]] bool take_turn(deadline until);
  // Parks until the descriptor may be ready. At the deadline one more try is due.
  [[nodiscard]] bool await_event(deadline until);
  // Parks for a millisecond: for what no event tells of.
  [[nodiscard]] bool rest(deadline until);
  // Has the kernel carry it out, and parks meanwhile. What the kernel has done counts, whatever came between.
  [[nodiscard]] std::optional<io_result> perform(const operation& what, deadline until);

  void give_turn_back() noexcept;
  // After each park: the number may be another's.
  void require_open() const;
  wake_reason await_completion(request& r, deadline until, park_function park);
  void call_off(request& r);

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

}  // namespace detail

}  // namespace annulet
