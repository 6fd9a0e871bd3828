// One of several things that a fiber waits for: what wait_any.hpp needs to know of each.
#pragma once

#include "deadline.hpp"
#include "waiter.hpp"

#include <cstddef>
#include <optional>
#include <span>

namespace annulet::detail {

class [[gnu::visibility("default")]] wait_case {
 public:
  // What an earlier wait has left with it is void.
  virtual void begin() noexcept {}
  // Takes what it is for, if that is there now. Does not park. Throws wrong_thread and its like.
  virtual bool take() = 0;
  // Stands in its line, where that has failed.
  virtual void enlist(waiter & w) = 0;
  // Where it stands; null where it does not.
  [[nodiscard]] virtual const wait_place* place() const noexcept = 0;
  // It was woken there, or, where it hears by hints, has heard one. Whether what it is for is there.
  virtual bool was_told() { return true; }
  // It was woken there as closed.
  [[noreturn]] virtual void throw_closed(const char* call) const;
  // The wait is over, however it ended.
  virtual void leave() noexcept = 0;
  [[nodiscard]] virtual bool hears_hints() const noexcept { return false; }
  // Whether something outside this thread can end the wait.
  [[nodiscard]] virtual bool is_outside() const noexcept { return false; }

 protected:
  ~wait_case() = default;
};

// How something that is not a case itself is waited for. Its `lasting`: whether it can be there without being
// taken, and until it is asked.
template <class Source>
class case_of;

// Parks until one has what it is for; which. None where the deadline came first. Where several have, it is
// the first of them, and the others have taken nothing. Throws what ends a wait, and std::logic_error where
// one of them was destroyed meanwhile.
[[nodiscard, gnu::visibility("default")]] std::optional<std::size_t> wait_for_any(
    std::span<wait_case* const> cases, deadline until);

// Parks until each of them has been there, and says whether that was before the deadline. For those whose
// being there takes nothing. All else as above.
[[nodiscard, gnu::visibility("default")]] bool wait_for_all(std::span<wait_case* const> cases,
                                                            deadline until);

}  // namespace annulet::detail
