// A standing interest in one descriptor, served by an engine.
//
// A watch says "something happened here, go and look": its events are edges and hints, never the truth.
// Whoever owns it asks the descriptor itself (poll(2), a non-blocking read) and, when that says "not ready",
// keeps the watch armed, which checks the level once and then tells of each further edge.
//
//   state        the kernel holds            leaves it by
//   idle         nothing                     set_interest -> armed
//   armed        one poll request            a completion without MORE -> idle; clear_interest -> cancelling
//   cancelling   the request, to be removed  its last completion -> idle, and armed again if it is wanted by
//                                            then; the removal is refused -> refused
//   refused      the request                 the next enter cancels it the hard way -> cancelling
//
// While it is not idle the kernel holds the open file: let_go (engine.hpp) before the descriptor is closed.
#pragma once

#include "io_result.hpp"

#include <annulet/runtime/intrusive_list.hpp>

#include <cstdint>

namespace annulet::detail {

struct fd_tag;
struct pending_tag;

class watch : public list_hook<fd_tag>, public list_hook<pending_tag> {
 public:
  watch() = default;
  watch(const watch&) = delete;
  watch& operator=(const watch&) = delete;

  // The mask of what happened (as poll(2) has it), or why the request ended: it is idle then. Called from
  // inside the engine: note it, wake a waiter; no other fiber runs meanwhile, and nothing may be thrown.
  virtual void on_event(io_result mask) noexcept = 0;
  // An event is about to be told: what on_event will touch can be fetched into the cache. The watch itself is
  // there already.
  virtual void expect_event() const noexcept {}
  // The descriptor is being closed through the hub. The watch is let go right after this.
  virtual void on_close() noexcept = 0;
  // The hub ends. The watch is let go and detached right after this.
  virtual void on_hub_end() noexcept = 0;

  [[nodiscard]] int fd() const noexcept { return fd_; }
  [[nodiscard]] bool attached() const noexcept { return attached_; }
  // False while a request is being taken back: then it is armed anew only after that one's last completion.
  [[nodiscard]] bool armed() const noexcept { return state_ == state::armed; }
  // The mask that the kernel has been given, or is given next; 0 while nothing is armed.
  [[nodiscard]] std::uint16_t armed_for() const noexcept { return armed() ? armed_ : std::uint16_t{0}; }
  [[nodiscard]] bool settled() const noexcept { return state_ == state::idle || state_ == state::armed; }

 protected:
  virtual ~watch() = default;

  // One event ends the request. For who wants one: it spares taking the request back. Never for who waits
  // again after an event that was nothing: with a peer that has half closed, the next would come at once.
  bool once_ = false;

  // Asks the kernel about another descriptor from now on, which stands for the first. Only while idle.
  void retarget(int fd) noexcept { fd_ = fd; }

 private:
  friend class engine;
  friend class uring_engine;
  friend class epoll_engine;
  friend class hub_core;

  enum class state : std::uint8_t { idle, armed, cancelling, refused };

  int fd_ = -1;  // what the kernel is asked to watch
  std::uint32_t slot_ = 0;
  std::uint32_t generation_ = 0;  // of the request: a completion of an older one finds nobody
  std::uint16_t wanted_ = 0;      // poll mask; 0 where nothing should be armed
  std::uint16_t armed_ = 0;       // the mask that the kernel was given
  state state_ = state::idle;
  bool attached_ = false;
};

}  // namespace annulet::detail
