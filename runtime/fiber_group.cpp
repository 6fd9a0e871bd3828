#include "fiber_group.hpp"

#include "check.hpp"
#include "errors.hpp"
#include "scheduler.hpp"

#include <stdexcept>
#include <string>
#include <utility>

namespace annulet {

namespace detail {

namespace {

// A get() that waits. Who wakes it gives it the error, if it is for one.
struct asker : waiter {
  using waiter::waiter;
  std::exception_ptr error;
};

}  // namespace

place_in_group::place_in_group(fiber_group& group, deadline until) : group_(&group) {
  constexpr const char* call = "fiber_group::spawn";
  group.begin(call);
  if (group.ending_ && group.for_room_.running().keeper != &group) {
    throw std::logic_error("annulet: fiber_group::spawn: kill_and_join is just ending the group");
  }
  if (group.taken_ != group.limit_) {
    ++group.taken_;
    group.places_.push_back(*this);
    had_ = true;
    wait_queue::breathe();
  } else {
    waiter w(group.for_room_.running(), call);
    group.places_.push_back(*this);
    had_ = group.for_room_.park(w, until);
  }
  if (had_ && group_ == nullptr) {
    throw std::logic_error("annulet: fiber_group::spawn: the group was destroyed meanwhile");
  }
}

place_in_group::~place_in_group() {
  if (group_ != nullptr && had_) {
    group_->free_place();
  }
}

void place_in_group::give_to(fiber<void>&& member) {
  control_block& block = *member.block_;
  if (group_ == nullptr) {
    member.kill();
  } else {
    std::exchange(group_, nullptr)->adopt(block);
  }
  unlink();
  member.detach();
}

}  // namespace detail

namespace {

std::size_t checked(std::size_t limit) {
  if (limit == 0 || limit > fiber_group::unlimited) {
    throw std::invalid_argument(limit == 0 ? "annulet: fiber_group: a limit of 0"
                                           : "annulet: fiber_group: a negative limit");
  }
  return limit;
}

std::exception_ptr failure_of(const detail::control_block& member) noexcept {
  try {
    return member.failure();
  } catch (const std::bad_alloc&) {
    return std::current_exception();
  }
}

}  // namespace

fiber_group::fiber_group(std::size_t limit) : limit_(checked(limit)) {}

fiber_group::~fiber_group() {
  members_.for_each([](detail::control_block& member) {
    detail::scheduler* const owner = member.owner.load(std::memory_order_relaxed);
    const bool is_here = owner == detail::scheduler::current();
    detail::check(is_here || detail::scheduler::is_left_to_parent(owner),
                  "a fiber_group was destroyed on another thread than that of its fibers");
    member.keeper = nullptr;
    if (is_here) {
      owner->kill(member);
    }
  });
  places_.for_each([](detail::place_in_group& place) { place.group_ = nullptr; });
  if (error_ != nullptr) {
    detail::report_uncollected("a fiber of a group", error_);
  }
}

void fiber_group::begin(const char* call) { for_room_.begin(call, taken_ != 0); }

void fiber_group::require_own_thread(const char* call) { for_room_.require_own_thread(call, taken_ != 0); }

void fiber_group::refuse_own_member(const char* call) {
  const detail::control_block& self = for_room_.running();
  if (self.keeper == this) {
    throw std::logic_error(std::string("annulet: ") + call + ": " + self.describe() +
                           " is a member, and would wait for itself");
  }
}

void fiber_group::free_place() noexcept {
  if (!for_room_.empty()) {
    for_room_.wake_one();  // it is that one's now
  } else if (--taken_ == 0) {
    ending_ = false;
    for_the_last_.wake_all();
    for_an_error_.wake_all();
  }
}

void fiber_group::adopt(detail::control_block& member) noexcept {
  member.keeper = this;
  members_.push_back(member);
  ++size_;
  if (ending_) {
    detail::scheduler::current()->kill(member);
  }
}

void fiber_group::take_error(detail::control_block& member) noexcept {
  const bool failed =
      member.outcome == detail::fiber_outcome::error || member.outcome == detail::fiber_outcome::timed_out;
  if (!failed || error_ != nullptr) {
    return;  // of two failures the scheduler reports the second
  }
  std::exception_ptr error = failure_of(member);
  member.error_collected = true;
  if (for_an_error_.empty()) {
    error_ = std::move(error);
  } else {
    static_cast<detail::asker&>(for_an_error_.front()).error = std::move(error);
    for_an_error_.wake_one();
  }
}

void fiber_group::let_go(detail::control_block& member) noexcept {
  static_cast<detail::list_hook<detail::group_tag>&>(member).unlink();
  --size_;
  free_place();
}

bool fiber_group::join(deadline until) {
  constexpr const char* call = "fiber_group::join";
  begin(call);
  refuse_own_member(call);
  if (taken_ == 0) {
    detail::wait_queue::breathe();
    return true;
  }
  detail::waiter w(for_room_.running(), call);
  return for_the_last_.park(w, until);
}

void fiber_group::get(deadline until) {
  constexpr const char* call = "fiber_group::get";
  begin(call);
  refuse_own_member(call);
  if (error_ != nullptr) {
    std::rethrow_exception(std::exchange(error_, nullptr));
  }
  if (taken_ == 0) {
    detail::wait_queue::breathe();
    return;
  }
  detail::asker w(for_room_.running(), call);
  if (!for_an_error_.park(w, until)) {
    throw deadline_passed("annulet: fiber_group::get: the deadline passed");
  }
  if (w.error != nullptr) {
    std::rethrow_exception(std::move(w.error));
  }
}

void fiber_group::kill() {
  require_own_thread("fiber_group::kill");
  members_.for_each([](detail::control_block& member) { detail::scheduler::current()->kill(member); });
}

void fiber_group::kill_and_join() {
  constexpr const char* call = "fiber_group::kill_and_join";
  require_own_thread(call);
  refuse_own_member(call);
  kill();
  if (taken_ == 0) {
    detail::wait_queue::breathe();
    return;
  }
  ending_ = true;
  detail::waiter w(for_room_.running(), call);
  const detail::wake_reason why = for_the_last_.park_uninterrupted(w);
  if (why != detail::wake_reason::ready) {
    detail::wait_queue::throw_cause(why, call);
  }
}

}  // namespace annulet
