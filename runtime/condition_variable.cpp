#include "condition_variable.hpp"

#include "scheduler.hpp"

#include <annulet_plants.hpp>

#include <stdexcept>

namespace annulet {

void condition_variable::notify_one() {
  waiting_.require_own_thread("condition_variable::notify_one");
  if (!waiting_.empty()) {
    waiting_.wake_one();
  }
}

void condition_variable::notify_all() {
  waiting_.require_own_thread("condition_variable::notify_all");
  waiting_.wake_all();
}

bool condition_variable::wait(std::unique_lock<annulet::mutex>& lock, deadline until) {
  constexpr const char* call = "condition_variable::wait";
  waiting_.begin(call);
  if (!lock.owns_lock() || !lock.mutex()->held()) {
    throw std::logic_error("annulet: condition_variable::wait: the mutex is not this fiber's");
  }
  detail::scheduler::current()->throw_if_interrupted();  // while the mutex is held
  annulet::mutex& m = *lock.mutex();
  detail::waiter w(waiting_.running(), call);
  m.unlock();
  // With no time to wait there is still the turn of who waits for the mutex, which has it now.
  const detail::wake_reason why = waiting_.park_and_tell(w, until);
  if (!m.relock()) {
    lock.release();  // there is nothing left to unlock
    throw std::logic_error("annulet: condition_variable::wait: the mutex was destroyed meanwhile");
  }
  if (why == detail::wake_reason::closed || why == detail::wake_reason::interrupted) {
    detail::wait_queue::throw_cause(why, call);
  }
  return why == detail::wake_reason::ready &&
         !(detail::planted(detail::plant::swallowed_signal) && until.reached());
}

}  // namespace annulet
