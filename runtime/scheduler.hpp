// One scheduler a thread: its fibers, which of them are ready, and the time.
//
// There is no scheduler fiber. A fiber that parks takes the next ready one and jumps straight to it; where
// none is ready it runs the hub's wait on its own stack, and if it is the one woken there, nothing is
// switched at all. A fiber never changes thread.
//
// Nothing here is thread-safe but current(). Everything is reached from the thread that made the scheduler.
#pragma once

#include "control_block.hpp"
#include "deadline.hpp"
#include "dump_fibers.hpp"
#include "idle_source.hpp"
#include "ready_queue.hpp"
#include "stack.hpp"
#include "stack_overflow.hpp"
#include "this_fiber.hpp"
#include "timer_queue.hpp"
#include "waiter.hpp"

#include <cstddef>
#include <cstdint>
#include <exception>
#include <memory>
#include <span>
#include <string>

namespace annulet::detail {

struct scheduler_options {
  std::size_t stack_size = default_stack_size;
  stack_guard guard = stack_guard::best;
  unsigned look_every = 64;     // switches between two looks at the world outside
  std::int64_t slow_slice = 0;  // nanoseconds: who runs for longer without a switch is reported; 0 for never
  overflow_report overflows = overflow_report::on_stderr;
};

// Since the scheduler was made.
struct scheduler_counts {
  std::uint64_t spawned = 0;
  std::uint64_t switches = 0;  // from one fiber to another
  std::uint64_t parks = 0;     // a park that is woken without a switch is one, too
  std::uint64_t wakes = 0;
};

class scheduler {
 public:
  // Makes the calling context this thread's main fiber. Throws std::logic_error where the thread has one
  // already.
  scheduler(idle_source& outside, const scheduler_options& options);
  ~scheduler();
  scheduler(const scheduler&) = delete;
  scheduler& operator=(const scheduler&) = delete;

  [[nodiscard]] static scheduler* current() noexcept { return current_; }
  // This thread's. Throws no_hub, naming the call that needed it.
  [[nodiscard]] static scheduler& here(const char* call) {
    if (current_ == nullptr) [[unlikely]] {
      throw_no_hub(call);
    }
    return *current_;
  }

  [[nodiscard]] control_block& running() noexcept { return *running_; }
  [[nodiscard]] bool on_main() const noexcept { return running_ == &main_; }
  [[nodiscard]] std::int64_t now() const noexcept { return outside_.now(); }

  // Lets every ready fiber run once, and throws what is pending for this one.
  void yield();
  // For calls that find what they want without parking: after so much work of theirs (events, bytes in units
  // of their own) the world outside is looked at and others run, so that they starve nobody.
  void breathe(std::size_t work) {
    if (due_to_breathe(work)) [[unlikely]] {
      breathe_now();
    }
  }
  // The two halves of it, for who has to see to something in between.
  [[nodiscard]] bool due_to_breathe(std::size_t work) noexcept {
    breaths_ += work;
    return breaths_ >= work_between_yields;
  }
  void breathe_now() {
    breaths_ = 0;
    look_outside();
    yield();
  }
  // The same for who has taken something already: what is pending stays so, and the next call that may park
  // throws it, by throw_if_overdue().
  void breathe_quietly(std::size_t work) {
    if (due_to_breathe(work)) [[unlikely]] {
      give_way();
    }
  }
  void throw_if_overdue() {
    if (breaths_ >= work_between_yields) [[unlikely]] {
      throw_if_interrupted();
    }
  }
  // The same without regard to work done.
  void give_way();
  // Whether that would have others run: one is ready, or a look outside may find something, or a timer is
  // due; or would end a slice that is measured. A handler may ask, whatever it has interrupted.
  [[nodiscard]] bool others_have_turns() const noexcept {
    return !ready_.empty() || options_.slow_slice != 0 || outside_.may_have_news() ||
           (!timers_.empty() && timers_.earliest() <= outside_.now());
  }
  // What it does else. A handler may do that, too.
  void go_on_alone() noexcept;
  // Parks the running fiber until `w` is woken or the deadline is reached, and says which; `none` for a hint,
  // after which it parks again with the same waiter, or calls stop_waiting(). Throws
  // fiber_killed, timeout_expired or deadlock, before it parks or out of the park, unless an exception
  // is in flight: then they stay pending.
  wake_reason park(waiter& w, deadline until, wakers who);
  // The running fiber does not wait any more, though nobody may have woken it.
  void stop_waiting(waiter& w) noexcept;
  // park() as a part of the function that calls it: switching.hpp.
  wake_reason park_here(waiter& w, deadline until, wakers who);
  // The same, but nothing interrupts it: for what must be waited for.
  wake_reason park_uninterrupted(waiter& w, deadline until, wakers who);

  // The same as park, but says `interrupted` where that would throw, for who has to take something back
  // first. He then calls throw_interruption(), or does not: what interrupted him stays pending.
  wake_reason park_and_tell(waiter& w, deadline until, wakers who);
  [[noreturn]] void throw_interruption() { throw_interruption(*running_); }
  // What park does before it parks.
  void throw_if_interrupted();
  [[nodiscard]] bool is_interrupted() const noexcept;

  void make_ready(control_block& fiber) noexcept {
    fiber.state = fiber_state::ready;
    ready_.push(fiber);
  }
  [[nodiscard]] std::size_t ready_fibers() const noexcept { return ready_.size(); }
  // How many switches there are between two looks at the world outside.
  [[nodiscard]] unsigned look_every() const noexcept { return options_.look_every; }
  timer_queue& timers() noexcept { return timers_; }
  // Room among the timers for a guard. Claiming may throw std::bad_alloc, and has then changed nothing.
  void claim_guard() {
    make_room_for_timers(stacks_->in_use(), guards_ + 1);
    ++guards_;
  }
  void give_back_guard() noexcept { --guards_; }
  // For other threads, which may keep it.
  [[nodiscard]] std::shared_ptr<door> way_in() const noexcept { return outside_.way_in(); }

  // The two steps of a spawn. Claiming may throw, and has then changed nothing.
  [[nodiscard]] stack claim_stack(std::size_t size);
  void start(control_block& fiber, stack memory) noexcept;
  [[nodiscard]] std::size_t stack_size() const noexcept { return options_.stack_size; }

  // What the thread's stacks that nobody uses hold goes back to the kernel.
  void trim_stacks() noexcept { stacks_->trim_all(); }
  // For a handler that has interrupted whatever call: the stack whose guard this is an address of, or an
  // empty one, and the fiber on a stack, or null.
  [[nodiscard]] std::span<std::byte> guarded_at(const void* address) const noexcept {
    return stacks_->guarded_at(address);
  }
  [[nodiscard]] const control_block* fiber_on(const std::byte* stack_start) noexcept;

  void kill(control_block& fiber) noexcept;
  // Something became pending for the fiber: ends its park, where that may be ended.
  void interrupt(control_block& fiber) noexcept;
  // The handle is gone.
  static void abandon(control_block& fiber) noexcept;

  // The hub's end: kills every fiber but the main one, which must be running, and drives the loop until all
  // have ended. Those that have not when the limit is over are named on stderr, and the process aborts.
  void shut_down(deadline limit);
  // In a forked child: no fiber but the one that called fork goes on, and where that is not main, the process
  // ends with it. Nothing here is ever destroyed. One of another thread may have been in the middle of
  // anything, so nothing of it is looked at.
  void leave_to_parent() noexcept;
  [[nodiscard]] static bool in_forked_child() noexcept { return left_ != nullptr; }
  [[nodiscard]] bool is_left_to_parent() const noexcept { return left_to_parent_; }
  // The same of one that may be gone.
  [[nodiscard]] static bool is_left_to_parent(const scheduler* maybe) noexcept;
  // As main's return does. `error`: what the function that forked has ended by, or null.
  [[noreturn]] static void end_forked_child(const char* whose, const std::exception_ptr& error) noexcept;
  [[nodiscard]] bool is_shutting_down() const noexcept { return shutting_down_; }

  // Every fiber that is alive: dump_fibers.hpp.
  [[nodiscard]] std::string dump(dump_format how);
  [[nodiscard]] std::size_t fibers() const noexcept { return alive_; }
  [[nodiscard]] scheduler_counts counts() const noexcept {
    return {.spawned = spawned_, .switches = turns_ - stays_, .parks = parks_, .wakes = wakes_};
  }
  void count_wake() noexcept { ++wakes_; }

 private:
  static constexpr std::size_t work_between_yields = 64;

  friend void this_fiber::yield();

  struct main_block final : control_block {};

  [[noreturn, gnu::cold]] static void throw_no_hub(const char* call);
  static void enter(void* stopped_at, void* from) noexcept;
  void run_body(control_block& self) noexcept;
  void finish(control_block& self) noexcept;
  [[noreturn]] static void end_forked_child(control_block& self) noexcept;
  // One timer for each fiber, with main's, and one for each guard.
  void make_room_for_timers(std::size_t spawned, std::size_t guards) {
    timers_.make_room(spawned + 1 + guards);
  }
  static void discard_locals(control_block& fiber) noexcept;
  static void discard_result(control_block& fiber) noexcept;
  static void free_stack(control_block& fiber) noexcept;
  void give_way_now();
  void yield_now();
  wake_reason block(waiter& w, deadline until, wakers who);
  void dispatch();
  void switch_to(control_block& next) noexcept;
  static void arrive(void* stopped_at, void* from) noexcept;
  void end_of_run();
  void begin_run() noexcept;
  void read_time() noexcept;
  void end_slice() noexcept;
  void look_outside();
  void wait_outside();
  [[gnu::cold]] void trim_or_wait();
  void declare_deadlock();
  [[noreturn]] void throw_interruption(control_block& self);
  [[nodiscard]] bool interruptible(const control_block& fiber) const noexcept;

  [[gnu::visibility("hidden")]] static constinit thread_local scheduler* current_;
  [[gnu::visibility("hidden")]] static constinit scheduler* left_;  // to the parent: the first

  control_block* running_;
  ready_queue ready_;
  exception_state* exceptions_;  // this thread's, whose address never changes
  int* errno_;                   // likewise
  std::uint64_t turns_ = 0;      // given: yields, parks, ends
  std::uint64_t next_look_ = 0;  // when turns_ has come so far
  std::size_t breaths_ = 0;      // work done since the last park, or yield of this kind
  std::uint64_t stays_ = 0;      // turns after which the same fiber went on: all others were switches
  std::uint64_t spawned_ = 0;
  std::uint64_t parks_ = 0;
  std::uint64_t wakes_ = 0;
  scheduler_options options_;
  idle_source& outside_;
  timer_queue timers_;
  std::uint64_t look_due_ = 0;  // the same, where each slice is measured
  std::int64_t about_now_ = 0;  // as of the first park since a look or wait, or of that wait
  std::int64_t slice_began_ = 0;
  std::size_t guards_ = 0;
  stack_pool::owner stacks_;
  intrusive_list<control_block, all_fibers_tag> all_;  // done ones with a handle, too
  std::size_t alive_ = 0;                              // spawned and not done
  std::size_t outside_waits_ = 0;                      // parked, and wakeable from outside
  std::uint64_t next_id_ = 1;
  waiter* shutdown_waiter_ = nullptr;
  bool knows_time_ = false;  // about_now_ was read in this run of turns
  bool shutting_down_ = false;
  bool left_to_parent_ = false;
  scheduler* next_left_ = nullptr;
  std::string deadlock_list_;
  main_block main_;
  overflow_watch overflows_;
};

}  // namespace annulet::detail
