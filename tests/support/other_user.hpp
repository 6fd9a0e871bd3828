// Servers that refuse to serve root, and should not have its rights in a test either.
#pragma once

#include "folder.hpp"
#include "program.hpp"

#include <csignal>
#include <functional>

#include <grp.h>
#include <pwd.h>
#include <sys/prctl.h>
#include <unistd.h>

namespace annulet::test {

// Nobody, where the test is root's, and else who runs it.
class other_user {
 public:
  other_user() {
    if (::geteuid() != 0) {
      return;
    }
    const passwd* const nobody = ::getpwnam("nobody");
    if (nobody == nullptr) {
      throw std::runtime_error("there is no user nobody here");
    }
    user_ = nobody->pw_uid;
    group_ = nobody->pw_gid;
  }

  void give(const folder& its) const { require_ok(::chown(its.path().c_str(), user_, group_), "chown"); }

  // For a program's `prepare`. It gets the signal when the test ends, however that ends: the kernel forgets
  // what the program is to get when the user changes. The nicer, the more of a core it leaves to the test.
  [[nodiscard]] std::function<void()> become(int signal_at_end, int nicer = 0) const {
    return [*this, signal_at_end, nicer, test = ::getpid()] {
      (void)::nice(nicer);
      if (::geteuid() == 0 &&
          (::setgroups(0, nullptr) != 0 || ::setgid(group_) != 0 || ::setuid(user_) != 0)) {
        ::_exit(126);
      }
      ::prctl(PR_SET_PDEATHSIG, signal_at_end);
      if (::getppid() != test) {
        ::_exit(126);
      }
    };
  }

 private:
  uid_t user_ = ::geteuid();
  gid_t group_ = ::getegid();
};

}  // namespace annulet::test
