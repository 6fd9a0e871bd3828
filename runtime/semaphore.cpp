#include "semaphore.hpp"

#include "switching.hpp"

#include <annulet_plants.hpp>

#include <stdexcept>
#include <string>

namespace annulet {

semaphore::semaphore(std::size_t initial, std::size_t most) : permits_(initial), most_(most) {
  if (initial > most || most > unbounded) {
    throw std::invalid_argument("annulet: semaphore: " + std::to_string(initial) + " permits, and " +
                                std::to_string(most) + " at most");
  }
}

bool semaphore::acquire(deadline until) {
  constexpr const char* call = "semaphore::acquire";
  detail::control_block& self = waiting_.begin(call);
  if (permits_ != 0) {
    --permits_;
    waiting_.breathe();
    return true;
  }
  detail::waiter w(self, call);
  const bool served = waiting_.park_here(w, w, until);
  return served && !(detail::planted(detail::plant::swallowed_signal) && until.reached());
}

bool semaphore::try_acquire() {
  waiting_.require_own_thread("semaphore::try_acquire");
  if (permits_ == 0) {
    return false;
  }
  --permits_;
  return true;
}

void semaphore::release(std::size_t permits) {
  if (waiting_.giver("semaphore::release") == nullptr) {
    return;
  }
  if (permits > most_ - permits_) {
    throw std::logic_error("annulet: semaphore::release: more than the bound of " + std::to_string(most_));
  }
  for (; permits != 0 && !waiting_.empty(); --permits) {
    waiting_.wake_one();
  }
  permits_ += permits;
}

}  // namespace annulet
