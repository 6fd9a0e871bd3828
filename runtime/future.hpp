// A result that is still to come, from whoever has the promise: a fiber, or any thread at all.
//
//   annulet::promise<int> p;
//   auto answer = p.get_future();
//   std::thread([p = std::move(p)]() mutable { p.set_value(compute()); }).detach();
//   int x = answer.get(5s);                          // parks this fiber
//
// A promise may be kept, or broken, by any thread, with a hub or without. A future is waited for by fibers of
// one thread at a time, as many as like, and may be moved to another thread while none waits. A wait for a
// future counts as one that something outside can end: no deadlock is seen in it.
#pragma once

#include "deadline.hpp"
#include "door.hpp"
#include "errors.hpp"
#include "wait_case.hpp"
#include "wait_queue.hpp"

#include <atomic>
#include <cstdint>
#include <exception>
#include <memory>
#include <mutex>
#include <optional>
#include <stdexcept>
#include <type_traits>
#include <utility>

namespace [[gnu::visibility("default")]] annulet {

template <class T>
class promise;

namespace detail {

// What a promise and its future share, but for the result: that is the user's, and must not end in the hub's
// wait, where the last who knows of this may be.
class promised {
 public:
  promised();
  ~promised();
  promised(const promised&) = delete;
  promised& operator=(const promised&) = delete;

  // The promise's side. Any thread.

  // Throws std::logic_error where it is kept already. Then keep() or fail(), or unclaim().
  void claim(const char* call);
  void unclaim() noexcept { phase_.store(phase::open, std::memory_order_relaxed); }
  // The same, but says whether.
  [[nodiscard]] bool try_claim() noexcept;
  // What was claimed is there: wakes those who wait. `self` keeps this alive until then.
  void keep(const std::shared_ptr<promised>& self) noexcept;

  // The future's side. One thread at a time, but for is_kept().

  [[nodiscard]] bool is_kept() const noexcept {
    return phase_.load(std::memory_order_acquire) == phase::kept;
  }
  // Whether it is kept; if not, this thread is told when it is. Throws no_hub, wrong_thread, std::bad_alloc.
  [[nodiscard]] bool listen(const char* call);
  // This thread need not be told any more: nothing of its hub is held from here on.
  void stop_listening() noexcept;
  // Parks. False where the deadline came first. One that is kept needs no hub.
  bool wait(deadline until, const char* call);
  [[nodiscard]] wait_queue& line() noexcept { return waiting_; }

 private:
  enum class phase : std::uint8_t { open, claimed, kept };
  class bell;

  std::atomic<phase> phase_{phase::open};
  std::mutex mutex_;            // for the bell, and the step from claimed to kept
  std::unique_ptr<bell> bell_;  // of the thread whose fibers wait
  wait_queue waiting_;
};

// The result, once that is kept. Owned by the promise and the future alone.
struct promised_result {
  const std::shared_ptr<promised> core = std::make_shared<promised>();
  std::exception_ptr error;
  bool taken = false;

  void fail(std::exception_ptr with) noexcept {
    error = std::move(with);
    core->keep(core);
  }
  // Fails as broken unless it is kept.
  void abandon() noexcept;
  // Of one that is kept: throws its error, or std::logic_error where it was taken before.
  void begin_taking(const char* call);
};

template <class T>
struct promised_value : promised_result {
  using stored = std::conditional_t<std::is_reference_v<T>, std::remove_reference_t<T>*, T>;
  std::optional<stored> value;
};
template <>
struct promised_value<void> : promised_result {};

struct no_argument {};
template <class T>
using promised_argument = std::conditional_t<std::is_void_v<T>, no_argument, T>;

[[noreturn]] void throw_without_promise(const char* call);

}  // namespace detail

// Move-only. Every call but those said otherwise throws std::logic_error on one that has no promise behind
// it: made without one, or moved from.
template <class T>
class future {
 public:
  future() noexcept = default;
  future(future&&) noexcept = default;
  future& operator=(future&&) noexcept = default;

  // Whether there is a promise behind it.
  [[nodiscard]] explicit operator bool() const noexcept { return shared_ != nullptr; }
  // Whether get() would return or throw at once; from then on that needs no hub. Does not park. Any thread.
  [[nodiscard]] bool ready() const { return state("future::ready")->core->is_kept(); }

  // Parks until the promise is kept or broken; throws nothing of it.
  void wait() { (void)wait(deadline::never()); }
  // False where the deadline came first.
  bool wait(deadline until) {
    const auto shared = state("future::wait");
    return shared->core->wait(until, "future::wait");
  }
  // Parks likewise; moves the value out, or throws the error, as often as it is asked for. Throws
  // broken_promise where the promise is gone, deadline_passed where the deadline came first. A value can be
  // had once: after that std::logic_error.
  T get(deadline until = deadline::never()) {
    const auto shared = state("future::get");
    if (!shared->core->wait(until, "future::get")) {
      throw deadline_passed("annulet: future::get: the deadline passed");
    }
    shared->begin_taking("future::get");
    if constexpr (std::is_reference_v<T>) {
      return static_cast<T>(**shared->value);
    } else if constexpr (!std::is_void_v<T>) {
      return std::move(*shared->value);
    }
  }

 private:
  friend class promise<T>;
  template <class>
  friend class detail::case_of;
  using shared_state = detail::promised_value<T>;

  explicit future(std::shared_ptr<shared_state> shared) noexcept : shared_(std::move(shared)) {}
  [[nodiscard]] const std::shared_ptr<shared_state>& state(const char* call) const {
    if (shared_ == nullptr) {
      detail::throw_without_promise(call);
    }
    return shared_;
  }

  std::shared_ptr<shared_state> shared_;
};

// Move-only. Destroyed before it is kept it is broken, and get() throws that. Any thread, one at a time.
// Every call throws std::logic_error on one that was moved from.
template <class T>
class promise {
 public:
  promise() : shared_(std::make_shared<shared_state>()) {}
  promise(promise&&) noexcept = default;
  promise& operator=(promise&& other) noexcept {
    if (this != &other) {
      abandon();
      shared_ = std::move(other.shared_);
      has_future_ = other.has_future_;
    }
    return *this;
  }
  ~promise() { abandon(); }

  // Once, else std::logic_error.
  [[nodiscard]] future<T> get_future() {
    const auto& shared = state("promise::get_future");
    if (std::exchange(has_future_, true)) {
      throw std::logic_error("annulet: promise::get_future: it has given its future before");
    }
    return future<T>(shared);
  }

  // Keep it, and wake those who wait for its future; does not park. std::logic_error where it is kept
  // already. What making the value throws comes out, and the promise can still be kept.
  void set_value() requires std::is_void_v<T> {
    const auto shared = state("promise::set_value");  // for who is woken may end this promise
    shared->core->claim("promise::set_value");
    shared->core->keep(shared->core);
  }
  void set_value(detail::promised_argument<T> value) requires(!std::is_void_v<T>) {
    const auto shared = state("promise::set_value");
    shared->core->claim("promise::set_value");
    try {
      if constexpr (std::is_reference_v<T>) {
        shared->value = std::addressof(value);
      } else {
        shared->value.emplace(std::move(value));
      }
    } catch (...) {
      shared->core->unclaim();
      throw;
    }
    shared->core->keep(shared->core);
  }
  // With what get() shall throw. std::invalid_argument for none.
  void set_exception(std::exception_ptr error) {
    const auto shared = state("promise::set_exception");
    if (error == nullptr) {
      throw std::invalid_argument("annulet: promise::set_exception: no exception");
    }
    shared->core->claim("promise::set_exception");
    shared->fail(std::move(error));
  }

 private:
  using shared_state = detail::promised_value<T>;

  [[nodiscard]] const std::shared_ptr<shared_state>& state(const char* call) const {
    if (shared_ == nullptr) {
      detail::throw_without_promise(call);
    }
    return shared_;
  }
  void abandon() noexcept {
    if (const auto shared = std::move(shared_)) {
      shared->abandon();
    }
  }

  std::shared_ptr<shared_state> shared_;
  bool has_future_ = false;
};

}  // namespace annulet
