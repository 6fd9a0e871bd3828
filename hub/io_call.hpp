// How a call on a descriptor goes: try without waiting; where that will not do, take a turn at the
// descriptor, park until it may be ready, try again. What cannot be tried is handed to the kernel. Internal.
#pragma once

#include "fd_state.hpp"
#include "io_step.hpp"
#include "turn.hpp"

#include <annulet/runtime/deadline.hpp>

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
  io_call(const file_ref& file, const char* name);

  [[nodiscard]] hub_core& hub() const noexcept { return hub_; }
  // Of a plain number nothing is remembered, also where a descriptor owns it.
  [[nodiscard]] file_kind kind() const noexcept { return owner_asks_ ? file_->kind() : file_kind::unknown; }

  // All of it. Says nothing where the deadline came first.
  [[nodiscard]] std::optional<io_result> run(io_step& step, deadline until) {
    std::optional<turn> own;
    return run(step, until, own);
  }
  // One of several steps that belong together: from the first that waits on, `own` is the turn of all.
  [[nodiscard]] std::optional<io_result> run(io_step& step, deadline until, std::optional<turn>& own);
  // Between two such steps: nobody comes in between, though others run.
  void breathe_between(const io_step& step, std::optional<turn>& own);

 private:
  static hub_core& hub_of(const file_ref& file, const char* name);
  void let_others_run(int number, const char* name);
  [[nodiscard]] bool worth_a_try(const io_step& step, deadline until) const noexcept;
  [[nodiscard]] bool may_try_at_once(const io_step& step, deadline until) const noexcept;
  [[nodiscard]] bool take_turn(const io_step& step, deadline until, std::optional<turn>& own);
  [[nodiscard]] io_result finish(const io_step& step) noexcept;
  [[nodiscard]] std::optional<io_result> go_on(turn& own, io_step& step, io_step::outcome next,
                                               deadline until);

  hub_core& hub_;
  fd_state* file_;             // null where nothing is known
  std::uint32_t incarnation_;  // when the call began
  const bool owner_asks_;
};

}  // namespace detail

}  // namespace annulet
