#include "latch.hpp"

#include <stdexcept>
#include <string>

namespace annulet {

latch::latch(std::size_t count) : count_(count) {
  if (count > max) {
    throw std::invalid_argument("annulet: latch: a negative count");
  }
}

void latch::count_down(std::size_t by) {
  waiting_.require_own_thread("latch::count_down");
  if (by > count_) {
    throw std::logic_error("annulet: latch::count_down: by " + std::to_string(by) + ", with " +
                           std::to_string(count_) + " left");
  }
  count_ -= by;
  if (count_ == 0) {
    waiting_.wake_all();
  }
}

bool latch::wait(deadline until) {
  constexpr const char* call = "latch::wait";
  waiting_.begin(call);
  if (count_ == 0) {
    waiting_.breathe();
    return true;
  }
  detail::waiter w(waiting_.running(), call);
  return waiting_.park(w, until);
}

bool latch::arrive_and_wait(deadline until) {
  count_down();
  return wait(until);
}

}  // namespace annulet
