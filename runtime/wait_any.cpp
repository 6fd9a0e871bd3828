#include "wait_any.hpp"

#include "scheduler.hpp"

#include <stdexcept>

namespace annulet::detail {

control_block& lines::block_of(const fiber_handle& f) {
  control_block& block = f.require("wait_any");
  if (&block == &scheduler::current()->running()) {
    throw std::logic_error("annulet: wait_any: " + block.describe() + " would wait for itself");
  }
  return block;
}

namespace {

// Nobody is left in a line, however the wait ends.
class in_lines {
 public:
  in_lines(std::span<wait_case* const> cases, waiter& w) : cases_(cases) {
    for (wait_case* const each : cases) {
      each->enlist(w);
    }
  }
  ~in_lines() {
    for (wait_case* const each : cases_) {
      each->leave();
    }
  }
  in_lines(const in_lines&) = delete;
  in_lines& operator=(const in_lines&) = delete;

  [[nodiscard]] std::optional<std::size_t> chosen(const waiter& w) const {
    for (std::size_t i = 0; i < cases_.size(); ++i) {
      if (cases_[i]->place() == w.woken_in() && cases_[i]->was_woken()) {
        return i;
      }
    }
    return std::nullopt;
  }

 private:
  std::span<wait_case* const> cases_;
};

}  // namespace

std::optional<std::size_t> wait_for_any(std::span<wait_case* const> cases, deadline until) {
  scheduler& here = scheduler::here("wait_any");
  here.throw_if_overdue();
  wakers who = wakers::fibers;
  for (const wait_case* const each : cases) {
    who = each->is_outside() ? wakers::outside : who;
  }
  for (;;) {
    for (std::size_t i = 0; i < cases.size(); ++i) {
      if (cases[i]->take()) {
        here.breathe_quietly(1);
        return i;
      }
    }
    if (until.is_past()) {
      here.breathe_quietly(1);
      return std::nullopt;
    }
    waiter w(here.running());
    const in_lines all(cases, w);
    switch (here.park(w, until, who)) {
      case wake_reason::ready:
        if (const auto one = all.chosen(w)) {
          return one;
        }
        break;  // a hint that came to nothing
      case wake_reason::closed:
        throw std::logic_error("annulet: wait_any: one of them was destroyed meanwhile");
      default:
        return std::nullopt;
    }
  }
}

}  // namespace annulet::detail
