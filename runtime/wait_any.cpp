#include "wait_any.hpp"

#include "scheduler.hpp"

#include <stdexcept>
#include <string>

namespace annulet::detail {

control_block& lines::block_of(const fiber_handle& f) {
  control_block& block = f.require("wait_any");
  if (&block == &scheduler::current()->running()) {
    throw std::logic_error("annulet: wait_any: " + block.describe() + " would wait for itself");
  }
  return block;
}

namespace {

// The places of one wait. Nobody is left in a line, however it ends.
class in_lines {
 public:
  in_lines(std::span<wait_case* const> cases, waiter& w) : cases_(cases), waiter_(w) {}
  ~in_lines() {
    for (wait_case* const each : cases_.first(enlisted_)) {
      each->leave();
    }
  }
  in_lines(const in_lines&) = delete;
  in_lines& operator=(const in_lines&) = delete;

  void enlist_all() {
    for (wait_case* const each : cases_) {
      if (each->place() != nullptr) {
        throw std::logic_error("annulet: wait_any: a popping or pushing that is waited for already");
      }
      each->enlist(waiter_);
      ++enlisted_;
    }
  }
  // How many.
  std::size_t enlist_missing() {
    std::size_t missing = 0;
    for (wait_case* const each : cases_) {
      ++enlisted_;
      if (!each->take()) {
        each->enlist(waiter_);
        ++missing;
      }
    }
    return missing;
  }

  [[nodiscard]] std::optional<std::size_t> chosen() const {
    for (std::size_t i = 0; i < cases_.size(); ++i) {
      if (cases_[i]->place() == waiter_.woken_in() && cases_[i]->was_woken()) {
        return i;
      }
    }
    return std::nullopt;
  }

 private:
  std::span<wait_case* const> cases_;
  std::size_t enlisted_ = 0;
  waiter& waiter_;
};

wakers wakers_of(std::span<wait_case* const> cases) noexcept {
  for (const wait_case* const each : cases) {
    if (each->is_outside()) {
      return wakers::outside;
    }
  }
  return wakers::fibers;
}

// Whether one was there, and not the deadline first.
bool park(waiter& w, deadline until, wakers who, const char* call) {
  const wake_reason why = scheduler::here(call).park(w, until, who);
  if (why == wake_reason::closed) {
    throw std::logic_error(std::string("annulet: ") + call + ": one of them was destroyed meanwhile");
  }
  return why == wake_reason::ready;
}

}  // namespace

std::optional<std::size_t> wait_for_any(std::span<wait_case* const> cases, deadline until) {
  constexpr const char* call = "wait_any";
  scheduler& here = scheduler::here(call);
  here.throw_if_overdue();
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
    in_lines all(cases, w);
    all.enlist_all();
    if (!park(w, until, wakers_of(cases), call)) {
      return std::nullopt;
    }
    if (const auto one = all.chosen()) {
      return one;
    }  // else it was a hint that came to nothing
  }
}

bool wait_for_all(std::span<wait_case* const> cases, deadline until) {
  constexpr const char* call = "wait_all";
  scheduler& here = scheduler::here(call);
  here.throw_if_overdue();
  std::size_t missing = 0;
  {
    waiter w(here.running());
    in_lines all(cases, w);
    missing = all.enlist_missing();
    if (missing != 0 && !until.is_past()) {
      w.await(missing);
      return park(w, until, wakers_of(cases), call);
    }
  }
  here.breathe_quietly(1);
  return missing == 0;
}

}  // namespace annulet::detail
