// Planted bugs, all off. The tests compile the same sources with a header of this name in which each can be
// switched on, to show that the checks see it. Here every question is the constant false and costs nothing.
#pragma once

namespace annulet::detail {

enum class plant {
  lost_event,         // one event in 10,000 is dropped
  stale_candidate,    // a candidate is reported without asking poll(2)
  queued_cancel,      // letting go queues the cancellation and does not reap it
  refused_poll,       // the kernel refuses each poll request with EINVAL (files with many wait queues)
  failed_poll,        // the kernel refuses each poll request with ENOMEM
  lost_hand_over,     // who waits longest for a mutex is woken and does not have it
  wake_out_of_order,  // who waits longest goes to the end of the line instead of being woken
  swallowed_signal,   // who was woken in time, and runs after its deadline, says that it was late
  unasked_hang_up,    // a drop-in poll tells of a peer's half close without being asked
  missing_invalid,    // it does not tell of a closed descriptor
  rounded_time,       // what a drop-in select leaves of the time is rounded up to a tick

  ignored_refusal,      // a request whose new mask was refused is taken to have it
  lost_end,             // a poll request that has ended is taken for one that goes on
  lost_wake_poll,       // the same of the one by which other threads wake the hub
  ignored_overflow,     // completions that found no room are not fetched
  left_early,           // a call is left before its request has completed
  unsaid_sleep,         // the hub sleeps, and others do not know that they have to wake it
  forgotten_candidate,  // an event is not noted with its key

  narrow_events,  // no bug: epoll tells of one event at a time
};

constexpr bool planted(plant) noexcept { return false; }

class control_block;
// Not a bug: whether a test wants the fiber killed as soon as it has parked.
constexpr bool killed_at_this_park(const control_block&) noexcept { return false; }

// Nor this: what a simulation makes of a system call, in Linux' place.
inline constexpr long (*stand_in)(long number, const long* arguments) noexcept = nullptr;

}  // namespace annulet::detail
