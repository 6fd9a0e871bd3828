// The hub behind the public one: a scheduler, an engine, and the index of what is under watch. Internal.
#pragma once

#include "call_signals.hpp"
#include "disk_transfers.hpp"
#include "dump_signal.hpp"
#include "engine.hpp"
#include "fd_state.hpp"
#include "fork_mark.hpp"
#include "hub_link.hpp"
#include "hub_options.hpp"
#include "process_hubs.hpp"
#include "signal_frame.hpp"
#include "watch.hpp"

#include <annulet/runtime/idle_source.hpp>
#include <annulet/runtime/scheduler.hpp>

#include <array>
#include <csignal>
#include <memory>
#include <optional>
#include <span>
#include <utility>
#include <vector>

namespace annulet::detail {

class name_threads;

// What annulet::close does; close.hpp says what that is.
[[nodiscard]] io_result close_as_hub(int fd);

class hub_core final : public idle_source {
 public:
  explicit hub_core(const hub_options& options);
  ~hub_core() override;

  [[nodiscard]] static hub_core* current() noexcept { return current_; }
  // The same for calls of ported code, which signal handlers and forked children make, too. Null while the
  // hub waits, for who calls then is a handler, and no fiber that could park; in any child, also before it is
  // told of (leave_to_parent); and for the hub of another copy of this library, the static one in a program
  // beside the shared one, which have of_caller_ in common where the program exports it.
  [[nodiscard]] static hub_core* of_caller() noexcept {
    hub_core* const hub = of_caller_;
    return hub != nullptr && hub == current_ && hub->mark_.stands() ? hub : nullptr;
  }
  // For libannulet-posix, which may be of another build and knows nothing of what a hub is made of: false
  // where of_caller() is null but for a child that was not told of.
  [[nodiscard]] static bool may_have_caller() noexcept { return of_caller_ != nullptr; }
  // While one lives, calls of ported code on this thread are the plain ones.
  class away {
   public:
    away() noexcept : before_(std::exchange(of_caller_, nullptr)), is_own_(before_ == current_) {}
    ~away() { of_caller_ = is_own_ ? current_ : before_; }  // none in a child that a handler has forked
    away(const away&) = delete;
    away& operator=(const away&) = delete;

   private:
    hub_core* const before_;  // null within another, as a handler's may be
    const bool is_own_;
  };
  // This thread's. Throws no_hub, naming the call.
  [[nodiscard]] static hub_core& here(const char* call);
  // The one that the link belongs to. Throws hub_gone or wrong_thread, naming the call.
  [[nodiscard]] static hub_core& of(const hub_link& link, const char* call) {
    hub_core* const hub = link.hub.load(std::memory_order_relaxed);
    if (hub == nullptr || hub != current_) [[unlikely]] {
      throw_not_ours(hub, call);
    }
    return *hub;
  }

  [[nodiscard]] scheduler& fibers() noexcept { return scheduler_; }
  [[nodiscard]] engine& io() noexcept { return *engine_; }
  [[nodiscard]] const std::shared_ptr<hub_link>& link() const noexcept { return link_; }
  [[nodiscard]] name_threads& names();

  // How many signal sets of this thread hold a signal blocked, and whether it was let in before the first.
  struct signal_use {
    unsigned sets = 0;
    bool was_open = false;
  };
  [[nodiscard]] signal_use& use_of_signal(int number) noexcept {
    return signals_[static_cast<std::size_t>(number)];
  }

  [[nodiscard]] call_signals& signals() noexcept { return call_signals_; }
  // Asked before a call of ported code parks: a handler's must not.
  [[nodiscard]] bool is_in_handler() noexcept { return handlers_.in_handler(); }
  // For a call of ported code that need not wait, a handler's maybe: lets others run, if there are any and
  // nobody minds.
  void let_others_run() noexcept {
    if (!scheduler_.others_have_turns()) {
      scheduler_.go_on_alone();
    } else if (handlers_.may_breathe() && is_in_its_process()) {
      scheduler_.give_way();
    }
  }
  [[nodiscard]] bool dump_is_asked() const noexcept { return link_->dump_is_asked(); }

  // Of all calls that are under way.
  [[nodiscard]] disk_transfers& transfers() noexcept { return transfers_; }

  // Puts a descriptor under watch. Throws std::bad_alloc, and has then changed nothing.
  void attach(watch& w, int fd);
  // Lets them go and takes them off. When it returns the kernel holds none of their files.
  void detach(std::span<watch* const> watches) noexcept;
  // What is known of a number; made if need be. Throws std::bad_alloc.
  [[nodiscard]] fd_state& state_of(int fd) {
    fd_state* const known = find_state(fd);
    return known != nullptr ? *known : make_state(fd);
  }
  // Null where nothing is.
  [[nodiscard]] fd_state* find_state(int fd) const noexcept {
    const auto at = static_cast<std::size_t>(fd);
    return at < by_fd_.size() ? by_fd_[at].get() : nullptr;  // a negative one is far beyond
  }
  // For a file that is about to be closed: tells everybody who waits for it or watches it, and lets the
  // watches go. Requests may still be in flight then.
  void prepare_close(fd_state& file) noexcept;
  // The half of it that is about watches. The number may get a new owner, of whom these must not hear.
  void dismiss_watchers(fd_state& file) noexcept;
  // The whole, and parks until no request is in flight any more. Nothing interrupts it.
  void prepare_close_and_wait(fd_state& file);

  // One that the hub has for itself: no business of who closes all that there is. A child has none.
  [[nodiscard]] bool owns(int fd) const noexcept {
    return mark_.stands() && fd >= 0 && (engine_->owns(fd) || link_->owns(fd) || call_signals_.owns(fd));
  }
  // False in the child of a vfork, which runs on this memory with descriptors of its own.
  [[nodiscard]] bool is_in_its_process() const noexcept { return kernel(SYS_getpid).value() == process_; }

  // close(2) that does not stop the thread. Parks where SO_LINGER has it wait; nothing interrupts it.
  io_result close_number(int fd);
  // Its two halves, for who drops the number in another way. A duplicate of the file, which keeps it from
  // lingering when the number is dropped; -1 where it does not linger, or no descriptor is left.
  [[nodiscard]] int hold_if_lingering(int fd) noexcept;
  // Closes the duplicate, and parks until that is over.
  void close_lingering(int duplicate);

  void wait(deadline until) noexcept override;
  void look() noexcept override;
  [[nodiscard]] bool may_have_news() const noexcept override;
  [[nodiscard]] std::int64_t now() const noexcept override;
  [[nodiscard]] std::int64_t about_now() const noexcept override;
  [[nodiscard]] bool has_outside_handles() const noexcept override;
  // In a forked child: process_hubs.hpp. Another thread's may have been in the middle of anything.
  void leave_to_parent() noexcept;
  [[nodiscard]] bool is_left_to_parent() const noexcept { return scheduler_.is_left_to_parent(); }

  [[nodiscard]] std::shared_ptr<door> way_in() noexcept override { return link_; }

 private:
  fd_state& make_state(int fd);
  using watch_list = fd_state::watch_list;

  [[noreturn, gnu::cold]] static void throw_not_ours(const hub_core* hub, const char* call);
  [[nodiscard]] bool has_posts() const noexcept { return undelivered_ != nullptr || !link_->posts.empty(); }
  void deliver() noexcept;
  void dump() noexcept;
  void run_posts() noexcept;
  void glance() noexcept;
  [[nodiscard]] bool takes_in_at_once() noexcept;
  void end_watches() noexcept;
  void end_threads(deadline limit) noexcept;
  // Takes all off the list and hands them to each(span of watches) a batch at a time.
  template <class Each>
  static void drain(watch_list& watches, Each&& each) noexcept;

  const fork_mark mark_;
  const unsigned process_ = kernel(SYS_getpid).value();

  [[gnu::visibility("hidden")]] static constinit thread_local hub_core* current_;     // of this copy
  [[gnu::visibility("default")]] static constinit thread_local hub_core* of_caller_;  // for libannulet-posix

  std::shared_ptr<hub_link> link_ = std::make_shared<hub_link>();
  scheduler scheduler_;
  std::unique_ptr<engine> engine_;
  std::vector<std::unique_ptr<fd_state>> by_fd_;
  std::size_t watched_ = 0;  // watches that are attached
  disk_transfers transfers_;
  watch_list closed_;              // their number is not theirs any more
  posted* undelivered_ = nullptr;  // taken from the inbox, and no memory yet for their fibers
  std::array<signal_use, NSIG> signals_{};
  call_signals call_signals_;
  handler_finder handlers_;
  bool delivery_failed_ = false;
  std::chrono::nanoseconds shutdown_limit_;
  std::optional<dump_signal> dump_signal_;
  std::shared_ptr<name_threads> names_;  // when they are first needed; those at work outlive this
  process_hub in_process_{*this};
};

}  // namespace annulet::detail
