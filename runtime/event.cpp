#include "event.hpp"

#include "errors.hpp"
#include "scheduler.hpp"

#include <string>

namespace annulet {

event::~event() {
  while (!waiters_.empty()) {
    waiters_.front().wake(detail::wake_reason::closed);
  }
}

void event::require_own_thread(const char* call) {
  detail::scheduler& here = detail::scheduler::here(call);
  if (waiters_.empty()) {
    owner_ = &here;
  } else if (owner_ != &here) {
    throw wrong_thread(std::string("annulet: ") + call + ": fibers of another thread wait for this event");
  }
}

void event::set() {
  require_own_thread("event::set");
  set_ = true;
  while (!waiters_.empty()) {
    waiters_.front().wake(detail::wake_reason::ready);
  }
}

bool event::wait(deadline until) {
  require_own_thread("event::wait");
  if (set_ || until.is_past()) {
    const bool answer = set_;
    owner_->breathe(1);
    return answer;
  }
  detail::waiter w(owner_->running());
  waiters_.push_back(w);
  switch (owner_->park(w, until, detail::wakers::fibers)) {
    case detail::wake_reason::ready:
      return true;
    case detail::wake_reason::closed:
      throw std::logic_error("annulet: event::wait: the event was destroyed");
    default:
      return false;
  }
}

}  // namespace annulet
