#include "fiber_group.hpp"

#include "cancellation.hpp"
#include "check.hpp"
#include "errors.hpp"
#include "scheduler.hpp"

#include <stdexcept>
#include <string>
#include <utility>

namespace annulet {

namespace detail {

membership::membership(fiber_group& of) noexcept : group_(&of) {
  of.members_.push_back(*this);
  of.newest_ = this;
  ++of.size_;
}

membership::membership(membership&& other) noexcept : group_(std::exchange(other.group_, nullptr)) {
  other.unlink();
  group_->members_.push_back(*this);
  group_->newest_ = this;
}

// The fiber has run to its end, but for what is left of its frame; who is woken here runs after that.
membership::~membership() {
  if (group_ == nullptr) {
    return;
  }
  unlink();
  group_->permits_.release();
  if (--group_->size_ == 0) {
    group_->waiting_.wake_all();
  }
}

void membership::take_error() const {
  try {
    throw;
  } catch (const fiber_killed&) {
    throw;
  } catch (const timeout_expired&) {
    if (takes_error()) {
      note(std::make_exception_ptr(fiber_failed("annulet: " + fiber_->describe() +
                                                " was ended by a timeout guard that it did not catch")));
    } else {
      throw;
    }
  } catch (...) {
    if (takes_error()) {
      note(std::current_exception());
    } else {
      throw;
    }
  }
}

bool membership::takes_error() const noexcept { return group_ != nullptr && group_->error_ == nullptr; }

void membership::note(std::exception_ptr error) const noexcept {
  group_->error_ = std::move(error);
  group_->waiting_.wake_all();
}

}  // namespace detail

fiber_group::fiber_group(std::size_t limit) : permits_(limit, limit) {
  if (limit == 0) {
    throw std::invalid_argument("annulet: fiber_group: a limit of 0");
  }
}

fiber_group::~fiber_group() {
  members_.for_each([](detail::membership& m) {
    detail::scheduler* const owner = m.fiber_->owner.load(std::memory_order_relaxed);
    detail::check(owner == detail::scheduler::current(),
                  "a fiber_group was destroyed on another thread than that of its fibers");
    m.group_ = nullptr;
    owner->kill(*m.fiber_);
  });
  if (error_ != nullptr) {
    detail::report("a fiber of a group ended by an error that nobody collected: " + detail::what_of(error_));
  }
}

namespace {

struct revealed : fiber<void> {
  explicit revealed(fiber<void>&& f) noexcept : fiber(std::move(f)) {}
  [[nodiscard]] detail::control_block* block() const noexcept { return block_; }
};

}  // namespace

void fiber_group::require_own_thread(const char* call) { waiting_.require_own_thread(call, size_ != 0); }

void fiber_group::begin(fiber<void>&& member) {
  revealed started(std::move(member));
  newest_->fiber_ = started.block();
  if (ending_) {
    started.kill();
  }
  started.detach();
}

void fiber_group::refuse_own_member(const char* call) {
  detail::control_block* const self = &waiting_.running();
  bool own = false;
  members_.for_each([&](detail::membership& m) { own = own || m.fiber_ == self; });
  if (own) {
    throw std::logic_error(std::string("annulet: ") + call + ": " + self->describe() +
                           " is a member, and would wait for itself");
  }
}

bool fiber_group::join(deadline until) {
  constexpr const char* call = "fiber_group::join";
  waiting_.begin(call, size_ != 0);
  refuse_own_member(call);
  while (size_ != 0) {
    detail::waiter w(waiting_.running());
    if (!waiting_.park(w, until, call)) {
      return false;
    }
  }
  waiting_.breathe();
  return true;
}

void fiber_group::get(deadline until) {
  constexpr const char* call = "fiber_group::get";
  waiting_.begin(call, size_ != 0);
  refuse_own_member(call);
  while (size_ != 0 && error_ == nullptr) {
    detail::waiter w(waiting_.running());
    if (!waiting_.park(w, until, call)) {
      throw deadline_passed("annulet: fiber_group::get: the deadline passed");
    }
  }
  if (error_ != nullptr) {
    std::rethrow_exception(std::exchange(error_, nullptr));
  }
}

void fiber_group::kill() {
  require_own_thread("fiber_group::kill");
  members_.for_each([](detail::membership& m) { detail::scheduler::current()->kill(*m.fiber_); });
}

void fiber_group::kill_and_join() {
  constexpr const char* call = "fiber_group::kill_and_join";
  require_own_thread(call);
  refuse_own_member(call);
  kill();
  ending_ = true;
  while (size_ != 0) {
    detail::waiter w(waiting_.running());
    const detail::wake_reason why = waiting_.park_uninterrupted(w);
    if (why != detail::wake_reason::ready) {
      detail::wait_queue::throw_cause(why, call);
    }
  }
  ending_ = false;
}

}  // namespace annulet
