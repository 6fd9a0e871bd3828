// A hub where io_uring is refused, as containers, administrators and old kernels do: on epoll by default,
// with the reason on record; an error where io_uring was named. And a ring that is lost while it serves. Each
// case runs in a child process, for its filter of system calls stays.
#include "support/child.hpp"
#include "support/files.hpp"
#include "support/refused_calls.hpp"
#include "support/whole_hub.hpp"

#include <annulet/hub/hub.hpp>
#include <annulet/runtime/fiber.hpp>
#include <annulet/selector/selector.hpp>

#include <doctest/doctest.h>

#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <string>
#include <system_error>
#include <vector>

#include <linux/io_uring.h>
#include <sys/resource.h>
#include <unistd.h>

using namespace annulet;
using namespace annulet::test;
using annulet_test::in_child;
using namespace std::chrono_literals;

namespace {

struct ring_call {
  int number;
  const char* name;
};

constexpr std::array ring_calls = {ring_call{SCMP_SYS(io_uring_setup), "io_uring_setup"},
                                   ring_call{SCMP_SYS(io_uring_register), "io_uring_register"},
                                   ring_call{SCMP_SYS(io_uring_enter), "io_uring_enter"}};

// A refused call as a report tells it, and the beginning of what would allow it.
std::string told(const char* call, int error) {
  const char* const advice = error == ENOSYS ? "this kernel, or the container's seccomp profile, knows no"
                             : error == ENOMEM
                                 ? "no memory for the ring: raise"
                                 : "io_uring is forbidden here: allow io_uring_setup, io_uring_enter and";
  return std::string(call) + ": " + ::strerrorname_np(error) + " (" + std::strerror(error) + "): " + advice;
}

// In the child: the hub that comes by default. Its report goes to stderr, and it must be on epoll and work.
bool falls_back() {
  ::unsetenv("ANNULET_ENGINE");
  const std::size_t before = open_descriptors();
  {
    hub home;
    const engine_info& report = home.engine_report();
    for (const std::string& reason : report.refused) {
      std::fprintf(stderr, "refused: %s\n", reason.c_str());
    }
    if (report.name != "epoll" || !report.flags.empty() || report.features.empty() ||
        report.refused.empty() || !everything_works(home)) {
      std::fprintf(stderr, "it is on %s\n", report.name.c_str());
      return false;
    }
  }
  return open_descriptors() == before;
}

// In the child: whether a hub on this engine is refused with this errno. The message goes to stderr.
bool refused_with(engine_choice engine, int error) {
  const std::size_t before = open_descriptors();
  try {
    hub_options options;
    options.engine = engine;
    hub home(options);
  } catch (const std::system_error& e) {
    std::fprintf(stderr, "%s\n", e.what());
    return e.code() == std::error_code(error, std::generic_category()) && open_descriptors() == before;
  }
  std::fprintf(stderr, "the hub was made\n");
  return false;
}

}  // namespace

TEST_CASE(
    "where a filter refuses one call of io_uring the hub is on epoll, and tells call, errno and advice") {
  if (!has_io_uring()) {
    return;
  }
  for (const ring_call& call : ring_calls) {
    for (const int error : {EPERM, ENOSYS, EACCES}) {
      const auto end = in_child([&call, error] {
        refuse({call.number}, error);
        return falls_back();
      });
      CAPTURE(end.said);
      CHECK(end.exit == 0);
      CHECK(end.says("refused: " + told(call.name, error)));
    }
  }
}

TEST_CASE("where io_uring is named and refused the hub is an error, which tells call, errno and advice") {
  if (!has_io_uring()) {
    return;
  }
  for (const ring_call& call : ring_calls) {
    for (const int error : {EPERM, ENOSYS}) {
      const auto end = in_child([&call, error] {
        refuse({call.number}, error);
        ::unsetenv("ANNULET_ENGINE");
        bool good = refused_with(engine_choice::uring, error);
        ::setenv("ANNULET_ENGINE", "uring", 1);
        good = good && refused_with(engine_choice::automatic, error);
        ::setenv("ANNULET_ENGINE", "epoll", 1);
        hub home;
        return good && home.engine_report().name == "epoll" && home.engine_report().refused.empty();
      });
      CAPTURE(end.said);
      CHECK(end.exit == 0);
      CHECK(end.says(std::string("annulet: hub: ") + call.name + ": " + ::strerrorname_np(error) + ": "));
      CHECK(end.says(std::strerror(error)));
      CHECK(end.says(error == EPERM ? "kernel.io_uring_disabled" : "Linux 5.13"));
    }
  }
}

TEST_CASE("where a filter refuses the newer wait of epoll the hub has the older one, whatever it says") {
  for (const int error : {EPERM, ENOSYS, EACCES, EINVAL}) {
    CAPTURE(error);
    const auto end = in_child([error] {
      refuse({SCMP_SYS(epoll_pwait2)}, error);
      hub home({.engine = engine_choice::epoll});
      return home.engine_report().features.front() == "epoll_wait, in milliseconds" && everything_works(home);
    });
    CAPTURE(end.said);
    CHECK(end.exit == 0);
  }
}

TEST_CASE("where there is no memory for a ring the hub is on epoll") {
  if (!has_io_uring()) {
    return;
  }
  const auto end = in_child([] {
    refuse({SCMP_SYS(io_uring_setup)}, ENOMEM);
    return falls_back();
  });
  CAPTURE(end.said);
  CHECK(end.exit == 0);
  CHECK(end.says("refused: " + told("io_uring_setup", ENOMEM)));
  CHECK(end.says("RLIMIT_MEMLOCK"));
}

TEST_CASE("where a kernel knows none of the set-ups the hub is on epoll, and tells each that was tried") {
  if (!has_io_uring()) {
    return;
  }
  const auto end = in_child([] {
    refuse({SCMP_SYS(io_uring_setup)}, EINVAL);
    ::unsetenv("ANNULET_RING_MODE");
    return falls_back();
  });
  CAPTURE(end.said);
  CHECK(end.exit == 0);
  CHECK(end.says("with SINGLE_ISSUER|DEFER_TASKRUN|TASKRUN_FLAG|SUBMIT_ALL: EINVAL (Invalid argument)"));
  CHECK(end.says("with COOP_TASKRUN|TASKRUN_FLAG|SUBMIT_ALL: EINVAL"));
  CHECK(end.says("with SUBMIT_ALL: EINVAL"));
  CHECK(end.says("with no flags: EINVAL"));
  CHECK(end.says("none of the set-ups"));
}

TEST_CASE("where a filter pretends that the enter was made, or has it tried for ever, the hub is on epoll") {
  if (!has_io_uring()) {
    return;
  }
  for (const int error : {0, EAGAIN, EINTR, EBUSY}) {
    const auto end = in_child(
        [error] {
          refuse({SCMP_SYS(io_uring_enter)}, error);
          return falls_back();
        },
        15);
    CAPTURE(end.said);
    CHECK(end.exit == 0);
    CHECK(end.says(std::string("refused: io_uring_enter: ") + ::strerrorname_np(error == 0 ? EIO : error)));
  }
}

TEST_CASE("a kernel that cannot register the ring, or has no room for it, serves it all the same") {
  if (!has_io_uring()) {
    return;
  }
  for (const int error : {EINVAL, EBUSY, ENOMEM}) {
    const auto end = in_child([error] {
      refuse_where(SCMP_SYS(io_uring_register), 1, IORING_REGISTER_RING_FDS, error);
      ::unsetenv("ANNULET_ENGINE");
      hub home;
      const engine_info& report = home.engine_report();
      return report.name == "io_uring" && report.refused.size() == 1 &&
             report.refused[0].find(::strerrorname_np(error)) != std::string::npos && everything_works(home);
    });
    CHECK_MESSAGE(end.exit == 0, end.said);
  }
}

TEST_CASE("a kernel that cannot hold a ring to what it is asked for has hubs on epoll") {
  if (!has_io_uring() || std::getenv("ANNULET_ENGINE") != nullptr) {
    return;
  }
  for (const unsigned operation : {IORING_REGISTER_RESTRICTIONS, IORING_REGISTER_ENABLE_RINGS}) {
    CAPTURE(operation);
    const auto end = in_child(
        [operation] {
          refuse_where(SCMP_SYS(io_uring_register), 1, operation, EINVAL);
          return falls_back();
        },
        15);
    CAPTURE(end.said);
    CHECK(end.exit == 0);
    CHECK(end.says("refused: io_uring_register: EINVAL"));
  }
}

TEST_CASE("that no descriptor is to be had is an error and no reason for epoll, which needs as many") {
  if (!has_io_uring()) {
    return;
  }
  for (const int error : {EMFILE, ENFILE}) {
    const auto end = in_child([error] {
      refuse({SCMP_SYS(io_uring_setup)}, error);
      ::unsetenv("ANNULET_ENGINE");
      return refused_with(engine_choice::automatic, error);
    });
    CAPTURE(end.said);
    CHECK(end.exit == 0);
    CHECK(end.says("io_uring_setup"));
    CHECK(end.says(error == EMFILE ? "raise RLIMIT_NOFILE" : "raise sysctl fs.file-max"));
  }
}

TEST_CASE("where both engines are refused the error tells of both") {
  if (!has_io_uring()) {
    return;
  }
  const auto end = in_child([] {
    refuse({SCMP_SYS(io_uring_setup)}, EPERM);
    refuse({SCMP_SYS(epoll_create1)}, EMFILE);
    ::unsetenv("ANNULET_ENGINE");
    return refused_with(engine_choice::automatic, EMFILE);
  });
  CAPTURE(end.said);
  CHECK(end.exit == 0);
  CHECK(end.says("epoll_create1: this process may open no more descriptors"));
  CHECK(end.says(", and io_uring is refused (" + told("io_uring_setup", EPERM)));
  CHECK(end.says("Too many open files"));
}

TEST_CASE("a process that may lock no memory has a hub that works, or one on epoll that tells why") {
  if (!has_io_uring()) {
    return;
  }
  const auto end = in_child([] {
    const rlimit none{0, 0};
    require_ok(::setrlimit(RLIMIT_MEMLOCK, &none), "setrlimit");
    if (::geteuid() == 0) {
      require_ok(::setresuid(65534, 65534, 65534), "setresuid");  // root has no such limit
    }
    ::unsetenv("ANNULET_ENGINE");
    hub home;
    const engine_info& report = home.engine_report();
    const bool on_ring = report.name == "io_uring";
    const bool told = !report.refused.empty() && report.refused.back().find("ENOMEM") != std::string::npos;
    return (on_ring || told) && everything_works(home);
  });
  CHECK_MESSAGE(end.exit == 0, end.said);
}

// --- a ring that is lost while it serves

namespace {

// What goes on when the ring is lost. Each would wait long, or for ever, if the loss went unnoticed.
void sleeps() { this_fiber::sleep_for(60s); }

void selects() {
  const socket_pair pair = make_socket_pair();
  selector sel;
  sel.register_(pair.first.get(), io_event::read);
  (void)sel.select(60s);
}

void lets_go() {
  const socket_pair pair = make_socket_pair();
  selector sel;
  sel.register_(pair.first.get(), io_event::read);
  sel.close();
  this_fiber::sleep_for(60s);
}

void reads() {
  const pipe_pair pipe = make_pipe(O_CLOEXEC);
  char byte = 0;
  (void)annulet::read(pipe.reader.get(), mutable_buffer(&byte, 1));
}

void ends() {}  // the hub's own end

void check_words_on_refusal(void (*doing)(), int error) {
  const auto end = in_child(
      [=] {
        hub_options options;
        options.engine = engine_choice::uring;
        hub home(options);
        if (!everything_works(home)) {
          return false;
        }
        refuse({SCMP_SYS(io_uring_enter)}, error);
        doing();
        return true;
      },
      15);
  CAPTURE(end.said);
  CHECK(end.signal == SIGABRT);
  CHECK(end.says(std::string("annulet: hub: io_uring_enter: ") + ::strerrorname_np(error) + " (" +
                 std::strerror(error) + "): the ring"));
  CHECK(end.says("ANNULET_ENGINE=epoll"));
}

}  // namespace

TEST_CASE("a ring that is refused while it serves ends the process with words, and no call hangs") {
  if (!has_io_uring()) {
    return;
  }
  for (void (*const doing)() : {sleeps, selects, lets_go, reads, ends}) {
    for (const int error : {EPERM, ENOSYS, ENOMEM}) {
      check_words_on_refusal(doing, error);
    }
  }
}

TEST_CASE("a ring that is refused again and again, as if for a moment, ends the process as well") {
  if (!has_io_uring()) {
    return;
  }
  for (void (*const doing)() : {sleeps, lets_go}) {
    check_words_on_refusal(doing, EAGAIN);
  }
}

TEST_CASE("a ring whose descriptor somebody closed ends the process with words") {
  if (!has_io_uring()) {
    return;
  }
  const auto end = in_child(
      [] {
        // A registered ring needs no descriptor.
        refuse_where(SCMP_SYS(io_uring_register), 1, IORING_REGISTER_RING_FDS, EINVAL);
        hub_options options;
        options.engine = engine_choice::uring;
        hub home(options);
        for (const auto& entry : std::filesystem::directory_iterator("/proc/self/fd")) {
          std::error_code none;
          if (std::filesystem::read_symlink(entry.path(), none) == "anon_inode:[io_uring]") {
            ::close(std::stoi(entry.path().filename()));
          }
        }
        sleeps();
        return true;
      },
      15);
  CAPTURE(end.said);
  CHECK(end.signal == SIGABRT);
  CHECK(end.says("annulet: hub: io_uring_enter: EBADF (Bad file descriptor): the ring"));
  CHECK(end.says("descriptor was closed, and not by the hub"));
}
