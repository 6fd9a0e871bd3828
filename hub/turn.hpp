// One fiber's turn at one direction of a descriptor, first come first served. A call that cannot be done at
// once does everything else within one. Internal.
#pragma once

#include "fd_state.hpp"
#include "request.hpp"

#include <annulet/runtime/deadline.hpp>
#include <annulet/runtime/scheduler.hpp>

#include <cstdint>
#include <optional>

namespace annulet::detail {

class turn {
 public:
  // The incarnation is that which the call found when it began.
  turn(hub_core& hub, fd_state& file, std::uint32_t incarnation, direction d, const char* call) noexcept
      : hub_(hub), file_(file), incarnation_(incarnation), direction_(d), call_(call) {}
  ~turn();
  turn(const turn&) = delete;
  turn& operator=(const turn&) = delete;

  // These four throw EBADF where the descriptor was closed, and interruptions; and say nothing, or false,
  // where the deadline came.

  // Parks behind those that came first.
  [[nodiscard]] bool take(deadline until);
  // Parks until the descriptor may be ready. At the deadline one more try is due.
  [[nodiscard]] bool await_event(deadline until);
  // Parks for a millisecond: for what no event tells of.
  [[nodiscard]] bool rest(deadline until);
  // Has the kernel carry it out, and parks meanwhile. What the kernel has done counts, whatever came between.
  [[nodiscard]] std::optional<io_result> perform(const operation& what, deadline until);

  // After each other park: the number may be another's. Throws EBADF.
  void require_open() const;
  // Something was transferred: the events so far were not in vain.
  void progressed() noexcept { vain_waits_ = 0; }

 private:
  using park_function = wake_reason (scheduler::*)(waiter&, deadline, wakers);
  wake_reason await_completion(request& r, deadline until, park_function park);
  void call_off(request& r);

  hub_core& hub_;
  fd_state& file_;
  const std::uint32_t incarnation_;
  const direction direction_;
  const char* const call_;
  bool taken_ = false;
  unsigned vain_waits_ = 0;  // for events, since there was progress
};

}  // namespace annulet::detail
