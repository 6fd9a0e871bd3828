#include "process_hubs.hpp"

#include "dump_signal.hpp"
#include "hub_core.hpp"

#include <system_error>

#include <pthread.h>

namespace annulet::detail {

namespace {

constinit std::mutex all_mutex;
constinit intrusive_list<process_hub> all;

}  // namespace

std::mutex& process_hub::mutex() noexcept { return all_mutex; }

// From the program's start on, for the first hub may be in the making when another thread forks.
const int process_hub::refused_ = ::pthread_atfork(&before_fork, &in_parent, &in_child);

process_hub::process_hub(hub_core& hub) : hub_(hub) {
  if (refused_ != 0) {
    throw std::system_error(refused_, std::generic_category(), "annulet: hub: pthread_atfork");
  }
  const std::lock_guard lock(all_mutex);
  all.push_back(*this);
}

process_hub::~process_hub() {
  const std::lock_guard lock(all_mutex);
  unlink();
}

void process_hub::before_fork() noexcept { all_mutex.lock(); }

void process_hub::in_parent() noexcept { all_mutex.unlock(); }

// Those of other threads too, of which the child has only this one.
void process_hub::in_child() noexcept {
  dump_signal::forget_hubs();
  while (!all.empty()) {
    all.pop_front().hub_.leave_to_parent();
  }
  all_mutex.unlock();
}

}  // namespace annulet::detail
