// What is said when a fiber runs over its stack: a handler for SIGSEGV names the fiber on stderr, and the
// signal then does what it would have done without us. Internal.
//
// It stands in runtime, and not in hub, because it is about memory: which page is a guard, and whose stack
// lies above it, is known here only, and a scheduler that a test drives has overflows too.
//
// The handler is the process's. It is there from the beginning of the first hub that wants it to the end of
// the last, and then what was there before is put back. What it gets and is no touch of a guard goes on to
// that, as if it had been called by the kernel; a touch of a guard does too, after the message. Where there
// was no handler the disposition becomes the default one and the instruction runs once more: the core shows
// it, and the status is SIGSEGV. A guard never gives SIGBUS, so that signal is left alone.
//
// A program that installs a handler of its own meanwhile has it: no overflow is named unless that passes on
// to ours, and while it stands hubs install none again, or the two might call each other for ever. It has to
// ask for SA_ONSTACK: without it, there is no stack left for it to run on, and an overflow ends the process
// without a word. One that was there before ours needs not: ours calls it.
//
// A signal whose handler does not ask for SA_ONSTACK, and which finds no room on a fiber's stack for its
// frame, is an overflow too, and is named.
//
// Where a stack has ended no handler can run on it, so each thread with a hub has a signal stack, for as
// long as the hub lives: its own where it has one, else one of ours. Handlers of the program's that ask for
// SA_ONSTACK run there as well.
//
// A forked child has no hub, so what the program had is put back there; one of its own begins anew. The
// signal stack that the child's thread has inherited stays.
//
// Not ours, and not named: the stack of a thread, which main runs on, and threads without a hub. A fault
// while SIGSEGV is blocked ends the process at once. In a build with the address or the thread sanitizer
// nothing is installed: they report such faults themselves.
#pragma once

#include "stack.hpp"

#include <cstddef>

namespace annulet::detail {

// Of a thread, by its scheduler.
class overflow_watch {
 public:
  // Throws std::system_error where there is no memory for a signal stack.
  explicit overflow_watch(overflow_report wanted);
  ~overflow_watch();
  overflow_watch(const overflow_watch&) = delete;
  overflow_watch& operator=(const overflow_watch&) = delete;

 private:
  bool counted_ = false;
  unsigned forks_ = 0;                 // what is counted is of a process, not of its children
  std::byte* signal_stack_ = nullptr;  // the mapping, its guard page first; null where the thread has its own
  std::size_t length_ = 0;
};

}  // namespace annulet::detail
