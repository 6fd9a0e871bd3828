// Calls a function that would stop the hub's thread (a library that blocks, a long computation) on a thread
// of the hub's small pool, and parks the fiber until it has returned.
//
//   auto hash = annulet::offload([&] { return bcrypt(password); });
//
// A fiber that is killed, or late, does not wait for it: one that has not begun is not called, one that has
// goes on, and what it returns is dropped. So let it hold what it uses, not refer to it, where that may come.
// What it holds is destroyed on the hub's thread in any case. The hub's end waits for those that run, as long
// as for its fibers: one that goes on beyond hub_options::shutdown_limit ends the process.
//
// One that forks is its child's only thread: when it returns there the child ends with exit(0), or, where it
// throws, with a word on stderr and exit(1).
//
// The pool is the one that makes calls on disks: four such functions run at a time, and more where some of
// them take long. Its threads have no hub. They block all signals, but for the one that interrupts them
// (hub.hpp), and a process that such a function starts inherits that.
#pragma once

#include <annulet/runtime/deadline.hpp>

#include <concepts>
#include <exception>
#include <memory>
#include <optional>
#include <type_traits>
#include <utility>

namespace [[gnu::visibility("default")]] annulet {

namespace detail {

// A function, and what has come of it.
class offloaded {
 public:
  offloaded() = default;
  offloaded(const offloaded&) = delete;
  offloaded& operator=(const offloaded&) = delete;
  virtual ~offloaded() = default;

  virtual void run() noexcept = 0;
  // What it has thrown, after that, or null.
  [[nodiscard]] virtual std::exception_ptr error() const noexcept = 0;
};

// Gives it back when it has run. Throws what offload() throws of itself; then it is destroyed, if only later.
[[nodiscard]] std::unique_ptr<offloaded> run_offloaded(std::unique_ptr<offloaded> work, deadline until);

template <class F>
class offloaded_call final : public offloaded {
 public:
  using result = std::invoke_result_t<F>;

  template <class G>
  explicit offloaded_call(G&& fn) : fn_(std::forward<G>(fn)) {}

  void run() noexcept override {
    try {
      if constexpr (std::is_void_v<result>) {
        std::move(fn_)();
      } else if constexpr (std::is_reference_v<result>) {
        auto&& place = std::move(fn_)();
        value_ = std::addressof(place);
      } else {
        value_.emplace(std::move(fn_)());
      }
    } catch (...) {
      error_ = std::current_exception();
    }
  }

  [[nodiscard]] std::exception_ptr error() const noexcept override { return error_; }

  result take() {
    if (error_ != nullptr) {
      std::rethrow_exception(std::move(error_));
    }
    if constexpr (std::is_reference_v<result>) {
      return static_cast<result>(**value_);
    } else if constexpr (!std::is_void_v<result>) {
      return std::move(*value_);
    }
  }

 private:
  struct nothing {};
  using stored = std::conditional_t<
      std::is_void_v<result>, nothing,
      std::conditional_t<std::is_reference_v<result>, std::remove_reference_t<result>*, result>>;

  F fn_;
  std::optional<stored> value_;
  std::exception_ptr error_;
};

}  // namespace detail

// Returns what fn() returns, or throws what it throws. Parks. With a deadline in the past fn is not called.
// Throws no_hub, hub_gone while the hub ends, std::system_error (EAGAIN) where no thread is to be had,
// deadline_passed where the deadline came first, and what ends a wait.
template <class F>
requires std::invocable<std::decay_t<F>> std::invoke_result_t<std::decay_t<F>> offload(
    F&& fn, deadline until = deadline::never()) {
  using call = detail::offloaded_call<std::decay_t<F>>;
  const auto done = detail::run_offloaded(std::make_unique<call>(std::forward<F>(fn)), until);
  return static_cast<call&>(*done).take();
}

}  // namespace annulet
