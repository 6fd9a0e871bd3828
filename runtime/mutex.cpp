#include "mutex.hpp"

#include "control_block.hpp"

#include <annulet_plants.hpp>

#include <stdexcept>

namespace annulet {

using detail::waiter;

bool mutex::lock(deadline until) {
  constexpr const char* call = "mutex::lock";
  waiting_.begin(call, holder_ != nobody);
  detail::control_block& self = waiting_.running();
  if (holder_ == nobody) {
    holder_ = self.id;
    waiting_.breathe();
    return true;
  }
  if (holder_ == self.id) {
    throw std::logic_error("annulet: mutex::lock: " + self.describe() + " has it already");
  }
  waiter w(self);
  return waiting_.park(w, until, call);
}

bool mutex::try_lock() {
  waiting_.require_own_thread("mutex::try_lock", holder_ != nobody);
  if (holder_ != nobody) {
    return false;
  }
  holder_ = waiting_.running().id;
  return true;
}

void mutex::unlock() {
  if (!held_by_caller("mutex::unlock")) {
    throw std::logic_error("annulet: mutex::unlock: " + waiting_.running().describe() + " does not have it");
  }
  if (waiting_.empty()) {
    holder_ = nobody;
    return;
  }
  holder_ = detail::planted(detail::plant::lost_hand_over) ? nobody : waiting_.front().fiber().id;
  waiting_.wake_one();
}

bool mutex::held_by_caller(const char* call) {
  waiting_.require_own_thread(call, holder_ != nobody);
  return holder_ == waiting_.running().id;
}

// For who gave it up in order to wait: nothing ends this but having it again. False where it was destroyed.
bool mutex::relock() {
  if (holder_ == nobody) {
    holder_ = waiting_.running().id;
    return true;
  }
  waiter w(waiting_.running());
  return waiting_.park_uninterrupted(w) == detail::wake_reason::ready;
}

}  // namespace annulet
