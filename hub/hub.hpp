// The event loop of a thread. While it lives, blocking calls of annulet may be made on that thread.
//
//   int main() {
//     annulet::hub hub;                           // from here on main is a fiber
//     auto server = annulet::spawn(serve, 8080);
//     server.join();
//   }                                             // kills what is left, waits for it, frees everything
//
// A hub is destroyed by the fiber that made it, on its thread. Selectors and handles may outlive it; their
// calls then throw hub_gone.
//
// After fork(2) the child has the fiber that forked, or the thread without a hub that did, and no hub: all
// hubs are the parent's. There each call that needs one throws no_hub, one on a handle, a selector or a fiber
// of the parent's hub_gone; what stands in the child's frames may be destroyed as usual. It may make a hub of
// its own. When the function of the fiber that forked returns, the child ends as main would: by exit(0), or
// after an error, which it tells, by exit(1); exit also writes what stdio had kept of the parent's. To
// destroy what is the parent's does nothing to it, nor to its child processes. What other fibers and threads
// held stays as it was: a lock of the program's own that another thread had may be locked for ever, as with
// any fork. A child that comes without pthread_atfork's handlers (vfork, clone(2)) shall do nothing but exec,
// and make the calls of posix.h, which are the plain ones there, if it has memory of its own (_Fork); exec
// inherits nothing of a hub.
//
// Calls that have no form that does not wait (disks; on epoll accept and connect on blocking sockets, ttys)
// are made by threads of the hub's own, which block all signals. A deadline or a kill ends such a call by
// SIGURG, or by another signal where the program handles that one, or blocks it on the hub's thread. From the
// first such end on a SIGURG that nobody asked for (out-of-band data on a socket with F_SETOWN) is no more
// ignored: it interrupts a wait of the program's, with EINTR. A running call keeps the signal that was chosen
// when it began: a program that wants SIGURG for itself has to handle or block it before such a call begins.
#pragma once

#include "engine_info.hpp"
#include "hub_counts.hpp"
#include "hub_link.hpp"
#include "hub_options.hpp"

#include <annulet/runtime/errors.hpp>
#include <annulet/runtime/inbox.hpp>

#include <cstddef>
#include <memory>
#include <type_traits>
#include <utility>

namespace [[gnu::visibility("default")]] annulet {

class hub;

namespace detail {

template <class F>
class posted_call final : public posted {
 public:
  template <class G>
  explicit posted_call(G&& fn) : fn_(std::forward<G>(fn)) {}
  void run() override { std::move(fn_)(); }

 private:
  F fn_;
};

class hub_core;
hub_core& core_of(const hub& h) noexcept;

}  // namespace detail

// The way in for other threads. Copies are the same way; each may be used by any thread, also after the hub's
// end. While there is one, the hub's fibers may all wait without that being a deadlock.
class hub_handle {
 public:
  hub_handle(const hub_handle& other) noexcept;
  hub_handle(hub_handle&& other) noexcept = default;
  hub_handle& operator=(hub_handle other) noexcept {
    std::swap(link_, other.link_);
    return *this;
  }
  ~hub_handle();

  // Has fn() called by a new fiber of the hub, so it may park; what it throws is reported on stderr. Posts of
  // one thread run in their order. Does not wait. Any thread. Throws hub_gone once the hub has begun to end,
  // and std::bad_alloc; then fn is not called. What was posted and not yet begun when the hub ends is
  // destroyed there.
  template <class F>
  requires std::invocable<std::decay_t<F>>
  void post(F&& fn) const {
    push(std::make_unique<detail::posted_call<std::decay_t<F>>>(std::forward<F>(fn)));
  }

 private:
  friend class hub;
  explicit hub_handle(std::shared_ptr<detail::hub_link> link) noexcept;
  void push(std::unique_ptr<detail::posted> item) const;

  std::shared_ptr<detail::hub_link> link_;  // null when moved from: post throws std::logic_error
};

class hub {
 public:
  // Makes this thread's hub, by default on io_uring where that works and on epoll where not
  // (hub_options.hpp). Throws std::logic_error where the thread has one, std::invalid_argument for an option
  // or a variable of the environment out of its bounds, and std::system_error where the engine that was named
  // is refused (it says which call, and what would allow it) or descriptors or memory ran out.
  hub() : hub(hub_options{}) {}
  explicit hub(const hub_options& options);
  // Kills every other fiber and drives the loop until all have ended, at most hub_options::shutdown_limit:
  // then it names them on stderr and aborts. The only destructor that parks.
  ~hub();
  hub(const hub&) = delete;
  hub& operator=(const hub&) = delete;

  // For another thread to come in by. On this thread only, else wrong_thread.
  [[nodiscard]] hub_handle handle();
  // Which engine serves this hub, with which flags, and what was refused before. On this thread only, else
  // wrong_thread.
  [[nodiscard]] const engine_info& engine_report() const;
  // How many fibers are alive, the main one not counted.
  [[nodiscard]] std::size_t fiber_count() const;
  // What it has done so far. On this thread only, else wrong_thread.
  [[nodiscard]] hub_counts counts() const;
  // Gives back to the kernel all memory of stacks that no fiber uses. The hub does so itself, when it has
  // nothing else to do, with what is beyond 16 MiB of address space of such stacks and was idle for a second.
  // Up to 0.5 us a stack; does not park. On this thread only, else wrong_thread.
  void trim_stacks();

 private:
  friend detail::hub_core& detail::core_of(const hub& h) noexcept;

  detail::hub_core& own(const char* call) const;

  std::unique_ptr<detail::hub_core> core_;
};

}  // namespace annulet
