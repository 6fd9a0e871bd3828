// refuse CALL[.ARGUMENT=VALUE] ERROR PROGRAM [ARGUMENT...]
//
// Runs a program whose system call CALL is refused with ERROR (EPERM, ENOSYS, ...), as containers and
// administrators do it: by a seccomp filter, which its threads and children inherit. Or only where its
// argument (0 to 5) has a value: an older kernel does not know MADV_GUARD_INSTALL.
//
//   build/tests/refuse io_uring_setup EPERM build/tests/selector_test
//   build/tests/refuse madvise.2=102 EINVAL build/tests/fiber_test
#include "support/refused_calls.hpp"

#include <cerrno>
#include <cinttypes>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <exception>
#include <optional>
#include <string>

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

struct refused_call {
  int number = __NR_SCMP_ERROR;
  std::optional<unsigned> argument;
  std::uint64_t value = 0;
};

refused_call call_named(const std::string& text) {
  const std::size_t name_end = text.find('.');
  refused_call call;
  call.number = ::seccomp_syscall_resolve_name(text.substr(0, name_end).c_str());
  if (name_end != std::string::npos) {
    unsigned argument = 0;
    int read = -1;
    if (std::sscanf(text.c_str() + name_end, ".%1u=%" SCNu64 "%n", &argument, &call.value, &read) != 2 ||
        argument > 5 || name_end + static_cast<std::size_t>(read) != text.size()) {
      return {};
    }
    call.argument = argument;
  }
  return call;
}

}  // namespace

int main(int argc, char** argv) {
  constexpr int not_run = 125;  // as of env and timeout, which run programs too
  const refused_call call = argc < 4 ? refused_call{} : call_named(argv[1]);
  const int error = argc < 4 ? 0 : errno_named(argv[2]);
  if (call.number == __NR_SCMP_ERROR || error == 0) {
    std::fprintf(stderr,
                 "usage: refuse CALL[.ARGUMENT=VALUE] ERROR PROGRAM [ARGUMENT...]\n"
                 "with a system call and an errno by their names, as in: refuse io_uring_setup EPERM ...\n");
    return not_run;
  }
  try {
    if (call.argument) {
      annulet::test::refuse_where(call.number, *call.argument, call.value, error);
    } else {
      annulet::test::refuse({call.number}, error);
    }
  } catch (const std::exception& e) {
    std::fprintf(stderr, "refuse: %s\n", e.what());
    return not_run;
  }
  ::execvp(argv[3], argv + 3);
  std::fprintf(stderr, "refuse: %s: %s\n", argv[3], std::strerror(errno));
  return not_run;
}
