#include "event.hpp"

#include "switching.hpp"

namespace annulet {

void event::set() {
  waiting_.require_own_thread("event::set");
  set_ = true;
  waiting_.wake_all();
}

bool event::wait(deadline until) {
  constexpr const char* call = "event::wait";
  waiting_.begin(call);
  if (set_) {
    waiting_.breathe();
    return true;
  }
  detail::waiter w(waiting_.running(), call);
  return waiting_.park_here(w, w, until);
}

}  // namespace annulet
