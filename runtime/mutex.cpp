#include "mutex.hpp"

#include "switching.hpp"

#include <annulet_plants.hpp>

#include <stdexcept>
#include <string>

namespace annulet {

using detail::waiter;

bool mutex::lock(deadline until, const char* call) {
  detail::control_block& self = waiting_.begin(call, holder_ != nobody);
  if (holder_ == nobody) {
    holder_ = self.id;
    waiting_.breathe();
    return true;
  }
  if (holder_ == self.id) {
    throw std::logic_error(std::string("annulet: ") + call + ": " + self.describe() + " has it already");
  }
  waiter w(self, call);
  return waiting_.park_here(w, w, until);
}

bool mutex::try_lock(const char* call) {
  const detail::control_block& self = waiting_.require_own_thread(call, holder_ != nobody);
  if (holder_ != nobody) {
    return false;
  }
  holder_ = self.id;
  return true;
}

void mutex::unlock(const char* call) {
  const detail::control_block* const self = waiting_.giver(call, holder_ != nobody);
  if (self == nullptr) {
    return;
  }
  if (holder_ != self->id) {
    throw std::logic_error(std::string("annulet: ") + call + ": " + self->describe() + " does not have it");
  }
  if (waiting_.empty()) {
    holder_ = nobody;
    return;
  }
  holder_ = detail::planted(detail::plant::lost_hand_over) ? nobody : waiting_.front().fiber().id;
  waiting_.wake_one();
}

bool mutex::held(const char* call) {
  return holder_ == waiting_.require_own_thread(call, holder_ != nobody).id;
}

// For who gave it up in order to wait: nothing ends this but having it again. False where it was destroyed.
bool mutex::relock() {
  if (holder_ == nobody) {
    holder_ = waiting_.running().id;
    return true;
  }
  waiter w(waiting_.running(), "condition_variable::wait, for its mutex");
  return waiting_.park_uninterrupted(w) == detail::wake_reason::ready;
}

}  // namespace annulet
