// The signal that ends, with EINTR, what a thread of a worker_pool waits for in the kernel. Internal.
//
// SIGURG: pending once however often it is sent, ignored where nobody handles it, and passed on by debuggers
// without a word. What the program uses itself is left to it: a signal with a handler, and, where another is
// to be had, one that the hub's thread blocks (a signalfd, sigwait). Then it is SIGSTKFLT, which Linux itself
// never sends, or the highest such real-time signal; those queue.
//
// The handler does nothing, and has no SA_RESTART, or no call would end. It is installed when a call is first
// interrupted, for threads let the signal in around their calls only; and again where it is gone by then,
// for there are programs that reset all signals. One case is left to know of: out-of-band data on a socket
// that the program owns (F_SETOWN) sends it a SIGURG, which so far it ignored, and which from then on may end
// a wait of its own with EINTR. (Who asks for the signal has a handler, and that is left alone.)
#pragma once

#include "signal_mask.hpp"

namespace annulet::detail {

// What the hub's thread blocks for the program, while it waits with all signals blocked; null when that is
// over.
void note_mask_of_program(const signal_mask* mask) noexcept;

// One that the program does not use now; 0 where it uses them all. For the hub's thread.
[[nodiscard]] int choose_interrupting_signal() noexcept;

// To be called before one is sent: where the signal would do nothing, or end the process, it has the handler
// from now on. A handler that the program has installed since it was chosen stays, and runs.
void arm_interrupting_signal(int signal) noexcept;

}  // namespace annulet::detail
