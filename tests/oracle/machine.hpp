// The random machine: it opens, registers, modifies, closes in every order, reuses numbers, writes, reads and
// selects, with two selectors over the same descriptors and other fibers beside it, and holds what each
// select returns against poll(2) and the model.
//
// Each operation is atomic towards other fibers: only selects park, and what a fiber or thread does to wake
// a parked one is over before the machine goes on. So the same seed makes the same operations.
#pragma once

#include "dice.hpp"
#include "files.hpp"
#include "history.hpp"
#include "model.hpp"
#include "stranger.hpp"

#include <annulet/hub/hub.hpp>
#include <annulet/runtime/event.hpp>
#include <annulet/runtime/fiber.hpp>
#include <annulet/selector/selector.hpp>

#include <array>
#include <atomic>
#include <cstdint>
#include <exception>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

namespace oracle {

struct tally {
  std::uint64_t operations = 0;
  std::uint64_t selects = 0;
  std::uint64_t judged = 0;
  std::uint64_t parked = 0;  // of the selects
  std::uint64_t woken_by_fiber = 0;
  std::uint64_t woken_by_thread = 0;
  std::uint64_t woken_by_post = 0;
  std::uint64_t timed_out = 0;
  std::uint64_t late = 0;                    // terminals, of which the kernel told a moment after poll did
  std::uint64_t refused = 0;                 // selects that said so, and were asked again
  std::uint64_t closed_under = 0;            // parked selects whose selector was closed
  std::uint64_t ends_seen = 0;               // by the peer, right after the file was let go
  std::uint64_t closed_keys = 0;             // registered descriptors closed through the hub
  std::uint64_t behind_keys = 0;             // and behind its back
  std::array<std::uint64_t, kinds> ready{};  // keys that select returned, by kind
};

// Select and poll(2) differ, or a call did what it must not.
class mismatch : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

// Whether the kernel takes every poll request, or a plant has it refuse some with EINVAL. Where it refuses
// even that of the epoll descriptor which stands for a file, select throws, and has to be right when asked
// again.
enum class kernel_mood : std::uint8_t { willing, refusing };

class machine {
 public:
  machine(std::uint64_t seed, annulet::hub& hub, kernel_mood mood, tally& counts);
  // Closes its selectors and descriptors.
  ~machine();
  machine(const machine&) = delete;
  machine& operator=(const machine&) = delete;

  // Throws mismatch.
  void run(std::uint64_t operations);

 private:
  struct side {
    int number = 0;
    std::unique_ptr<selector> select_with = std::make_unique<selector>();
    registrations keys{};
    std::vector<selector::ready_type> ready{};
    std::vector<pollfd> before{};
    std::vector<pollfd> after{};
    bool parked = false;
    bool closed_under = false;  // while parked
    std::int64_t parked_since = 0;
  };
  enum class waker { fiber, thread, post, nobody };

  // operations.cpp: registering, opening, reading and writing
  void operate(dice& d);
  void open_some(dice& d);
  void duplicate(dice& d);
  void register_one(side& s, dice& d);
  void modify_one(side& s, dice& d);
  void unregister_one(side& s, int fd);
  void unregister_some(side& s, dice& d);
  void cure(side& s);
  void cure_behind(side& s);
  void use_wrongly(side& s, dice& d);
  void disturb(dice& d);
  void inspect(side& s);
  void replace_selector(side& s, dice& d);

  // closing.cpp: every way in which a number loses its file
  void close_through_hub(dice& d);
  void close_quietly(dice& d);
  void close_rudely(dice& d);
  void dup_through_hub(dice& d);
  void dup_rudely(dice& d);
  [[nodiscard]] bool may_be_rude(int fd);
  void note_closed(int fd);
  void note_behind(int fd, const std::shared_ptr<file>& old);
  [[nodiscard]] bool all_arrived(const descriptor& d);
  [[nodiscard]] bool is_haunted(int fd);
  void released(std::shared_ptr<file> of, bool certain);
  void release_pinned(std::shared_ptr<file> of);

  // selecting.cpp: the steps that are judged
  void select_step(side& s, dice& d);
  void count_ready(side& s);
  void select_within(side& s, annulet::deadline until);
  void hold_to(side& s, rule by);
  bool comes_late(side& s, int fd);
  [[noreturn]] void fail(int fd, const std::string& what);

  // parking.cpp: a select that parks, and what wakes it
  void park_step(side& s);
  bool quieten(side& s);
  [[nodiscard]] static int first_ready(side& s);
  void quieten_key(side& s, int fd, short revents);
  annulet::fiber<void> begin_waking(side& s, waker who);
  void await_waker(annulet::fiber<void>& helper, waker who);
  [[nodiscard]] bool waker_done(const annulet::fiber<void>& helper, waker who) const;
  void wait_parked(side& s, waker who, const annulet::fiber<void>& helper);
  void make_event(side& s, dice& d);
  void make_sure(side& s);
  std::function<void()> foreign_event(side& s);

  // neighbours.cpp: who else runs
  void begin_neighbours();
  void end_neighbours();
  void tick();
  void babble(std::uint64_t seed);
  void relay();

  [[nodiscard]] descriptor* find(int fd) noexcept;
  [[nodiscard]] descriptor* find(const std::shared_ptr<file>& of) noexcept;
  void forget(int fd) noexcept;
  template <class Error, class Call>
  void must_refuse(const char* what, int fd, Call&& call);

  std::uint64_t seed_;
  kernel_mood mood_;
  tally& counts_;
  dice dice_;
  history history_;
  workshop workshop_;
  stranger stranger_;
  annulet::hub_handle handle_;
  std::vector<descriptor> open_;
  std::array<side, 2> sides_;
  std::uint64_t next_data_ = 1;
  annulet::event posted_;
  std::atomic<bool> fell_back_{false};
  std::exception_ptr failure_;
  bool ending_ = false;
  std::vector<annulet::fiber<void>> neighbours_;
};

}  // namespace oracle
