// The engine on epoll: a watch is an edge-triggered entry of an epoll set.
//
// epoll knows a descriptor by its number and its file, once; so the watches of one number share an entry,
// which asks for all that they ask for, and each is told what concerns it. Entries carry a generation: what
// comes for an older one finds nobody.
//
// An entry goes when its watches are let go, by its number. After a close behind the hub's back there is no
// number any more to name it by, and a duplicate of the file may keep it alive: its next event, which is for
// nobody, makes the engine begin a new set.
#pragma once

#include "engine.hpp"
#include "hub_options.hpp"
#include "refusals.hpp"
#include "slot_table.hpp"
#include "threaded_calls.hpp"

#include <array>
#include <cstdint>
#include <optional>
#include <vector>

#include <sys/epoll.h>

namespace annulet::detail {

class epoll_engine final : public engine {
 public:
  // Throws std::system_error where descriptors or memory ran out.
  epoll_engine();
  ~epoll_engine() override;

  void attach(watch& w, int fd) override;
  void detach(watch& w) noexcept override;
  void let_go(std::span<watch* const> watches) noexcept override;
  void before_replacing(int fd) noexcept override;
  void start(request& r, const operation& what) noexcept override;
  void cancel(request& r) noexcept override;
  void look() noexcept override;
  bool glance() noexcept override;
  [[nodiscard]] news has_news() const noexcept override { return news::unknown; }
  void flush() noexcept override;
  using engine::wait;
  wait_end wait(deadline until, const signal_mask* mask) noexcept override;
  wait_end wait_for_handlers(deadline until, const signal_mask* mask, int signals) noexcept override;
  // The signal may come when the kernel has looked for events, and before it looks for signals.
  [[nodiscard]] bool tells_event_of_signal() const noexcept override { return false; }
  [[nodiscard]] int wake_fd() const noexcept override { return wake_fd_; }
  [[nodiscard]] bool owns(int fd) const noexcept override { return fd == wake_fd_ || fd == epoll_fd_; }
  void leave_to_parent() noexcept override;
  [[nodiscard]] counts counted() const noexcept override { return counts_; }
  [[nodiscard]] threaded_calls& threads() noexcept override { return *calls_; }
  [[nodiscard]] const engine_info& info() const noexcept override { return info_; }

 private:
  static constexpr std::uint32_t nobody = ~std::uint32_t{0};
  static constexpr std::uint64_t wake_data = ~std::uint64_t{0};

  struct slot {
    watch* owner = nullptr;
    std::uint32_t next = nobody;  // armed on the same number
  };
  // Of one number.
  struct entry {
    std::uint32_t first = nobody;  // slot of an armed watch
    std::uint32_t generation = 0;
    std::uint32_t events = 0;  // what epoll was given; 0: there is none
  };

  void reconcile(watch& w) noexcept;
  [[nodiscard]] int join(watch& w) noexcept;
  void leave(watch& w) noexcept;
  void tell_refused(watch& w, int error) noexcept;
  [[nodiscard]] std::uint32_t interest_of(const entry& at) noexcept;
  [[nodiscard]] int hand_over(int fd, entry& at) noexcept;
  [[nodiscard]] int control(int operation, int fd, const entry& at) noexcept;
  [[nodiscard]] static std::size_t events_a_look() noexcept;
  [[nodiscard]] static std::size_t events_a_wait() noexcept;
  [[nodiscard]] std::optional<std::int64_t> time_left(deadline until) noexcept;
  bool take_in_at_once() noexcept;
  // How many events came. A limit of nullopt waits for one, however long.
  unsigned fetch(std::optional<std::int64_t> nanoseconds, std::size_t most,
                 const signal_mask* mask = nullptr) noexcept;
  [[nodiscard]] io_result wait_for_events(std::optional<std::int64_t> nanoseconds, int most,
                                          const signal_mask* mask) noexcept;
  void dispatch(const epoll_event& event) noexcept;
  [[nodiscard]] int add_wake_fd(int set) noexcept;
  void note_armed(const entry& at) noexcept;  // to be handed over anew before the next wait
  void begin_new_set() noexcept;
  void make_calls() noexcept;
  void stop_waiting(threaded_call& call) noexcept;

  engine_info info_;
  int epoll_fd_ = -1;
  int wake_fd_ = -1;
  counts counts_;
  bool has_pwait2_ = true;
  bool stale_ = false;        // an event came for nobody
  bool interrupted_ = false;  // the last call to fetch was
  refusals refusals_;         // of it
  slot_table<slot> slots_;
  std::vector<entry> entries_;                     // by number
  static constexpr std::size_t most_events = 512;  // taken in at once
  std::array<epoll_event, most_events> events_;
  intrusive_list<worker_pool::job> callable_;  // calls whose descriptor may be ready
  std::optional<threaded_calls> calls_;
};

}  // namespace annulet::detail
