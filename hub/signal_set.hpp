// Signals as something a fiber waits for.
//
//   annulet::signal_set stop{SIGINT, SIGTERM};
//   annulet::spawn([&] { stop.wait(); server.kill(); });
//
// While it lives its signals are blocked in this thread (and in threads made after it), and arrive here
// instead of at a handler. Make it before other threads start, or block the signals in those: the kernel
// gives a signal of the process to any thread that lets it in.
#pragma once

#include <annulet/runtime/deadline.hpp>

#include <initializer_list>
#include <memory>
#include <optional>

#include <sys/types.h>

namespace [[gnu::visibility("default")]] annulet {

struct received_signal {
  int number;
  int code;   // si_code: who sent it, and how
  pid_t pid;  // of the sender, where there was one
  uid_t uid;
};

class signal_set {
 public:
  // Throws std::invalid_argument for an empty set, an unknown number, SIGKILL or SIGSTOP; no_hub;
  // std::system_error where no descriptor is to be had. Then the mask is as before.
  signal_set(std::initializer_list<int> signals);
  // Lets in again what was not blocked before; a signal that is pending still is then delivered as usual.
  ~signal_set();
  signal_set(const signal_set&) = delete;
  signal_set& operator=(const signal_set&) = delete;

  // Parks until one of the signals has arrived; nullopt where the deadline came first. Several fibers may
  // wait: each signal is told to one. Throws hub_gone, wrong_thread, and
  // std::logic_error where the set is destroyed meanwhile.
  std::optional<received_signal> wait(deadline until = deadline::never());

 private:
  class impl;
  std::shared_ptr<impl> impl_;  // a wait holds it too: the set may be destroyed meanwhile
};

}  // namespace annulet
