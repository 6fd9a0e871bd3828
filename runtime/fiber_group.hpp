// Fibers that belong together: joined or killed all at once, and, if wanted, so many at a time.
//
//   annulet::fiber_group handlers(1000);              // a pool: the 1001st spawn waits
//   while (auto conn = accept(listener)) handlers.spawn([c = std::move(conn)] { serve(c); });
//   handlers.kill();
//   handlers.join();
//
// For the fibers of one thread. The group keeps nothing of a fiber that has ended but the first error.
#pragma once

#include "control_block.hpp"
#include "deadline.hpp"
#include "fiber.hpp"
#include "semaphore.hpp"
#include "wait_queue.hpp"

#include <concepts>
#include <cstddef>
#include <exception>
#include <source_location>
#include <type_traits>
#include <utility>

namespace [[gnu::visibility("default")]] annulet {

class fiber_group;

namespace detail {

// Lies in the member's frame beside what it calls, and ends with that, also where it never ran.
class membership : public list_hook<> {
 public:
  explicit membership(fiber_group& of) noexcept;
  membership(membership&& other) noexcept;  // while it is being spawned
  ~membership();

  // After the member's function threw: the group's, where that has none yet; else, and a kill, thrown on.
  void take_error() const;

 private:
  friend class annulet::fiber_group;

  [[nodiscard]] bool takes_error() const noexcept;
  void note(std::exception_ptr error) const noexcept;

  fiber_group* group_;
  control_block* fiber_ = nullptr;
};

template <class F>
struct member_call {
  void operator()() {
    try {
      (void)std::move(function)();
    } catch (...) {
      as_member.take_error();
    }
  }
  membership as_member;
  F function;
};

}  // namespace detail

class fiber_group {
 public:
  static constexpr std::size_t unlimited = semaphore::unbounded;

  // So many members at a time. std::invalid_argument for 0.
  explicit fiber_group(std::size_t limit = unlimited);
  fiber_group(const fiber_group&) = delete;
  fiber_group& operator=(const fiber_group&) = delete;
  // Kills those that are left, without waiting for them. An error that get() did not tell is reported on
  // stderr, as from then on are theirs.
  ~fiber_group();

  // Makes a member that calls f(); what it returns is dropped. Parks while there are as many as the limit.
  // False where the deadline came first. Throws what annulet::spawn does, and what ends a wait.
  template <std::invocable F>
  bool spawn(F&& f, deadline until = deadline::never(),
             std::source_location place = std::source_location::current()) {
    return spawn(spawn_options{.place = place}, std::forward<F>(f), until);
  }
  template <std::invocable F>
  bool spawn(const spawn_options& options, F&& f, deadline until = deadline::never()) {
    require_own_thread("fiber_group::spawn");
    if (!permits_.acquire(until)) {
      return false;
    }
    using call = detail::member_call<std::decay_t<F>>;
    begin(annulet::spawn(options, call{detail::membership(*this), std::forward<F>(f)}));
    return true;
  }

  // Parks until no member is left; throws nothing of theirs. False where the deadline came first.
  // std::logic_error for a member, which would wait for itself.
  bool join(deadline until = deadline::never());
  // Parks likewise, but only until one has failed, and throws what it threw: once. deadline_passed where the
  // deadline came first.
  void get(deadline until = deadline::never());
  // Kills all members. Does not wait for their end, and more can be spawned.
  void kill();

  // Kills all members, those too that they spawn while they end, and parks until the last has ended. Nothing
  // interrupts that.
  void kill_and_join();

  [[nodiscard]] std::size_t size() const noexcept { return size_; }
  [[nodiscard]] bool empty() const noexcept { return size_ == 0; }
  // Whether one has thrown, and get() has not told it yet.
  [[nodiscard]] bool failed() const noexcept { return error_ != nullptr; }

 private:
  friend class detail::membership;

  void require_own_thread(const char* call);
  void begin(fiber<void>&& member);
  void refuse_own_member(const char* call);

  semaphore permits_;
  detail::wait_queue waiting_;
  detail::intrusive_list<detail::membership> members_;
  detail::membership* newest_ = nullptr;
  std::size_t size_ = 0;
  bool ending_ = false;  // new members are killed at once
  std::exception_ptr error_;
};

}  // namespace annulet
