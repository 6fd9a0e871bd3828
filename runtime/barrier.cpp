#include "barrier.hpp"

#include <stdexcept>
#include <utility>

namespace annulet {

barrier::barrier(std::size_t count, std::function<void()> completion)
    : count_(count), completion_(std::move(completion)) {
  if (count == 0 || count > max) {
    throw std::invalid_argument(count == 0 ? "annulet: barrier: a count of 0"
                                           : "annulet: barrier: a negative count");
  }
}

bool barrier::arrive_and_wait(deadline until) {
  constexpr const char* call = "barrier::arrive_and_wait";
  waiting_.begin(call);
  if (count_ == 0) {
    throw std::logic_error("annulet: barrier::arrive_and_wait: all have left");
  }
  if (completing_) {
    throw std::logic_error("annulet: barrier::arrive_and_wait: its completion has parked");
  }
  if (has_arrived(count_ - 1)) {
    complete();
    waiting_.breathe();
    return true;
  }
  ++arrived_;
  detail::waiter w(waiting_.running(), call);
  return waiting_.park(w, until);
}

void barrier::leave() {
  waiting_.require_own_thread("barrier::leave");
  if (count_ == 0) {
    throw std::logic_error("annulet: barrier::leave: all have left");
  }
  --count_;
  if (count_ != 0 && !completing_ && has_arrived(count_)) {
    complete();
  }
}

// Whether so many wait. One that gave up left the line when it was woken, before its fiber ran.
bool barrier::has_arrived(std::size_t needed) noexcept {
  if (arrived_ >= needed) {
    arrived_ = waiting_.size();
  }
  return arrived_ >= needed;
}

void barrier::complete() {
  struct releasing {
    barrier& b;
    ~releasing() {
      b.completing_ = false;
      b.arrived_ = 0;
      b.waiting_.wake_all();
    }
  } const at_end{*this};
  completing_ = true;
  if (completion_) {
    completion_();
  }
}

}  // namespace annulet
