// What a hub shares with the handles that other threads hold, and with selectors that may outlive it: the way
// in, and whether it is still there. Lives as long as the last of them.
#pragma once

#include <annulet/runtime/door.hpp>
#include <annulet/runtime/inbox.hpp>

#include <atomic>
#include <memory>
#include <vector>

namespace annulet::detail {

class fd_state;
class hub_core;

class hub_link final : public door {
 public:
  hub_link() noexcept;
  hub_link(const hub_link&) = delete;
  hub_link& operator=(const hub_link&) = delete;
  ~hub_link();

  // Null once the hub has ended. Only its own thread follows the pointer; others compare it.
  std::atomic<hub_core*> hub{nullptr};
  // Handles that hub.handle() has given out: while there is one, nothing is a deadlock.
  std::atomic<unsigned> handles{0};
  inbox posts;  // each to be run by a fiber of its own
  inbox rings;  // to be run at once: they wake fibers, as long as there are any

  bool leave(posted& ring) noexcept override {
    const bool left = rings.push(ring);
    if (left) {
      wake();
    }
    return left;
  }

  // What the hub knew of each number, right before `hub` becomes null. For descriptors that outlive it: the
  // number may have been closed, and be another's.
  void keep(std::vector<std::unique_ptr<fd_state>>&& by_fd) noexcept;

  // In a forked child: nobody gets in any more, and what was posted is left where it is.
  void leave_to_parent() noexcept;
  // Opens the eventfd that this link owns a copy of. Throws std::system_error.
  void share_wake_fd(int fd);
  [[nodiscard]] bool owns(int fd) const noexcept { return fd == wake_fd_; }

  // After something was posted: wakes the hub if it sleeps, and makes no system call if it does not. Any
  // thread.
  //
  // The poster pushes, then looks whether the hub sleeps; the hub says that it sleeps, then looks whether
  // something was pushed. The fences keep both from looking before they have told: one of them sees the
  // other.
  void wake() noexcept;
  // The same where nothing was posted: the hub has something else to find out before it sleeps.
  void nudge() noexcept {
    nudged_.store(true, std::memory_order_relaxed);
    wake();
  }

  // The hub is to list its fibers on stderr. Any thread, and a signal handler.
  void ask_for_dump() noexcept {
    dump_asked_.store(true, std::memory_order_relaxed);
    nudge();
  }
  [[nodiscard]] bool dump_is_asked() const noexcept { return dump_asked_.load(std::memory_order_relaxed); }
  [[nodiscard]] bool dump_was_asked() noexcept {
    return dump_asked_.load(std::memory_order_relaxed) &&
           dump_asked_.exchange(false, std::memory_order_relaxed);
  }
  // Before a wait: whether the hub may sleep. Hub's thread.
  [[nodiscard]] bool fall_asleep() noexcept {
    asleep_.store(true, std::memory_order_relaxed);
    std::atomic_thread_fence(std::memory_order_seq_cst);
    return posts.empty() && rings.empty() && !nudged_.exchange(false, std::memory_order_relaxed);
  }
  void be_awake() noexcept { asleep_.store(false, std::memory_order_relaxed); }

 private:
  std::atomic<bool> asleep_{false};
  std::atomic<bool> nudged_{false};
  std::atomic<bool> dump_asked_{false};
  int wake_fd_ = -1;
  std::vector<std::unique_ptr<fd_state>> by_fd_;
};

}  // namespace annulet::detail
