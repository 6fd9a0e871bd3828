// Fibers that belong together: joined or killed all at once, and, if wanted, so many at a time.
//
//   annulet::fiber_group handlers(1000);              // a pool: the 1001st spawn waits
//   while (auto conn = accept(listener)) handlers.spawn([c = std::move(conn)] { serve(c); });
//   handlers.kill();
//   handlers.join();
//
// For the fibers of one thread. A group keeps nothing of a member that has ended but the first error. A
// member has ended when all that it had is destroyed: callable, fiber-locals and frame.
#pragma once

#include "control_block.hpp"
#include "deadline.hpp"
#include "fiber.hpp"
#include "wait_queue.hpp"

#include <concepts>
#include <cstddef>
#include <exception>
#include <functional>
#include <limits>
#include <source_location>
#include <type_traits>
#include <utility>

namespace [[gnu::visibility("default")]] annulet {

class fiber_group;

namespace detail {

// What a spawn has of a group until there is a member that has it. In the frame of the spawn, which may park
// before that: the group can end meanwhile.
class place_in_group : public list_hook<> {
 public:
  // Parks until there is room.
  place_in_group(fiber_group& group, deadline until);
  ~place_in_group();

  // Whether there was room before the deadline.
  [[nodiscard]] explicit operator bool() const noexcept { return had_; }
  void give_to(fiber<void>&& member);

 private:
  friend class annulet::fiber_group;

  fiber_group* group_;
  bool had_ = false;
};

struct call_and_drop {
  template <class F>
  void operator()(F&& f) const {
    (void)std::invoke(std::forward<F>(f));
  }
};

}  // namespace detail

class fiber_group final : private detail::member_keeper {
 public:
  static constexpr std::size_t unlimited = std::numeric_limits<std::ptrdiff_t>::max();

  // So many members at a time. std::invalid_argument for 0, and for more than `unlimited`, as what was
  // negative is.
  explicit fiber_group(std::size_t limit = unlimited);
  fiber_group(const fiber_group&) = delete;
  fiber_group& operator=(const fiber_group&) = delete;
  // Kills those that are left, without waiting for them. An error that get() did not tell is reported on
  // stderr, as from then on are theirs. Fibers that still wait get std::logic_error out of their call.
  ~fiber_group();

  // Makes a member that calls f(); what it returns is dropped. Parks while there are as many as the limit; a
  // member that spawns so into its own group may wait for itself. False where the deadline came first. Throws
  // what annulet::spawn does, and what ends a wait; and std::logic_error where the group was destroyed
  // meanwhile, or kill_and_join() is ending it, and the caller is no member. Then nothing was spawned.
  template <class F>
  requires std::invocable<std::decay_t<F>>
  bool spawn(F&& f, deadline until = deadline::never(),
             std::source_location place = std::source_location::current()) {
    return spawn(spawn_options{.place = place}, std::forward<F>(f), until);
  }
  template <class F>
  requires std::invocable<std::decay_t<F>>
  bool spawn(const spawn_options& options, F&& f, deadline until = deadline::never()) {
    detail::place_in_group place(*this, until);
    if (!place) {
      return false;
    }
    place.give_to(annulet::spawn(options, detail::call_and_drop(), std::forward<F>(f)));
    return true;
  }

  // Parks until the last member has ended; throws nothing of theirs. False where the deadline came first.
  // std::logic_error for a member, which would wait for itself.
  bool join(deadline until = deadline::never());
  // Parks likewise, but only until one has failed, and throws what it threw: once. Each failure is told to
  // one that waits, or kept for the next call; one more that nobody has asked for is reported on stderr.
  // fiber_failed for one that was ended by a timeout guard; deadline_passed where the deadline came first.
  void get(deadline until = deadline::never());
  // Kills all members. Does not wait for their end, and more can be spawned.
  void kill();

  // Kills all members, those too that are spawned until the last has ended, and parks until it has. Nothing
  // interrupts that.
  void kill_and_join();

  [[nodiscard]] std::size_t size() const noexcept { return size_; }
  [[nodiscard]] bool empty() const noexcept { return size_ == 0; }
  // Whether one has thrown, and get() has not told it yet.
  [[nodiscard]] bool failed() const noexcept { return error_ != nullptr; }

 private:
  friend class detail::place_in_group;

  void begin(const char* call);
  void require_own_thread(const char* call);
  void refuse_own_member(const char* call);
  void free_place() noexcept;
  void adopt(detail::control_block& member) noexcept;
  void take_error(detail::control_block& member) noexcept override;
  void let_go(detail::control_block& member) noexcept override;

  const std::size_t limit_;
  std::size_t taken_ = 0;  // places
  std::size_t size_ = 0;
  bool ending_ = false;  // until the last has ended new members are killed at once
  std::exception_ptr error_;
  detail::wait_queue for_room_;
  detail::wait_queue for_the_last_;
  detail::wait_queue for_an_error_;
  detail::intrusive_list<detail::place_in_group> places_;
  detail::intrusive_list<detail::control_block, detail::group_tag> members_;
};

}  // namespace annulet
