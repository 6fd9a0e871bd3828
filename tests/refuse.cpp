// refuse CALL ERROR PROGRAM [ARGUMENT...]
//
// Runs a program whose system call CALL is refused with ERROR (EPERM, ENOSYS, ...), as containers and
// administrators do it: by a seccomp filter, which its threads and children inherit.
//
//   build/tests/refuse io_uring_setup EPERM build/tests/selector_test
#include "support/refused_calls.hpp"

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <exception>

#include <unistd.h>

namespace {

// 0 where no errno has that name.
int errno_named(const char* name) {
  constexpr int most = 4095;  // what the kernel can return
  for (int error = 1; error <= most; ++error) {
    const char* const known = ::strerrorname_np(error);
    if (known != nullptr && std::strcmp(known, name) == 0) {
      return error;
    }
  }
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  constexpr int not_run = 125;  // as of env and timeout, which run programs too
  const int call = argc < 4 ? __NR_SCMP_ERROR : ::seccomp_syscall_resolve_name(argv[1]);
  const int error = argc < 4 ? 0 : errno_named(argv[2]);
  if (call == __NR_SCMP_ERROR || error == 0) {
    std::fprintf(stderr,
                 "usage: refuse CALL ERROR PROGRAM [ARGUMENT...]\n"
                 "with a system call and an errno by their names, as in: refuse io_uring_setup EPERM ...\n");
    return not_run;
  }
  try {
    annulet::test::refuse({call}, error);
  } catch (const std::exception& e) {
    std::fprintf(stderr, "refuse: %s\n", e.what());
    return not_run;
  }
  ::execvp(argv[3], argv + 3);
  std::fprintf(stderr, "refuse: %s: %s\n", argv[3], std::strerror(errno));
  return not_run;
}
