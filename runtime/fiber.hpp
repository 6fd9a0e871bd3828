// Fibers: functions that run side by side on one thread and switch only where they wait.
//
//   auto answer = annulet::spawn([] { annulet::this_fiber::sleep_for(1s); return 42; });
//   int x = answer.get();
//
// A fiber starts when its spawner parks or yields, and never leaves the thread it was spawned on.
#pragma once

#include "control_block.hpp"
#include "deadline.hpp"
#include "errors.hpp"
#include "this_fiber.hpp"

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <new>
#include <optional>
#include <source_location>
#include <string_view>
#include <tuple>
#include <type_traits>
#include <utility>

namespace [[gnu::visibility("default")]] annulet {

struct spawn_options {
  std::string_view name = {};               // shown in reports; the first 31 bytes are kept
  std::optional<std::size_t> stack_size{};  // bytes; by default the hub's
  std::source_location place = std::source_location::current();
};

namespace detail {

template <class T>
class result_block : public control_block {
 public:
  using stored = std::conditional_t<std::is_reference_v<T>, std::remove_reference_t<T>*, T>;

  result_block() noexcept {}
  ~result_block() {}

  template <class Call>
  void store(Call&& call) {
    if constexpr (std::is_reference_v<T>) {
      auto&& referred = std::forward<Call>(call)();
      value_ = std::addressof(referred);
    } else {
      ::new (static_cast<void*>(std::addressof(value_))) T(std::forward<Call>(call)());
    }
  }
  T take() {
    if constexpr (std::is_reference_v<T>) {
      return static_cast<T>(*value_);
    } else {
      return std::move(value_);
    }
  }
  void discard() noexcept { std::destroy_at(std::addressof(value_)); }

 private:
  union {
    stored value_;
  };
};

template <>
class result_block<void> : public control_block {
 public:
  template <class Call>
  void store(Call&& call) {
    std::forward<Call>(call)();
  }
  void take() noexcept {}
  void discard() noexcept {}
};

// Callable and result, at the top of the stack that they run on.
template <class T, class F, class... Args>
class fiber_frame final : public result_block<T> {
 public:
  template <class G, class... Given>
  explicit fiber_frame(G&& f, Given&&... args) : call_{std::forward<G>(f), {std::forward<Given>(args)...}} {
    this->run = [](control_block& self) {
      auto& frame = static_cast<fiber_frame&>(self);
      const call_end destroys(frame);
      frame.store([&]() -> T { return std::apply(std::move(frame.call_.f), std::move(frame.call_.args)); });
    };
    this->skip = [](control_block& self) noexcept {
      const call_end destroys(static_cast<fiber_frame&>(self));
    };
    this->discard_value = [](control_block& self) noexcept { static_cast<fiber_frame&>(self).discard(); };
  }
  ~fiber_frame() {}

 private:
  struct bound {
    F f;
    std::tuple<Args...> args;
  };
  struct call_end {
    explicit call_end(fiber_frame& f) noexcept : frame(f) {}
    ~call_end() {
      frame.ending = true;
      std::destroy_at(std::addressof(frame.call_));
    }
    fiber_frame& frame;
  };

  union {
    bound call_;
  };
};

// Where a new fiber's frame goes. Gives the stack back unless the fiber was started.
class spawn_room {
 public:
  // Throws no_hub, std::invalid_argument (stack size) or std::system_error (no memory for a stack).
  spawn_room(const spawn_options& options, std::size_t frame_size, std::size_t alignment);
  ~spawn_room();
  spawn_room(const spawn_room&) = delete;
  spawn_room& operator=(const spawn_room&) = delete;

  [[nodiscard]] void* place() const noexcept { return place_; }
  // The fiber is ready to run, and has a handle.
  void start(control_block& fiber, const spawn_options& options) noexcept;

 private:
  scheduler& here_;
  stack memory_;
  void* place_;
};

// The part of a handle that knows no type.
class fiber_handle {
 public:
  fiber_handle() noexcept = default;
  fiber_handle(fiber_handle&& other) noexcept : block_(std::exchange(other.block_, nullptr)) {}
  fiber_handle& operator=(fiber_handle&& other) noexcept {
    if (this != &other) {
      drop();
      block_ = std::exchange(other.block_, nullptr);
    }
    return *this;
  }

  // Whether there is a fiber behind it: not after a move, nor after detach().
  [[nodiscard]] explicit operator bool() const noexcept { return block_ != nullptr; }

  // Parks until the fiber has ended, however it did; throws nothing of its. A fiber that joins itself gets
  // std::logic_error.
  void join() { (void)join(deadline::never()); }
  // False where the deadline came first.
  bool join(deadline until) { return join(until, "join"); }
  // Ends the fiber where it is parked, or at its next park or yield; one that has not begun never runs. Does
  // not wait for that. Nothing happens to one that is done.
  void kill();
  // The fiber goes on by itself, as it does when the handle is destroyed. Its result is discarded when it
  // ends.
  void detach();

  [[nodiscard]] bool done() const;
  [[nodiscard]] std::uint64_t id() const;
  [[nodiscard]] std::string_view name() const;
  // How far down its stack memory was touched, in bytes, in whole pages: by this fiber, or by another that
  // had the stack before, since it was mapped or trimmed (hub.hpp). So it is what the fiber needed at most,
  // and exact on a fresh stack; less where pages were swapped out. Also of one that is done. Some system
  // calls.
  [[nodiscard]] std::size_t stack_used() const;

 protected:
  friend struct lines;
  friend class place_in_group;

  explicit fiber_handle(control_block& block) noexcept : block_(&block) {}
  ~fiber_handle() { drop(); }

  bool join(deadline until, const char* call);
  // The block, if this call may be made: throws std::logic_error (empty), wrong_thread, hub_gone.
  [[nodiscard]] control_block& require(const char* call) const;
  // Parks until done; throws the body's error, fiber_failed, or deadline_passed.
  void await_value(deadline until);
  void drop() noexcept;

  control_block* block_ = nullptr;
};

}  // namespace detail

// Owns nothing but the right to ask: a fiber lives on without its handle. Move-only, for its hub's thread;
// when the hub has ended, all handles of its fibers are for one thread, whichever that is.
// Every call throws std::logic_error on an empty handle, wrong_thread from another thread, and hub_gone when
// the hub has ended.
template <class T>
class fiber : public detail::fiber_handle {
 public:
  fiber() noexcept = default;
  explicit fiber(detail::result_block<T>& block) noexcept : fiber_handle(block) {}

  // Parks until the fiber has ended; moves its value out, or throws what it threw. For one that was killed or
  // that let a timeout escape: fiber_failed. With a deadline that comes first: deadline_passed.
  // A value can be had once: after that std::logic_error.
  T get(deadline until = deadline::never()) {
    await_value(until);
    return static_cast<detail::result_block<T>*>(block_)->take();
  }
};

namespace detail {

template <class F, class... Args>
using spawned = std::invoke_result_t<std::decay_t<F>, std::decay_t<Args>...>;

template <class F, class... Args>
concept spawnable = std::invocable<std::decay_t<F>, std::decay_t<Args>...>;

template <class F, class... Args>
auto spawn_call(const spawn_options& options, F&& f, Args&&... args) {
  using T = spawned<F, Args...>;
  using frame = fiber_frame<T, std::decay_t<F>, std::decay_t<Args>...>;
  // The room first: where none is to be had, nothing has been moved out of the arguments.
  spawn_room room(options, sizeof(frame), alignof(frame));
  auto* const block = ::new (room.place()) frame(std::forward<F>(f), std::forward<Args>(args)...);
  room.start(*block, options);
  return fiber<T>(*block);
}

}  // namespace detail

// Makes a fiber that calls f(args...), both copied or moved into it, and puts it at the end of the ready
// fibers; does not park. Throws no_hub, std::invalid_argument for a stack size out of bounds or too small for
// the arguments, std::system_error (ENOMEM) where no stack is to be had, and what copying throws; then
// nothing was spawned, and where it was for the stack nothing was moved out of the arguments either.
template <class F, class... Args>
requires detail::spawnable<F, Args...>
auto spawn(spawn_options options, F&& f, Args&&... args) {
  return detail::spawn_call(options, std::forward<F>(f), std::forward<Args>(args)...);
}

// The same without options, for up to four arguments: a default argument that says where the call stands
// cannot follow a parameter pack.
template <class F>
requires detail::spawnable<F>
auto spawn(F&& f, std::source_location place = std::source_location::current()) {
  return detail::spawn_call({.place = place}, std::forward<F>(f));
}
template <class F, class A>
requires detail::spawnable<F, A>
auto spawn(F&& f, A&& a, std::source_location place = std::source_location::current()) {
  return detail::spawn_call({.place = place}, std::forward<F>(f), std::forward<A>(a));
}
template <class F, class A, class B>
requires detail::spawnable<F, A, B>
auto spawn(F&& f, A&& a, B&& b, std::source_location place = std::source_location::current()) {
  return detail::spawn_call({.place = place}, std::forward<F>(f), std::forward<A>(a), std::forward<B>(b));
}
template <class F, class A, class B, class C>
requires detail::spawnable<F, A, B, C>
auto spawn(F&& f, A&& a, B&& b, C&& c, std::source_location place = std::source_location::current()) {
  return detail::spawn_call({.place = place}, std::forward<F>(f), std::forward<A>(a), std::forward<B>(b),
                            std::forward<C>(c));
}
template <class F, class A, class B, class C, class D>
requires detail::spawnable<F, A, B, C, D>
auto spawn(F&& f, A&& a, B&& b, C&& c, D&& d, std::source_location place = std::source_location::current()) {
  return detail::spawn_call({.place = place}, std::forward<F>(f), std::forward<A>(a), std::forward<B>(b),
                            std::forward<C>(c), std::forward<D>(d));
}

}  // namespace annulet
