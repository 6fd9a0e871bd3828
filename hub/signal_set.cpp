#include "signal_set.hpp"

#include "hub_core.hpp"
#include "syscalls.hpp"

#include <array>
#include <csignal>
#include <stdexcept>
#include <string>
#include <system_error>

#include <sys/signalfd.h>

namespace annulet {

class signal_set::impl final : public detail::watch {
 public:
  explicit impl(const sigset_t& signals)
      : link_(detail::hub_core::here("signal_set").link()), signals_(signals) {
    descriptor_ = ::signalfd(-1, &signals_, SFD_NONBLOCK | SFD_CLOEXEC);
    if (descriptor_ < 0) {
      throw std::system_error(errno, std::generic_category(), "annulet: signal_set: signalfd");
    }
    try {
      detail::hub_core::current()->attach(*this, descriptor_);
    } catch (...) {
      close_descriptor();
      throw;
    }
    ::pthread_sigmask(SIG_BLOCK, &signals_, &before_);
    for_each_signal([&](int number) {
      auto& use = detail::hub_core::current()->use_of_signal(number);
      if (use.sets++ == 0) {
        use.was_open = sigismember(&before_, number) == 0;
      }
    });
  }

  // The set is destroyed; a wait that is under way finds that out when its fiber runs.
  void end() {
    ended_ = true;
    detail::hub_core* const hub = link_->hub.load(std::memory_order_relaxed);
    if (hub != nullptr && attached()) {
      std::array<detail::watch*, 1> self{this};
      detail::hub_core::of(*link_, "~signal_set").detach(self);
    }
    while (!waiters_.empty()) {
      waiters_.front().wake(detail::wake_reason::closed);
    }
    close_descriptor();
    // Another set may hold the same signal still.
    sigset_t let_in;
    sigemptyset(&let_in);
    for_each_signal([&](int number) {
      // After the hub's end nobody counts: then each set lets in what it found open.
      const bool last = hub == nullptr || --hub->use_of_signal(number).sets == 0;
      const bool was_open =
          hub == nullptr ? sigismember(&before_, number) == 0 : hub->use_of_signal(number).was_open;
      if (last && was_open) {
        sigaddset(&let_in, number);
      }
    });
    ::pthread_sigmask(SIG_UNBLOCK, &let_in, nullptr);
  }

  std::optional<received_signal> wait(deadline until) {
    detail::hub_core& hub = detail::hub_core::of(*link_, "signal_set::wait");
    hub.fibers().breathe(1);
    for (;;) {
      if (ended_) {
        throw std::logic_error("annulet: signal_set::wait: the set was destroyed or its descriptor closed");
      }
      if (const auto signal = take()) {
        return signal;
      }
      if (until.is_past()) {
        return std::nullopt;
      }
      hub.io().set_interest(*this, POLLIN);
      detail::waiter arrival(hub.fibers().running(), "signal_set::wait");
      waiters_.push_back(arrival);
      if (hub.fibers().park(arrival, until, detail::wakers::outside) == detail::wake_reason::timed_out) {
        until = deadline::past();  // one more look
      }
    }
  }

 private:
  std::optional<received_signal> take() {
    signalfd_siginfo info{};
    const auto got = detail::kernel(SYS_read, descriptor_, &info, sizeof(info));
    if (got.ok() && got.value() == sizeof(info)) {
      return received_signal{static_cast<int>(info.ssi_signo), info.ssi_code,
                             static_cast<pid_t>(info.ssi_pid), info.ssi_uid};
    }
    if (got.error() != EAGAIN) {
      throw std::system_error(got.error(), std::generic_category(), "annulet: signal_set: read");
    }
    return std::nullopt;
  }

  // All look: one event may stand for several signals.
  void on_event(detail::io_result) noexcept override { wake_all(detail::wake_reason::ready); }
  void on_close() noexcept override {
    ended_ = true;
    wake_all(detail::wake_reason::closed);
  }
  void on_hub_end() noexcept override {}

  void wake_all(detail::wake_reason why) noexcept {
    while (!waiters_.empty()) {
      waiters_.front().wake(why);
    }
  }

  template <class Each>
  void for_each_signal(Each&& each) const {
    for (int number = 1; number < NSIG; ++number) {
      if (sigismember(&signals_, number) == 1) {
        each(number);
      }
    }
  }

  void close_descriptor() noexcept { (void)detail::kernel(SYS_close, descriptor_); }

  std::shared_ptr<detail::hub_link> link_;
  detail::waiter_list waiters_;
  sigset_t signals_;
  sigset_t before_{};
  int descriptor_ = -1;
  bool ended_ = false;
};

signal_set::signal_set(std::initializer_list<int> signals) {
  sigset_t set;
  sigemptyset(&set);
  if (signals.size() == 0) {
    throw std::invalid_argument("annulet: signal_set: no signal was named");
  }
  for (const int number : signals) {
    if (number == SIGKILL || number == SIGSTOP || sigaddset(&set, number) != 0) {
      throw std::invalid_argument("annulet: signal_set: signal " + std::to_string(number) +
                                  " cannot be waited for");
    }
  }
  impl_ = std::make_shared<impl>(set);
}

signal_set::~signal_set() { impl_->end(); }

std::optional<received_signal> signal_set::wait(deadline until) {
  const std::shared_ptr<impl> held = impl_;
  return held->wait(until);
}

}  // namespace annulet
