#include "scheduler.hpp"

#include "cancellation.hpp"
#include "check.hpp"
#include "errors.hpp"
#include "switching.hpp"
#include "this_fiber.hpp"

#include <cxxabi.h>
#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <stdexcept>
#include <utility>

namespace annulet::detail {

constinit thread_local scheduler* scheduler::current_ = nullptr;

namespace {

void report_uncollected(const control_block& fiber, fiber_outcome outcome) noexcept {
  try {
    report(fiber.describe() +
           (outcome == fiber_outcome::error
                ? " ended by an error that nobody collected: " + what_of(fiber.error)
                : std::string(" ended by the expiry of a timeout guard that it did not catch")));
  } catch (const std::bad_alloc&) {
    report("a fiber ended by an error that nobody collected, and there is no memory to describe it");
  }
}

}  // namespace

scheduler::scheduler(idle_source& outside, const scheduler_options& options)
    : running_(&main_),
      exceptions_(reinterpret_cast<exception_state*>(abi::__cxa_get_globals())),
      errno_(&errno),
      options_(options),
      outside_(outside),
      stacks_(stack_pool::make(options.guard)),
      overflows_(options.overflows) {
  if (current_ != nullptr) {
    throw std::logic_error("annulet: this thread has a hub already; a thread has one at most");
  }
  stack_pool::release(stacks_->acquire(options.stack_size));  // refuses now what no spawn could have
  ready_.make_room(1);
  make_room_for_timers(0, 0);
  main_.owner = this;
  main_.id = next_id_++;
  main_.state = fiber_state::running;
  main_.set_name("main");
  all_.push_back(main_);
  current_ = this;
  begin_run();
  sanitize_thread();
}

scheduler::~scheduler() {
  check(current_ == this, "a hub was destroyed on another thread than its own");
  check(alive_ == 0, "a scheduler was destroyed with fibers alive");
  check(timers_.empty() && main_.expired.empty(), "a timeout guard outlives the hub it was made on");
  check(main_.shields == 0, "a shield outlives the hub it was made on");
  // Handles that outlive the hub find its absence here. Their stacks are still the pool's.
  all_.for_each([](control_block& fiber) { fiber.owner = nullptr; });
  current_ = nullptr;
  sanitize_thread_end(main_);
}

void scheduler::throw_no_hub(const char* call) {
  throw no_hub(std::string("annulet: ") + call + " needs a hub, and this thread has none");
}

// --- the switch

// The control block goes with it: all that it owned was destroyed by discard_result and the body's end.
void scheduler::free_stack(control_block& fiber) noexcept {
  const stack memory = fiber.memory;
  static_cast<list_hook<all_fibers_tag>&>(fiber).unlink();
  sanitize_end(fiber);
  stack_pool::release(memory);
}

stack scheduler::claim_stack(std::size_t size) {
  const stack memory = stacks_->acquire(size);
  try {
    // Every stack that is out may become a ready fiber, those too whose fibers are still being made.
    const std::size_t out = stacks_->in_use();
    ready_.make_room(out + 1);
    make_room_for_timers(out, guards_);
  } catch (...) {
    stack_pool::release(memory);
    throw;
  }
  return memory;
}

void scheduler::start(control_block& fiber, stack memory) noexcept {
  fiber.owner.store(this, std::memory_order_relaxed);
  fiber.id = next_id_++;
  ++spawned_;
  fiber.memory = memory;
  sanitize_start(fiber);
  auto* const top = reinterpret_cast<std::byte*>(&fiber);
  fiber.context = make_context(top, static_cast<std::size_t>(top - memory.memory.data()),
                               [](arrival from) { enter(from.fctx, from.data); });
  all_.push_back(fiber);
  ++alive_;
  if (shutting_down_) {
    kill(fiber);  // it never runs
  }
  make_ready(fiber);
}

void scheduler::run_body(control_block& self) noexcept {
  if (self.kill_pending) {
    self.ending = true;
    self.skip(self);
    self.outcome = fiber_outcome::killed;
    return;
  }
  try {
    self.run(self);
    self.outcome = fiber_outcome::value;
  } catch (const fiber_killed&) {
    self.outcome = fiber_outcome::killed;
  } catch (const timeout_expired&) {
    self.outcome = fiber_outcome::timed_out;
  } catch (...) {
    self.error = std::current_exception();
    self.outcome = fiber_outcome::error;
  }
}

// Their destructors run on the fiber's own stack, may park, and may make new ones; each still finds its own
// value. Those that make each other anew are given up after some rounds, as POSIX has it for threads.
void scheduler::discard_locals(control_block& fiber) noexcept {
  constexpr unsigned most_rounds = 4;
  for (unsigned round = 0; fiber.locals != nullptr; ++round) {
    if (round == most_rounds) {
      report("values of fiber_local that make each other anew whenever they end: some are left");
      fiber.locals = nullptr;
      return;
    }
    for (local_slot* at = fiber.locals; at != nullptr;) {
      local_slot* const next = at->next;
      at->destroy(*at);
      local_slot** link = &fiber.locals;
      while (*link != at) {  // those that were made meanwhile stand before it
        link = &(*link)->next;
      }
      *link = next;
      at = next;
    }
  }
}

// Destroys value or error. An error that was never collected is told to stderr, for nobody else will be.
void scheduler::discard_result(control_block& fiber) noexcept {
  const fiber_outcome outcome = fiber.outcome;
  fiber.outcome = fiber_outcome::none;
  if (outcome == fiber_outcome::value) {
    fiber.discard_value(fiber);
  } else if (!fiber.error_collected && outcome != fiber_outcome::killed) {
    report_uncollected(fiber, outcome);
  }
  fiber.error = nullptr;
}

void scheduler::finish(control_block& self) noexcept {
  self.ending = true;
  if (self.locals != nullptr) [[unlikely]] {
    discard_locals(self);
  }
  if (self.keeper != nullptr) {
    self.keeper->take_error(self);
  }
  if (!self.has_handle) {
    discard_result(self);
    if (self.locals != nullptr) [[unlikely]] {
      discard_locals(self);  // those that it has made
    }
  }
  self.state = fiber_state::done;
  self.interrupt_pending = false;
  while (!self.joiners.empty()) {
    self.joiners.front().wake(wake_reason::ready);
  }
  if (self.keeper != nullptr) {
    self.keeper->let_go(self);
  }
  if (--alive_ == 0 && shutdown_waiter_ != nullptr) {
    shutdown_waiter_->wake(wake_reason::ready);
  }
}

void scheduler::abandon(control_block& fiber) noexcept {
  scheduler* const owner = fiber.owner.load(std::memory_order_acquire);
  const bool is_parents = owner != current_ && is_left_to_parent(owner);
  check(owner == nullptr || owner == current_ || is_parents,
        "a fiber's handle was dropped on another thread than its hub's while the hub was alive");
  if (fiber.state != fiber_state::done) {
    fiber.has_handle = false;
    return;
  }
  discard_result(fiber);
  if (!is_parents) {
    free_stack(fiber);
  }
}

// --- yielding and parking

[[gnu::always_inline]] inline void scheduler::give_way_now() {
  control_block& self = *running_;
  if (++turns_ >= next_look_) [[unlikely]] {
    end_of_run();
  }
  if (control_block* const next = ready_.pop()) {
    make_ready(self);
    switch_to(*next);
  } else {
    ++stays_;
  }
}

[[gnu::always_inline]] inline void scheduler::yield_now() {
  give_way_now();
  if (is_interrupted()) [[unlikely]] {
    throw_interruption();
  }
}

void scheduler::yield() { yield_now(); }

void scheduler::give_way() {
  breaths_ = 0;
  look_outside();
  give_way_now();
  if (is_interrupted()) {
    breaths_ = work_between_yields;  // for throw_if_overdue
  }
}

void scheduler::go_on_alone() noexcept {
  begin_run();
  breaths_ = is_interrupted() ? work_between_yields : 0;  // for throw_if_overdue
}

void scheduler::throw_if_interrupted() {
  if (is_interrupted()) [[unlikely]] {
    throw_interruption();
  }
}

wake_reason scheduler::park(waiter& w, deadline until, wakers who) { return park_here(w, until, who); }

wake_reason scheduler::park_and_tell(waiter& w, deadline until, wakers who) { return block(w, until, who); }

wake_reason scheduler::park_uninterrupted(waiter& w, deadline until, wakers who) {
  w.interruptible_ = false;
  return block(w, until, who);
}

void scheduler::stop_waiting(waiter& w) noexcept {
  if (w.why_ == wake_reason::none) {
    w.why_ = wake_reason::ready;
    timers_.disarm(w);
  }
}

// The bottom frame of every fiber but main.
void scheduler::enter(void* stopped_at, void* from) noexcept {
  sanitize_arrival(nullptr, *static_cast<control_block*>(from));
  arrive(stopped_at, from);
  scheduler& here = *current_;
  *here.exceptions_ = {};
  *here.errno_ = 0;
  control_block& self = *here.running_;
  here.run_body(self);
  if (here.left_to_parent_) [[unlikely]] {
    end_forked_child(self);
  }
  here.finish(self);
  here.dispatch();
  fail("a finished fiber was resumed");
}

// As main's return does.
void scheduler::end_forked_child(control_block& self) noexcept {
  const bool failed = self.outcome == fiber_outcome::error || self.outcome == fiber_outcome::timed_out;
  if (failed) {
    report_uncollected(self, self.outcome);
  }
  std::exit(failed ? EXIT_FAILURE : EXIT_SUCCESS);
}

// --- the world outside

// The bounded run of turns is over. While slices are measured each turn is such a run.
void scheduler::end_of_run() {
  if (options_.slow_slice != 0 && turns_ < look_due_) {
    end_slice();
    next_look_ = turns_ + 1;
  } else {
    look_outside();
  }
}

void scheduler::begin_run() noexcept {
  knows_time_ = false;
  next_look_ = look_due_ = turns_ + options_.look_every;
  if (options_.slow_slice != 0) {
    next_look_ = turns_ + 1;
    slice_began_ = outside_.now();
  }
}

void scheduler::read_time() noexcept {
  about_now_ = outside_.about_now();
  knows_time_ = true;
}

void scheduler::look_outside() {
  const int kept = *errno_;
  if (options_.slow_slice != 0) {
    end_slice();
  }
  outside_.look();
  begin_run();
  if (!timers_.empty()) {
    timers_.fire_due(outside_.now());
  }
  *errno_ = kept;
}

void scheduler::wait_outside() {
  const int kept = *errno_;
  if (timers_.empty() && outside_waits_ == 0 && !outside_.has_outside_handles()) [[unlikely]] {
    declare_deadlock();
    return;
  }
  if (stacks_->has_surplus()) [[unlikely]] {
    trim_or_wait();
  } else if (timers_.empty()) {
    outside_.wait(deadline::never());
  } else {
    outside_.wait(
        deadline(std::chrono::steady_clock::time_point(std::chrono::nanoseconds(timers_.earliest()))));
    if (!timers_.empty()) {
      timers_.fire_due(outside_.now());
    }
  }
  begin_run();
  about_now_ = outside_.about_now();  // a core file shows that the others have waited, whatever comes next
  *errno_ = kept;
}

// Stacks that have been idle are trimmed a few at a time, so that what happens meanwhile waits no longer than
// for a fiber that runs.
void scheduler::trim_or_wait() {
  if (stacks_->trim_some(outside_.now())) {
    outside_.look();
  } else {
    const std::int64_t next = stacks_->next_trim();
    const std::int64_t until = timers_.empty() ? next : std::min(next, timers_.earliest());
    outside_.wait(deadline(std::chrono::steady_clock::time_point(std::chrono::nanoseconds(until))));
  }
  if (!timers_.empty()) {
    timers_.fire_due(outside_.now());
  }
}

// --- the end

void scheduler::shut_down(deadline limit) {
  check(on_main(), "a hub was destroyed by another fiber than its thread's main one");
  main_.ending = true;
  discard_locals(main_);
  shutting_down_ = true;
  all_.for_each([this](control_block& fiber) {
    if (&fiber != &main_) {
      kill(fiber);
    }
  });
  if (alive_ == 0) {
    return;
  }
  waiter all_ended(main_, "the end of its hub");
  shutdown_waiter_ = &all_ended;
  const wake_reason why = park_uninterrupted(all_ended, limit, wakers::outside);
  shutdown_waiter_ = nullptr;
  if (why != wake_reason::ready) {
    fail("the hub ends, and after its shutdown limit these fibers have not ended, though killed\n" +
         dump(dump_format::text));
  }
}

}  // namespace annulet::detail

namespace annulet {

// Here, for the whole of a switch to be one function: each return that the CPU has to predict anew costs as
// much as the jump itself.
void this_fiber::yield() { detail::scheduler::here("this_fiber::yield").yield_now(); }

}  // namespace annulet
