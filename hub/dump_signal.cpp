#include "dump_signal.hpp"

#include "hub_link.hpp"
#include "process_hubs.hpp"

#include <sched.h>
#include <array>
#include <atomic>
#include <cerrno>
#include <csignal>
#include <mutex>
#include <stdexcept>
#include <string>
#include <system_error>
#include <utility>

namespace annulet::detail {

namespace {

// What the handler reads. Plain atomics, for it can come at any moment on any thread.
struct place {
  std::atomic<int> signal{0};
  std::atomic<hub_link*> link{nullptr};
};
constexpr unsigned places_there_are = 256;
constinit std::array<place, places_there_are> places;
constinit std::atomic<unsigned> handlers_running{0};

// Guarded by process_hub::mutex(), like who has which place.
struct signal_use {
  unsigned hubs = 0;
  struct sigaction before {};
};
constinit std::array<signal_use, NSIG> uses;

void on_signal(int signal) {
  const int kept = errno;
  handlers_running.fetch_add(1);
  for (const place& each : places) {
    if (each.signal.load() == signal) {
      if (hub_link* const link = each.link.load()) {
        link->ask_for_dump();
      }
    }
  }
  handlers_running.fetch_sub(1);
  errno = kept;
}

// Who returns from its handler comes back to the instruction that raised it, for ever.
bool is_of_faults(int signal) noexcept {
  return signal == SIGSEGV || signal == SIGBUS || signal == SIGFPE || signal == SIGILL;
}

void put_back(int signal, const struct sigaction& before) noexcept {
  struct sigaction now {};
  ::sigaction(signal, nullptr, &now);
  if (now.sa_handler == &on_signal) {  // or else the program has put another in its place
    ::sigaction(signal, &before, nullptr);
  }
}

}  // namespace

dump_signal::dump_signal(int signal, hub_link& link) : signal_(signal) {
  if (signal == 0) {
    return;
  }
  if (signal < 0 || signal >= NSIG) {
    throw std::invalid_argument("annulet: hub_options::dump_signal is " + std::to_string(signal) +
                                ", which is no signal");
  }
  if (is_of_faults(signal)) {
    throw std::invalid_argument("annulet: hub_options::dump_signal is " + std::to_string(signal) +
                                ", which faults raise");
  }
  const std::lock_guard lock(process_hub::mutex());
  while (places[place_].signal.load() != 0) {
    if (++place_ == places_there_are) {
      throw std::system_error(EAGAIN, std::generic_category(), "annulet: hub: too many with a dump_signal");
    }
  }
  signal_use& here = uses[static_cast<unsigned>(signal)];
  if (here.hubs == 0) {
    struct sigaction action {};
    action.sa_handler = &on_signal;
    action.sa_flags = SA_RESTART | SA_ONSTACK;
    ::sigemptyset(&action.sa_mask);
    if (::sigaction(signal, &action, &here.before) != 0) {
      throw std::invalid_argument("annulet: hub_options::dump_signal is " + std::to_string(signal) +
                                  ", which cannot be handled");
    }
  }
  ++here.hubs;
  places[place_].link = &link;
  places[place_].signal = signal;
}

// What handled the signals before is put back.
void dump_signal::forget_hubs() noexcept {
  handlers_running = 0;  // of threads that are not in this process
  for (place& each : places) {
    each.link = nullptr;
    each.signal = 0;
  }
  for (int signal = 1; signal < NSIG; ++signal) {
    signal_use& here = uses[static_cast<unsigned>(signal)];
    if (std::exchange(here.hubs, 0U) != 0) {
      put_back(signal, here.before);
    }
  }
}

dump_signal::~dump_signal() {
  if (signal_ == 0) {
    return;
  }
  const std::lock_guard lock(process_hub::mutex());
  places[place_].link = nullptr;
  while (handlers_running.load() != 0) {  // one may have read it before; none of them waits for anything
    ::sched_yield();
  }
  places[place_].signal = 0;
  signal_use& here = uses[static_cast<unsigned>(signal_)];
  if (--here.hubs == 0) {
    put_back(signal_, here.before);
  }
}

}  // namespace annulet::detail
