// What a signal does, changed for a while.
#pragma once

#include <csignal>

namespace annulet::test {

// Handlers installed here do not have interrupted system calls restarted.
class handler_scope {
 public:
  handler_scope(int signal, void (*handler)(int)) : signal_(signal) {
    struct sigaction action {};
    action.sa_handler = handler;
    ::sigaction(signal_, &action, &before_);
  }
  ~handler_scope() { ::sigaction(signal_, &before_, nullptr); }
  handler_scope(const handler_scope&) = delete;
  handler_scope& operator=(const handler_scope&) = delete;

 private:
  int signal_;
  struct sigaction before_ {};
};

}  // namespace annulet::test
