// Servers that refuse to serve root, and should not have its rights in a test either.
#pragma once

#include "folder.hpp"
#include "program.hpp"

#include <csignal>
#include <functional>

#include <grp.h>
#include <pwd.h>
#include <sched.h>
#include <sys/prctl.h>
#include <unistd.h>

namespace annulet::test {

// That a program may run on: what is measured beside it may have the others.
enum class cores { all, last };

// For a child, and all of its children. Where the process has but one there is nothing to keep to.
inline void keep_to_the_last_core() noexcept {
  cpu_set_t mine;
  if (::sched_getaffinity(0, sizeof mine, &mine) == 0) {
    int last = CPU_SETSIZE - 1;
    while (last > 0 && !CPU_ISSET(last, &mine)) {
      --last;
    }
    CPU_ZERO(&mine);
    CPU_SET(last, &mine);
    ::sched_setaffinity(0, sizeof mine, &mine);
  }
}

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
  // what the program is to get when the user changes.
  [[nodiscard]] std::function<void()> become(int signal_at_end, cores its = cores::all) const {
    return [*this, signal_at_end, its, test = ::getpid()] {
      if (its == cores::last) {
        keep_to_the_last_core();
      }
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
