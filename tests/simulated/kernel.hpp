// Linux in a simulation: io_uring and the clock, made of dice, with the files themselves left real.
//
// While one of these lives, what the hub hands to its ring is carried out here, on the hub's own thread, out
// of its enter: late, in another order, coalesced, twice, without MORE, through an overflow, in part, or not
// at all because the enter fails, each as often as `moods` says and only where Linux could do the same. Time
// stands still but in a wait, where it jumps. Whether a file is ready is asked of the file: a request holds a
// duplicate of it, as Linux holds the file, and a real edge-triggered epoll set tells of its wake-ups.
//
// The same seed does the same again. Only one lives at a time.
#pragma once

#include "../oracle/dice.hpp"

#include <liburing.h>

#include <bitset>
#include <cstddef>
#include <cstdint>
#include <vector>

namespace simulated {

// Each is one in so many times; 0 is never.
struct moods {
  unsigned late = 4;          // what happens elsewhere is noticed by the next enter only
  unsigned withheld = 4;      // an enter makes but some of the completions that are due
  unsigned reordered = 4;     // not those of one request
  unsigned twice = 16;        // a poll tells an event again that it has told
  unsigned ended = 16;        // a multishot poll ends with an event
  unsigned called_off = 64;   // or without one, though nobody asked for it
  unsigned refused = 16;      // an enter fails: EAGAIN, EBUSY, EINTR, ENOMEM
  unsigned interrupted = 16;  // a wait
  unsigned part = 4;          // an enter takes but some of the entries; a transfer moves less than asked
  unsigned too_late = 3;      // what is cancelled or changed is being carried out
  unsigned stands = 16;       // the flag that tells of work stays when all has been run, until there is some
};

inline constexpr std::int64_t second = 1'000'000'000;

// What poll(2) says of a file at this moment.
[[nodiscard]] int poll_at_once(int file, std::uint32_t events) noexcept;

// What is not the hub, and not the kernel.
class outside {
 public:
  virtual ~outside() = default;
  // Something happens while the hub waits. True where a signal handler has run, which ends the wait.
  virtual bool act() = 0;
  // The hub waits, and all that the kernel knows of has been told: nothing may be there that it waits for.
  virtual void at_rest(std::int64_t now) = 0;
  // The hub enters the kernel again and again, and there is nothing to be had. Does not return.
  [[noreturn]] virtual void goes_round() = 0;
};

class kernel {
 public:
  kernel(std::uint64_t seed, const moods& m, outside& rest);
  ~kernel();
  kernel(const kernel&) = delete;
  kernel& operator=(const kernel&) = delete;

  [[nodiscard]] static kernel* current() noexcept { return current_; }

  // Something has happened to some file, by a call that is none of the hub's. It is noticed now, or late.
  void happened() noexcept;
  // Whether it has noticed all that happened, and told it, but for what found no room.
  [[nodiscard]] bool is_told() const noexcept { return !late_ && due_.empty() && completions() == 0; }
  // How many requests there are of those that write to memory at these addresses, or are told there.
  [[nodiscard]] std::size_t requests_in(const void* from, const void* to) const noexcept;
  [[nodiscard]] std::size_t requests() const noexcept { return taken_; }

  [[nodiscard]] std::int64_t now() const noexcept { return now_; }
  // Of what it has told so far: two runs with one seed have the same.
  [[nodiscard]] std::uint64_t trace() const noexcept { return trace_; }

  // In place of liburing's.
  int set_up(unsigned entries, io_uring* ring, io_uring_params* params) noexcept;
  void tear_down(io_uring* ring) noexcept;
  // In place of a system call.
  long call(long number, const long* arguments) noexcept;

 private:
  // A request that the kernel has.
  struct held {
    std::uint8_t opcode = 0;
    std::uint64_t data = 0;  // by which it is told, and named
    std::uint64_t address = 0;
    std::uint64_t second = 0;  // an offset, or another address
    std::uint32_t length = 0;
    std::uint32_t flags = 0;  // of the call; of a poll the events
    std::uint32_t serial = 0;
    int file = -1;  // a duplicate of its own
    bool taken = false;
    bool polls = false;
    bool due = false;        // an event, a transfer or its end is to be told
    bool ends = false;       // cancelled
    bool under_way = false;  // a transfer that nobody can cancel any more
    unsigned missed = 0;     // how often it was too late to cancel it
  };

  static constexpr int first_file = 10'000;  // beyond all numbers that the hub sees, so that these come again

  [[nodiscard]] bool dice_say(unsigned one_in) noexcept { return one_in != 0 && dice_.one_in(one_in); }

  long enter(unsigned count, unsigned want, unsigned flags, const void* argument, std::size_t size) noexcept;
  long await(unsigned want, std::int64_t limit) noexcept;
  void restrict_to(const io_uring_restriction* all, std::size_t count) noexcept;
  unsigned submit(unsigned count) noexcept;
  void take(const io_uring_sqe& entry) noexcept;
  void take_poll(const io_uring_sqe& entry) noexcept;
  [[nodiscard]] bool is_just_woken(held& poll) noexcept;
  [[nodiscard]] held* poll_to_change(const io_uring_sqe& entry) noexcept;
  void take_removal(const io_uring_sqe& entry) noexcept;
  void take_update(const io_uring_sqe& entry) noexcept;
  void take_cancel(const io_uring_sqe& entry) noexcept;
  void answer(const io_uring_sqe& entry, int result) noexcept;

  held* hold(const io_uring_sqe& entry) noexcept;
  void release(held& h) noexcept;
  [[nodiscard]] held* find(std::uint64_t data, bool polls) noexcept;
  [[nodiscard]] std::uint32_t place_of(const held& h) const noexcept;
  [[nodiscard]] static std::uint32_t events_of(const held& h) noexcept;

  void arm(held& h, int operation) noexcept;
  void collect(const held* but) noexcept;
  void notice() noexcept;
  void due(held& h) noexcept;
  void begin_transfers(bool all) noexcept;
  [[nodiscard]] bool can_go_on(const held& h) const noexcept;
  void deliver(std::size_t at_least) noexcept;
  void tell_event(held& h) noexcept;
  void transfer(held& h) noexcept;
  void post(std::uint64_t data, int result, unsigned flags) noexcept;
  void flush_overflow() noexcept;
  void show_flags() noexcept;
  [[nodiscard]] unsigned completions() const noexcept;

  static kernel* current_;

  oracle::dice dice_;
  const moods moods_;
  outside& outside_;
  std::int64_t now_ = 1'000'000'000'000;
  std::uint64_t trace_ = 0;
  unsigned vain_enters_ = 0;  // in a row
  bool late_ = false;
  bool shows_work_ = false;
  bool stands_ = false;

  int edges_ = -1;  // the epoll set
  std::vector<held> held_;
  std::size_t taken_ = 0;
  std::uint32_t serial_ = 0;
  std::vector<std::uint32_t> due_;  // the places of those
  std::vector<io_uring_cqe> overflow_;

  // What the hub's ring and this share.
  std::vector<io_uring_sqe> entries_;
  std::vector<io_uring_cqe> completions_;
  std::vector<unsigned> array_;
  unsigned entry_head_ = 0;
  unsigned entry_tail_ = 0;
  unsigned completion_head_ = 0;
  unsigned completion_tail_ = 0;
  unsigned flags_ = 0;
  unsigned dropped_ = 0;
  unsigned entry_mask_ = 0;
  unsigned completion_mask_ = 0;
  int ring_fd_ = -1;
  std::bitset<256> allowed_;  // requests
  unsigned allowed_flags_ = 0;
  bool tells_of_work_ = true;
};

}  // namespace simulated
