// How a call on a descriptor that blocks for its program waits: the fiber parks, until the descriptor is
// ready in the call's direction, or until the kernel has carried it out. Internal.
//
// Made where the call has been tried and would wait.
#pragma once

#include "drop_in.hpp"

#include <annulet/hub/fd_state.hpp>
#include <annulet/hub/request.hpp>

#include <optional>

namespace annulet::detail {

class blocking_call {
 public:
  blocking_call(hub_core& hub, const char* name, int fd, direction way) noexcept
      : hub_(hub), name_(name), fd_(fd), way_(way) {}

  // False where the program has set O_NONBLOCK: then what has been found is the result. So it is where no
  // call is allowed, with O_PATH. Reads the socket's time limit, too, the first time.
  [[nodiscard]] bool may_wait() noexcept;
  // Where Linux begins the socket's time limit anew.
  void begin_time_anew() noexcept;
  // Parks until it may be ready: then 0, and the call is to be tried again, once more also at the end of the
  // time. Else the errno that it ends with. `restarts`: nothing has been transferred yet.
  [[nodiscard]] int wait(bool restarts);
  // The same for what no event tells of: a millisecond.
  [[nodiscard]] int rest(bool restarts);
  // The last try has moved something.
  void has_moved() noexcept { vain_waits_ = 0; }
  // Has the kernel make the call, and parks meanwhile.
  [[nodiscard]] io_result carry_out(const operation& what);

 private:
  [[nodiscard]] int park(file_waits& how, deadline until, bool restarts);
  // Parks for a millisecond, whatever events come.
  [[nodiscard]] int pause(bool restarts);
  // Where events come again and again and there is nothing: what an unnamed socket sends to a full receiver
  // takes the room that it is then told of. That must not become a busy loop; so every other wait is a pause.
  [[nodiscard]] bool hurries_in_vain() noexcept {
    ++vain_waits_;
    return vain_waits_ > 16 && vain_waits_ % 2 == 0;
  }
  [[nodiscard]] deadline soon() const noexcept;
  // In the place of these, for a signal's handler: the thread waits, for the file or for none.
  [[nodiscard]] int stop_thread(deadline until, unsigned files);
  [[nodiscard]] static io_result make_plainly(const operation& what) noexcept;
  [[nodiscard]] bool restarts_calls(bool restarts) const noexcept { return restarts && limit_.is_never(); }

  hub_core& hub_;
  const char* const name_;
  const int fd_;
  const direction way_;
  std::uint32_t vain_waits_ = 0;  // since something was moved
  bool asked_ = false;
  bool last_ = false;  // the time is over
  deadline limit_ = deadline::never();
  std::optional<file_waits> waits_;
};

}  // namespace annulet::detail
