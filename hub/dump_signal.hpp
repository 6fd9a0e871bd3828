// Lists a hub's fibers on stderr when a signal comes: hub_options::dump_signal.
//
// The handler only notes it and wakes the hub, whose thread does the rest as soon as it looks outside; so a
// fiber that never parks nor yields keeps it from that. Hubs that were asked for the same signal all answer.
// The handler is the process's: installed by the first of them, and what was there before is put back after
// the last, unless the program has put another in the place of ours. It runs on the signal stack, where the
// thread has one, for a fiber may have hardly anything left of its own.
#pragma once

namespace annulet::detail {

class hub_link;

class dump_signal {
 public:
  // 0 for none. Throws std::invalid_argument for a number that is no signal, that cannot be handled, or that
  // a fault raises, and std::system_error where there are too many such hubs.
  dump_signal(int signal, hub_link& link);
  ~dump_signal();
  dump_signal(const dump_signal&) = delete;
  dump_signal& operator=(const dump_signal&) = delete;

  // In a forked child.
  static void forget_hubs() noexcept;

 private:
  const int signal_;
  unsigned place_ = 0;
};

}  // namespace annulet::detail
