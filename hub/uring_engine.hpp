// The engine on io_uring: a watch is one multishot poll request.
//
// Requests carry the watch's slot and the generation of the request, so a completion that comes late, after
// the watch was let go or its descriptor reused, finds nobody. Changes are collected and become submission
// entries right before an enter that takes place anyway.
#pragma once

#include "engine.hpp"
#include "refusals.hpp"
#include "ring.hpp"
#include "slot_table.hpp"
#include "threaded_calls.hpp"

#include <cstdint>
#include <optional>

namespace annulet::detail {

class uring_engine final : public engine {
 public:
  // Throws ring_refused where io_uring is, and std::system_error where descriptors ran out.
  explicit uring_engine(const hub_options& options);
  ~uring_engine() override;

  void attach(watch& w, int fd) override;
  void detach(watch& w) noexcept override;
  void let_go(std::span<watch* const> watches) noexcept override;
  void start(request& r, const operation& what) noexcept override;
  void cancel(request& r) noexcept override;
  void look() noexcept override;
  bool glance() noexcept override;
  // `some` by what the ring shows. Unknown also while a thread makes a call: its end is seen by the eventfd,
  // and that may not be polled yet.
  [[nodiscard]] news has_news() const noexcept override {
    if (ring_.has_completions() || ring_.needs_enter()) {
      return news::some;
    }
    return changed_.empty() && !unsubmitted_ && calls_->none() ? news::none : news::unknown;
  }
  void flush() noexcept override;
  using engine::wait;
  wait_end wait(deadline until, const signal_mask* mask) noexcept override;
  wait_end wait_for_handlers(deadline until, const signal_mask* mask, int) noexcept override {
    return wait(until, mask);
  }
  [[nodiscard]] bool tells_event_of_signal() const noexcept override { return true; }
  [[nodiscard]] int wake_fd() const noexcept override { return wake_fd_; }
  [[nodiscard]] bool owns(int fd) const noexcept override { return fd == wake_fd_ || fd == ring_.fileno(); }
  void leave_to_parent() noexcept override;
  [[nodiscard]] counts counted() const noexcept override { return {ring_.enters(), ring_.requests()}; }
  [[nodiscard]] threaded_calls& threads() noexcept override { return *calls_; }
  [[nodiscard]] const engine_info& info() const noexcept override { return info_; }

 private:
  struct slot {
    watch* owner = nullptr;
    std::uint32_t generation = 0;
  };
  // What a completion is of.
  enum class kind : std::uint8_t { nobody, poll, update, removal, wake, request };
  struct tag {
    kind what;
    std::uint32_t slot;
    std::uint32_t generation;

    [[nodiscard]] std::uint64_t packed() const noexcept {
      return std::uint64_t{static_cast<std::uint8_t>(what)} << 61 | std::uint64_t{generation} << 32 | slot;
    }
    [[nodiscard]] static tag unpack(std::uint64_t data) noexcept {
      return {static_cast<kind>(data >> 61), static_cast<std::uint32_t>(data),
              static_cast<std::uint32_t>(data >> 32 & generation_mask)};
    }
  };
  // A request is waited for to its end, so its address serves: it has not more than 61 bits.
  [[nodiscard]] static std::uint64_t tag_of(const request& r) noexcept {
    return std::uint64_t{static_cast<std::uint8_t>(kind::request)} << 61 |
           reinterpret_cast<std::uintptr_t>(&r);
  }
  static constexpr std::uint32_t generation_mask = (1U << 29) - 1;

  [[nodiscard]] static tag tag_of(const watch& w, kind what) noexcept {
    return {what, w.slot_, w.generation_};
  }
  [[nodiscard]] io_uring_sqe& sqe() noexcept;
  void make_room() noexcept;
  void drain_queue() noexcept;
  template <class Call>
  int enter(Call&& call) noexcept;
  [[nodiscard]] bool has_to_enter() const noexcept {
    return ring_.needs_enter() || !changed_.empty() || unsubmitted_;
  }
  [[gnu::noinline]] void take_in_all() noexcept;  // most looks find nothing, and need not save its registers
  void prepare_changes() noexcept;
  void reconcile(watch& w) noexcept;
  void queue_poll(watch& w) noexcept;
  void queue_update(watch& w) noexcept;
  void queue_removal(watch& w) noexcept;
  void queue_cancel(watch& w) noexcept;
  void arm_wake_poll() noexcept;
  void start_on_thread(request& r, const operation& what) noexcept;
  unsigned reap() noexcept;
  void complete(std::uint64_t data, int result, unsigned flags) noexcept;
  void complete_poll(watch& w, int result, bool more) noexcept;
  void complete_update(watch& w, int result) noexcept;
  void complete_removal(watch& w, int result) noexcept;
  // Whether an enter's errno is one after which the loop just goes on; ends the process for the others.
  void judge(int error) noexcept;

  engine_info info_;
  ring ring_;
  slot_table<slot> slots_;
  std::size_t requests_ = 0;  // the ring has them, or is about to: each has its completion to come
  // Completions that the last two looks found in the kernel. Only of looks with nothing between them: what a
  // wait was woken for is the first of a burst that is still coming, and a glance leaves some.
  unsigned last_look_ = 0;
  unsigned look_before_last_ = 0;
  bool others_came_ = false;  // a wait or a glance, since the last look
  int wake_fd_ = -1;
  std::optional<threaded_calls> calls_;
  bool wake_poll_armed_ = false;
  refusals refusals_;  // of the enter
};

}  // namespace annulet::detail
