#include "interrupting_signal.hpp"

#include <array>
#include <csignal>

namespace annulet::detail {

namespace {

constexpr std::array best_signals = {
    SIGURG,
#ifdef SIGSTKFLT
    SIGSTKFLT,
#endif
};

void do_nothing(int) {}

// Whether nobody handles it.
bool is_idle(const struct sigaction& now) noexcept {
  return now.sa_handler == SIG_DFL || now.sa_handler == SIG_IGN;
}

bool is_free(int signal) noexcept {
  struct sigaction now {};
  return sigaction(signal, nullptr, &now) == 0 && (is_idle(now) || now.sa_handler == &do_nothing);
}

template <class Predicate>
int first_signal(Predicate&& fits) noexcept {
  for (const int signal : best_signals) {
    if (fits(signal)) {
      return signal;
    }
  }
  for (int signal = SIGRTMAX; signal >= SIGRTMIN; --signal) {
    if (fits(signal)) {
      return signal;
    }
  }
  return 0;
}

constinit thread_local const signal_mask* mask_of_program = nullptr;

}  // namespace

void note_mask_of_program(const signal_mask* mask) noexcept { mask_of_program = mask; }

// A thread that blocks them all, as some programs have theirs do, uses none of them.
int choose_interrupting_signal() noexcept {
  const signal_mask blocked = mask_of_program != nullptr ? *mask_of_program : thread_mask();
  const int best =
      first_signal([&](int signal) { return (blocked & bit_of(signal)) == 0 && is_free(signal); });
  return best != 0 ? best : first_signal(&is_free);
}

void arm_interrupting_signal(int signal) noexcept {
  struct sigaction now {};
  if (sigaction(signal, nullptr, &now) == 0 && is_idle(now)) {
    struct sigaction ours {};
    ours.sa_handler = &do_nothing;
    if (sigaction(signal, &ours, &now) == 0 && !is_idle(now) && now.sa_handler != &do_nothing) {
      sigaction(signal, &now, nullptr);  // the program has just given it a handler
    }
  }
}

}  // namespace annulet::detail
