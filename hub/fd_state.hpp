// What a hub knows of one descriptor number: who watches it, whose turn it is to read and to write, and which
// requests the kernel carries out on it. Internal.
//
// Made when the number is first waited for or adopted, and kept for as long as the hub: what changes is its
// *incarnation*, which ends when the number is closed through the hub. Whoever held a turn before finds out
// by that, and touches nothing of the new one.
#pragma once

#include "request.hpp"
#include "watch.hpp"

#include <annulet/runtime/waiter.hpp>

#include <array>
#include <cstdint>

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

class alignas(64) fd_state final : public watch {
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

  // Whether nobody has the turn.
  [[nodiscard]] bool free(direction d) const noexcept { return !side(d).held; }
  // Whether a try may find anything: false only while an armed watch has said nothing since the last one
  // found nothing.
  [[nodiscard]] bool worth_a_try(direction d) const noexcept { return !owned_ || side(d).ready; }
  // A try has just found nothing.
  void found_empty(direction d) noexcept { side(d).ready = false; }
  // A try took all there was, as it seems: behind a hang-up there is the end of the file still.
  void drained(direction d) noexcept { side(d).ready = hung_up_; }

  // Ends the incarnation: all that wait in calls are told, calls answer EBADF, and the watch is let go.
  void begin_closing() noexcept;
  // The same where nobody waits, and the number is closed already.
  void was_closed() noexcept {
    ++incarnation_;
    ++closes_;
  }
  // As begin_closing, for a file that stays open under its number.
  void begin_release() noexcept;
  // How often the number was closed, or given another file. A release is none.
  [[nodiscard]] std::uint32_t closes() const noexcept { return closes_; }
  // Ends no incarnation: an owner stays one, and who waits for an event or in line goes on. But the requests
  // are called off, none begins until end_closing, and their calls answer EBADF, as all new ones do.
  void call_off_requests() noexcept;
  // Until the kernel holds no request of the closed one any more. Nothing interrupts it.
  void await_requests();
  // The same for a destructor, which does not wait: the last request closes the number, or who awaits it.
  void close_after_requests() noexcept { orphaned_ = true; }
  [[nodiscard]] bool orphaned() const noexcept { return orphaned_; }
  [[nodiscard]] bool has_requests() const noexcept { return !requests_.empty(); }
  void end_closing() noexcept { closing_ = orphaned_ = false; }

  void on_event(io_result mask) noexcept override;
  void expect_event() const noexcept override;
  void on_close() noexcept override {}  // begin_closing has told everybody
  void on_hub_end() noexcept override { owned_ = false; }

 private:
  friend class carrying;
  friend class io_call;

  struct lane {
    bool held = false;
    bool ready = true;
    waiter* sleeper = nullptr;             // who holds it, while he waits for an event
    const control_block* fiber = nullptr;  // the sleeper's
    waiter_list line;                      // who comes after him
  };

  [[nodiscard]] lane& side(direction d) noexcept { return lanes_[static_cast<std::size_t>(d)]; }
  [[nodiscard]] const lane& side(direction d) const noexcept { return lanes_[static_cast<std::size_t>(d)]; }
  enum class arming : std::uint8_t { once, anew };
  void arm(arming how);
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
  waiter_list closers_;
  std::uint32_t closes_ = 0;
};

}  // namespace annulet::detail
