// What a hub knows of one descriptor number: who watches it, whose turn it is to read and to write, and which
// requests the kernel carries out on it. Internal.
//
// Made when the number is first waited for or adopted, and kept for as long as the hub: what changes is its
// *incarnation*, which ends when the number is closed through the hub. Whoever held a turn before finds out
// by that, and touches nothing of the new one.
#pragma once

#include "request.hpp"
#include "watch.hpp"

#include <annulet/runtime/deadline.hpp>
#include <annulet/runtime/scheduler.hpp>
#include <annulet/runtime/waiter.hpp>

#include <array>
#include <cstdint>
#include <optional>

namespace annulet::detail {

class hub_core;

enum class direction : std::uint8_t { reading, writing };

// How a file is asked without waiting, and what its answers mean.
enum class file_kind : std::uint8_t {
  unknown,     // a plain number: find out at each call
  tcp_socket,  // a short read has emptied it
  socket,      // other sockets
  no_socket,   // one of the two that follow
  disk,        // never waits for a peer; polling it says nothing
  other,       // pipes (short reads of one may be packets), ttys, eventfd, inotify, ...
};

class fd_state final : public watch {
 public:
  fd_state(hub_core& hub, int number) noexcept : hub_(hub), number_(number) {}

  using watch_list = intrusive_list<watch, fd_tag>;
  watch_list watchers;  // all of this hub, this one included while it is attached

  [[nodiscard]] int number() const noexcept { return number_; }
  [[nodiscard]] std::uint32_t incarnation() const noexcept { return incarnation_; }
  [[nodiscard]] bool owned() const noexcept { return owned_; }
  [[nodiscard]] bool closing() const noexcept { return closing_; }
  [[nodiscard]] file_kind kind() const noexcept { return kind_; }

  // Somebody watches it, has a turn, or owns it.
  [[nodiscard]] bool in_use() const noexcept {
    return owned_ || lanes_[0].held || lanes_[1].held || !watchers.empty();
  }

  // Becomes a descriptor's: the watch stays attached. Throws std::bad_alloc, and has then changed nothing.
  void own(file_kind kind);

  // Whether a try may find anything: false only while an armed watch has said nothing since the last one
  // found nothing. And whether nobody is before us.
  [[nodiscard]] bool free(direction d) const noexcept { return !side(d).held; }
  [[nodiscard]] bool worth_a_try(direction d) const noexcept { return !owned_ || side(d).ready; }
  // A try found nothing, or took all there was.
  void exhausted(direction d, bool surely) noexcept {
    if (surely || !hung_up_) {
      side(d).ready = false;
    }
  }

  // Ends the incarnation: all that wait in calls are told, calls answer EBADF, and the watch is let go.
  void begin_closing() noexcept;
  // Until the kernel holds no request of the closed one any more. Nothing interrupts it.
  void await_requests();
  [[nodiscard]] bool has_requests() const noexcept { return !requests_.empty(); }
  void end_closing() noexcept { closing_ = false; }
  // The same for a destructor, which does not wait: the last request closes the number.
  void close_after_requests() noexcept { orphaned_ = true; }

  void on_event(io_result mask) noexcept override;
  void on_close() noexcept override {}  // begin_closing has told everybody
  void on_hub_end() noexcept override { owned_ = false; }

 private:
  friend class turn;

  struct lane {
    bool held = false;
    bool ready = true;
    waiter* sleeper = nullptr;  // who holds it, while he waits for an event
    waiter_list line;           // who comes after him
  };

  [[nodiscard]] lane& side(direction d) noexcept { return lanes_[static_cast<std::size_t>(d)]; }
  [[nodiscard]] const lane& side(direction d) const noexcept { return lanes_[static_cast<std::size_t>(d)]; }
  void arm(bool again);
  void disarm() noexcept;
  static void tell(lane& l) noexcept;
  void request_ended() noexcept;

  hub_core& hub_;
  const int number_;
  std::uint32_t incarnation_ = 0;
  file_kind kind_ = file_kind::unknown;
  bool owned_ = false;
  bool closing_ = false;
  bool orphaned_ = false;
  bool hung_up_ = false;  // a hang-up or an error was seen: reads go on to the end
  std::array<lane, 2> lanes_;
  intrusive_list<request> requests_;
  waiter* closer_ = nullptr;
};

// One fiber's turn at one direction of a descriptor, first come first served. A call that cannot be done at
// once does everything else within one.
class turn {
 public:
  turn(hub_core& hub, fd_state& file, direction d, const char* call) noexcept
      : hub_(hub), file_(file), incarnation_(file.incarnation()), direction_(d), call_(call) {}
  ~turn();
  turn(const turn&) = delete;
  turn& operator=(const turn&) = delete;

  // All four throw EBADF where the descriptor was closed, and interruptions; and say nothing, or false,
  // where the deadline came.

  // Parks behind those that came first.
  [[nodiscard]] bool take(deadline until);
  // Parks until the descriptor may be ready. At the deadline one more try is due.
  [[nodiscard]] bool await_event(deadline until);
  // Parks for a millisecond: for what no event tells of.
  [[nodiscard]] bool rest(deadline until);
  // Has the kernel carry it out, and parks meanwhile. What the kernel has done counts, whatever came between.
  [[nodiscard]] std::optional<io_result> perform(const operation& what, deadline until);
  // After each other park: the number may be another's. Throws EBADF.
  void require_open() const;

 private:
  using park_function = wake_reason (scheduler::*)(waiter&, deadline, wakers);
  wake_reason await_completion(request& r, deadline until, park_function park);
  void call_off(request& r);

  hub_core& hub_;
  fd_state& file_;
  const std::uint32_t incarnation_;
  const direction direction_;
  const char* const call_;
  bool taken_ = false;
  unsigned waits_ = 0;  // for events; all but the last were for nothing
};

// std::system_error, "annulet: recv(7)".
[[noreturn]] void throw_io_error(int error, const char* call, int fd);

}  // namespace annulet::detail
