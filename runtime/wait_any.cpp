#include "wait_any.hpp"

#include "scheduler.hpp"

#include <algorithm>
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

void wait_case::throw_closed(const char* call) const {
  throw std::logic_error(std::string("annulet: ") + call + ": one of them was destroyed meanwhile");
}

namespace {

void refuse_waited_for(const wait_case& c) {
  if (c.place() != nullptr) {
    throw std::logic_error("annulet: wait_any: a popping or pushing that is waited for already");
  }
}

// The places of one wait. Nobody is left in a line, however it ends.
class in_lines {
 public:
  in_lines(std::span<wait_case* const> cases, waiter& w) : cases_(cases), waiter_(w) {}
  ~in_lines() {
    scheduler::current()->stop_waiting(waiter_);
    for (wait_case* const each : cases_.first(enlisted_)) {
      each->leave();
    }
  }
  in_lines(const in_lines&) = delete;
  in_lines& operator=(const in_lines&) = delete;

  void enlist_all() {
    for (wait_case* const each : cases_) {
      refuse_waited_for(*each);
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
      const bool heard = waiter_.reason() == wake_reason::none ? cases_[i]->hears_hints()
                                                               : cases_[i]->place() == waiter_.woken_in();
      if (heard && cases_[i]->was_told()) {
        return i;
      }
    }
    return std::nullopt;
  }
  // The one that was woken as closed.
  [[nodiscard]] const wait_case& closed_one() const {
    return **std::ranges::find(cases_, waiter_.woken_in(), [](const wait_case* c) { return c->place(); });
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

}  // namespace

std::optional<std::size_t> wait_for_any(std::span<wait_case* const> cases, deadline until) {
  constexpr const char* call = "wait_any";
  scheduler& here = scheduler::here(call);
  if (cases.empty()) {
    throw std::invalid_argument("annulet: wait_any: nothing to wait for");
  }
  std::ranges::for_each(cases, [](wait_case* c) {
    refuse_waited_for(*c);
    c->begin();
  });
  here.throw_if_overdue();
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
  waiter w(here.running(), call);
  in_lines all(cases, w);
  all.enlist_all();
  for (;;) {
    // To ask one of them may have brought news for another: then this parks only for others' turn.
    switch (here.park(w, until, wakers_of(cases))) {
      case wake_reason::none:  // a hint
      case wake_reason::ready:
        w.heed();
        if (const auto one = all.chosen()) {
          return one;
        }
        break;  // it came to nothing
      case wake_reason::closed:
        all.closed_one().throw_closed(call);
        [[fallthrough]];
      default:
        return std::nullopt;
    }
  }
}

bool wait_for_all(std::span<wait_case* const> cases, deadline until) {
  constexpr const char* call = "wait_all";
  scheduler& here = scheduler::here(call);
  here.throw_if_overdue();
  std::size_t missing = 0;
  {
    waiter w(here.running(), call);
    in_lines all(cases, w);
    missing = all.enlist_missing();
    if (missing != 0 && !until.is_past()) {
      w.await(missing);
      const wake_reason why = here.park(w, until, wakers_of(cases));
      if (why == wake_reason::closed) {
        all.closed_one().throw_closed(call);
      }
      return why == wake_reason::ready;
    }
  }
  here.breathe_quietly(1);
  return missing == 0;
}

}  // namespace annulet::detail
