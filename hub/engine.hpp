// The seam to the kernel: edge-notified watches, requests that complete, a bounded wait, a wake from any
// thread. Internal.
//
// Nothing here runs a fiber: events are noted in watches, which wake waiters, which makes fibers ready. What
// an engine cannot recover from ends the process with a message; everything else it retries or reports to the
// watch. All calls are for the hub's thread; others write to wake_fd().
#pragma once

#include "engine_info.hpp"
#include "request.hpp"
#include "signal_mask.hpp"
#include "watch.hpp"

#include <annulet/runtime/deadline.hpp>

#include <cstdint>
#include <span>
#include <utility>

namespace annulet::detail {

class threaded_calls;

class engine {
 public:
  engine() = default;
  engine(const engine&) = delete;
  engine& operator=(const engine&) = delete;
  virtual ~engine() = default;

  // Gives the watch a slot. Throws std::bad_alloc, and has then changed nothing.
  virtual void attach(watch& w, int fd) = 0;
  // The watch must be idle.
  virtual void detach(watch& w) noexcept = 0;

  // From the next wait on the watch is armed for this mask (POLLIN, POLLOUT). If the level is there by then
  // an event tells so at once. Costs nothing where it is armed so already.
  void set_interest(watch& w, std::uint16_t mask) noexcept {
    w.wanted_ = mask;
    if (w.state_ != watch::state::armed || w.armed_ != mask) {
      note_change(w);
    }
  }
  // From the next wait on it is not armed any more, though the kernel may hold the file a little longer.
  void clear_interest(watch& w) noexcept {
    w.wanted_ = 0;
    if (w.state_ != watch::state::idle) {
      note_change(w);
    }
  }
  // When this returns, the kernel holds the file of none of them, and all are idle. Does not park.
  virtual void let_go(std::span<watch* const> watches) noexcept = 0;
  // The number is about to get another file, if dup2(2) succeeds, and its watches are let go only then. What
  // the kernel knows by the number has to be taken back while it can be named; it is armed anew where nothing
  // comes of the call.
  virtual void before_replacing(int) noexcept {}

  // From the next wait, look or flush on the kernel carries it out. It completes once.
  virtual void start(request& r, const operation& what) noexcept = 0;
  // Asks for its end. It completes all the same: cancelled, or with what it has done.
  virtual void cancel(request& r) noexcept = 0;

  // Hands over what changed and takes in what has happened, the levels of what was armed among it. Enters the
  // kernel only where there is something to hand over, or the ring says that something waits there.
  virtual void look() noexcept = 0;
  // The same, but takes in just some of what has happened, by one call. Whether there may be more.
  virtual bool glance() noexcept = 0;
  // What a look would find, as far as that is known without asking the kernel.
  enum class news : std::uint8_t { none, unknown, some };
  [[nodiscard]] virtual news has_news() const noexcept = 0;
  // Hands over what changed, if anything did, and takes in nothing.
  void flush_changes() noexcept {
    if (!changed_.empty() || unsubmitted_) {
      flush();
    }
  }
  virtual void flush() noexcept = 0;
  // Hands over what changed and blocks until something happened, the deadline, a write to wake_fd() or a
  // signal; or not at all, where something had happened already. `mask`: of the thread while it waits; its
  // own without.
  // interrupted: as far as the kernel says. signalled: a signal was there that `signals` is for, below.
  enum class wait_end : std::uint8_t { at_once, over, interrupted, signalled };
  virtual wait_end wait(deadline until, const signal_mask* mask) noexcept = 0;
  wait_end wait(deadline until) noexcept { return wait(until, nullptr); }
  // The same, but interrupted by handlers only: on a ring also where the process was stopped and goes on, and
  // on epoll where RLIMIT_NOFILE is less than two. `signals`: an attached signalfd, or -1.
  virtual wait_end wait_for_handlers(deadline until, const signal_mask* mask, int signals) noexcept = 0;
  // Whether the event of a signalfd is told, too, where its signal interrupts the wait.
  [[nodiscard]] virtual bool tells_event_of_signal() const noexcept = 0;
  // An eventfd: a write to it, by any thread, ends a wait. Closed by the engine's destructor.
  [[nodiscard]] virtual int wake_fd() const noexcept = 0;
  // Whether it would be lost without this descriptor.
  [[nodiscard]] virtual bool owns(int fd) const noexcept = 0;

  // Those that make calls for it, and do what else would stop the hub's thread.
  [[nodiscard]] virtual threaded_calls& threads() noexcept = 0;

  // What it says of itself.
  [[nodiscard]] virtual const engine_info& info() const noexcept = 0;
  // The same with what was refused before it was chosen, as who chose it noted.
  [[nodiscard]] const engine_info& report() const noexcept { return report_; }
  void note_report(engine_info report) noexcept { report_ = std::move(report); }

  // In a forked child, where nothing that is shared with the parent may be asked or changed: closes the
  // engine's descriptors, in this process only. It is never used again, nor destroyed.
  virtual void leave_to_parent() noexcept = 0;

  // Events and completions, ever.
  [[nodiscard]] std::uint64_t taken_in() const noexcept { return taken_in_; }
  // What it asked of the kernel so far: hub_counts.hpp.
  struct counts {
    std::uint64_t enters = 0;
    std::uint64_t requests = 0;
  };
  [[nodiscard]] virtual counts counted() const noexcept = 0;

 protected:
  void note_change(watch& w) noexcept {
    if (!static_cast<list_hook<pending_tag>&>(w).linked()) {
      changed_.push_back(w);
    }
  }

  intrusive_list<watch, pending_tag> changed_;  // to be told to the kernel
  bool unsubmitted_ = false;                    // prepared, and the kernel has not taken it yet
  std::uint64_t taken_in_ = 0;

 private:
  engine_info report_;
};

}  // namespace annulet::detail
