// A signal that the thread blocks, for a while.
#pragma once

#include <csignal>
#include <initializer_list>

#include <pthread.h>

namespace annulet::test {

inline sigset_t set_of(std::initializer_list<int> signals) {
  sigset_t set;
  sigemptyset(&set);
  for (const int signal : signals) {
    sigaddset(&set, signal);
  }
  return set;
}

class blocked_signal {
 public:
  explicit blocked_signal(int signal) {
    const sigset_t set = set_of({signal});
    ::pthread_sigmask(SIG_BLOCK, &set, &before_);
  }
  ~blocked_signal() { ::pthread_sigmask(SIG_SETMASK, &before_, nullptr); }
  blocked_signal(const blocked_signal&) = delete;
  blocked_signal& operator=(const blocked_signal&) = delete;

 private:
  sigset_t before_{};
};

}  // namespace annulet::test
