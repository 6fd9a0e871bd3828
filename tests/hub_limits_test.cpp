// A hub where the kernel gives less than it asks for. Each case runs in a child process, which has its own
// filter of system calls and its own limits.
#include "support/child.hpp"
#include "support/files.hpp"
#include "support/probe_watch.hpp"
#include "support/refused_calls.hpp"

#include <annulet/hub/hub.hpp>
#include <annulet/runtime/fiber.hpp>

#include <doctest/doctest.h>

#include <cstdio>
#include <cstring>
#include <memory>
#include <optional>
#include <string>
#include <system_error>
#include <vector>

#include <sys/resource.h>

using namespace annulet;
using namespace annulet::test;
using annulet_test::in_child;
using namespace std::chrono_literals;

namespace {

hub_options on_the_ring() {
  hub_options options;
  options.engine = engine_choice::uring;
  return options;
}

// In the child: whether a hub is refused with this errno. Its message goes to stderr, and must name the call.
bool refused_with(int error, const std::string& call) {
  const std::size_t before = open_descriptors();
  try {
    hub hub;
  } catch (const std::system_error& e) {
    std::fprintf(stderr, "%s\n", e.what());
    return e.code() == std::error_code(error, std::generic_category()) &&
           std::string(e.what()).find(call) != std::string::npos && open_descriptors() == before;
  }
  std::fprintf(stderr, "the hub was made\n");
  return false;
}

// Whether events, timers and letting go work on this thread's hub.
bool hub_works() {
  auto pair = make_socket_pair();
  probe_watch watch(pair.first.get());
  watch.arm_now(POLLIN);
  auto writer = spawn([&] {
    this_fiber::sleep_for(1ms);
    send_byte(pair.second.get());
  });
  const bool told = watch.told(1);
  writer.join();
  watch.detach();
  pair.first.close();
  return told && try_read(pair.second.get()) != -EAGAIN;
}

}  // namespace

TEST_CASE("set-up flags that a kernel does not know are left out, and the report says which and why") {
  for (unsigned refused = 1; refused <= 3; ++refused) {
    const auto end = in_child([refused] {
      judge_calls({SCMP_SYS(io_uring_setup)}, [refused, asked = 0U](const seccomp_data&) mutable {
        return ++asked <= refused ? EINVAL : 0;
      });
      ::unsetenv("ANNULET_RING_MODE");
      hub hub(on_the_ring());
      const engine_info& report = hub.engine_report();
      std::string flags = "flags:";
      for (const std::string& flag : report.flags) {
        flags += " " + flag;
      }
      std::fprintf(stderr, "%s\n", flags.c_str());
      for (const std::string& reason : report.refused) {
        std::fprintf(stderr, "refused: %s\n", reason.c_str());
      }
      return report.refused.size() == refused && hub_works();
    });
    CAPTURE(end.said);
    CHECK(end.exit == 0);
    constexpr std::array served = {"", "flags: COOP_TASKRUN TASKRUN_FLAG SUBMIT_ALL\n", "flags: SUBMIT_ALL\n",
                                   "flags:\n"};
    CHECK(end.says(served[refused]));
    CHECK(end.says("SINGLE_ISSUER|DEFER_TASKRUN|TASKRUN_FLAG|SUBMIT_ALL: EINVAL (Invalid argument)"));
    CHECK(end.says(" COOP_TASKRUN|TASKRUN_FLAG|SUBMIT_ALL: EINVAL (Invalid argument)") == (refused > 1));
    CHECK(end.says(" SUBMIT_ALL: EINVAL (Invalid argument)") == (refused > 2));
  }
}

TEST_CASE(
    "where descriptors run out a hub of either engine says so, leaves none behind, and comes afterwards") {
  for (const engine_choice engine : {engine_choice::automatic, engine_choice::uring, engine_choice::epoll}) {
    const auto end = in_child([engine] {
      hub_options options;
      options.engine = engine;
      const std::size_t highest = [] {
        const descriptor next(::dup(STDERR_FILENO));
        return static_cast<std::size_t>(next.get());
      }();
      rlimit all{};
      ::getrlimit(RLIMIT_NOFILE, &all);
      unsigned refused = 0;
      for (unsigned allowed = 0; allowed < 8; ++allowed) {
        const std::size_t before = open_descriptors();
        const rlimit few{highest + allowed, all.rlim_max};
        ::setrlimit(RLIMIT_NOFILE, &few);
        int error = 0;
        std::string what;
        try {
          hub hub(options);
        } catch (const std::system_error& e) {
          error = e.code().value();
          what = e.what();
        }
        ::setrlimit(RLIMIT_NOFILE, &all);
        if (open_descriptors() != before) {
          std::fprintf(stderr, "descriptors were left behind\n");
          return false;
        }
        if (error == 0) {
          break;
        }
        ++refused;
        std::fprintf(stderr, "%s\n", what.c_str());
        if (error != EMFILE || what.find("Too many open files") == std::string::npos) {
          return false;
        }
        hub hub(options);
        if (!hub_works()) {
          return false;
        }
      }
      return refused >= 2 && refused < 8;
    });
    CAPTURE(static_cast<int>(engine));
    CAPTURE(end.said);
    CHECK(end.exit == 0);
    CHECK(end.says("annulet: hub: "));
    CHECK(end.says("raise RLIMIT_NOFILE"));
  }
}

TEST_CASE("where no memory can be mapped the hub says so, and leaves nothing behind") {
  const auto end = in_child([] {
    refuse({SCMP_SYS(mmap)}, ENOMEM);
    return refused_with(ENOMEM, "annulet");
  });
  CAPTURE(end.said);
  CHECK(end.exit == 0);
  CHECK(end.says("Cannot allocate memory"));
}
