// The handler for SIGSEGV that names overflows, beside what a program does with that signal.
#include <annulet/hub/hub.hpp>
#include <annulet/runtime/fiber.hpp>

#include "support/child.hpp"
#include "support/driven_clock.hpp"
#include "support/fault_handlers.hpp"
#include "support/overflowing.hpp"

#include <doctest/doctest.h>

#include <array>
#include <csetjmp>
#include <csignal>
#include <cstddef>
#include <cstdint>

#include <unistd.h>

using annulet::overflow_report;
using annulet::spawn;
using namespace annulet_test;

namespace {

sigjmp_buf recovered;
void jump_out(int) { siglongjmp(recovered, 1); }

}  // namespace

TEST_CASE("a fault that is no overflow ends in SIGSEGV, and nothing is said of it") {
  const child_end end = alone([] {
    const annulet::hub home;
    spawn([] { fault(); }).join();
    return true;
  });
  CAPTURE(end.said);
  CHECK(end.signal == SIGSEGV);
  CHECK(end.said.empty());
}

TEST_CASE("a handler that was there gets a fault that is no overflow as if the kernel had called it") {
  const child_end end = alone([] {
    handle_with(exit_with_42);
    const annulet::hub home;
    spawn([] { fault(); }).join();
    return true;
  });
  CAPTURE(end.said);
  CHECK(end.exit == 42);
  CHECK(end.said.empty());
}

TEST_CASE("a handler of the old kind is called too, and may jump out, again and again") {
  const child_end end = alone([] {
    struct sigaction own {};
    own.sa_handler = jump_out;
    ::sigaction(SIGSEGV, &own, nullptr);
    const annulet::hub home;
    return spawn([] {
             volatile int caught = 0;
             while (caught < 10) {
               if (sigsetjmp(recovered, 1) == 0) {
                 fault();
               }
               caught = caught + 1;
             }
             return caught == 10;
           })
        .get();
  });
  CAPTURE(end.said);
  CHECK(end.exit == 0);
  CHECK(end.said.empty());
}

TEST_CASE("of an overflow that a handler returns into again and again is told once") {
  const child_end end = alone([] {
    handle_with([](int, siginfo_t*, void*) {
      calls = calls + 1;
      if (calls == 3) {
        ::_exit(42);
      }
    });
    const annulet::hub home;
    spawn([] { run_over(way_down::recursion, 1); }).join();
    return true;
  });
  CAPTURE(end.said);
  CHECK(end.exit == 42);
  CHECK(count_of(end.said, "ran over the end") == 1);
}

TEST_CASE("a handler that asked to be called once, or to be interrupted, is taken at its word") {
  const child_end once = alone([] {
    handle_with([](int, siginfo_t*, void*) { [[maybe_unused]] auto n = ::write(STDERR_FILENO, "once\n", 5); },
                static_cast<int>(SA_RESETHAND));
    const annulet::hub home;
    fault();
    return true;
  });
  CHECK(once.signal == SIGSEGV);
  CHECK(count_of(once.said, "once\n") == 1);
  const child_end interrupted = alone([] {
    handle_with(
        [](int, siginfo_t*, void*) {
          calls = calls + 1;
          if (calls == 3) {
            ::_exit(42);
          }
          fault();
        },
        SA_NODEFER);
    const annulet::hub home;
    fault();
    return true;
  });
  CHECK(interrupted.exit == 42);
}

TEST_CASE("a SIGSEGV that somebody sends does what it did: it ends the process, or is ignored") {
  const child_end ends = alone([] {
    const annulet::hub home;
    ::raise(SIGSEGV);
    return true;
  });
  CHECK(ends.signal == SIGSEGV);
  const child_end ignored = alone([] {
    std::signal(SIGSEGV, SIG_IGN);
    const annulet::hub home;
    ::raise(SIGSEGV);
    ::raise(SIGSEGV);
    return true;
  });
  CHECK(ignored.exit == 0);
  const child_end faulted = alone([] {  // which the kernel does not let be ignored
    std::signal(SIGSEGV, SIG_IGN);
    const annulet::hub home;
    fault();
    return true;
  });
  CHECK(faulted.signal == SIGSEGV);
}

TEST_CASE("when the last hub ends, handler and signal stack are as they were before the first") {
  const child_end end = alone([] {
    handle_with(exit_with_42);
    bool right = true;
    for (int round = 0; round < 3; ++round) {
      {
        const annulet::hub home;
        right = right && of_segv().sa_sigaction != exit_with_42 && signal_stack().ss_flags == 0;
      }
      right = right && of_segv().sa_sigaction == exit_with_42 && signal_stack().ss_flags == SS_DISABLE;
    }
    return right;
  });
  CHECK(end.exit == 0);
}

TEST_CASE("a thread's own signal stack is used, and stays") {
  static std::array<std::byte, std::size_t{64} << 10> room;
  static bool was_there = false;
  const child_end end = alone([] {
    stack_t own{};
    own.ss_sp = room.data();
    own.ss_size = room.size();
    ::sigaltstack(&own, nullptr);
    { const annulet::hub home; }
    const bool stayed = signal_stack().ss_sp == room.data() && signal_stack().ss_flags == 0;
    handle_with([](int, siginfo_t*, void*) {
      const std::byte here{};
      was_there = &here >= room.data() && &here < room.data() + room.size();
      ::_exit(was_there ? 42 : 43);
    });
    const annulet::hub home;
    spawn([] { run_over(way_down::recursion, 1); }).join();
    return stayed;
  });
  CAPTURE(end.said);
  CHECK(end.exit == 42);
  CHECK(end.says("ran over the end"));
}

TEST_CASE("a signal stack that the program has put in the place of ours stays when the hub ends") {
  static std::array<std::byte, std::size_t{64} << 10> room;
  const child_end end = alone([] {
    {
      const annulet::hub home;
      stack_t own{};
      own.ss_sp = room.data();
      own.ss_size = room.size();
      ::sigaltstack(&own, nullptr);
    }
    return signal_stack().ss_sp == room.data() && signal_stack().ss_flags == 0;
  });
  CHECK(end.exit == 0);
}

TEST_CASE("a handler that stood in for ours for a time, and gave it back, does not keep hubs from theirs") {
  const child_end end = alone([] {
    handle_with(exit_with_42);
    struct sigaction ours {};
    {
      const annulet::hub home;
      ours = of_segv();
      handle_with([](int, siginfo_t*, void*) { ::_exit(43); });
    }
    ::sigaction(SIGSEGV, &ours, nullptr);
    { const annulet::hub home; }
    const bool put_back = of_segv().sa_sigaction == exit_with_42;
    const annulet::hub home;
    return put_back && of_segv().sa_sigaction == ours.sa_sigaction;
  });
  CAPTURE(end.said);
  CHECK(end.exit == 0);
}

TEST_CASE("fibers that are jumped out of, one after the other at the same place of a stack, are all named") {
  const child_end end = alone([] {
    struct sigaction own {};
    own.sa_handler = jump_out;
    ::sigaction(SIGSEGV, &own, nullptr);
    const annulet::hub home;
    for (int i = 0; i < 3; ++i) {
      spawn([] {
        if (sigsetjmp(recovered, 1) == 0) {
          run_over(way_down::recursion, 1);
        }
      }).join();
    }
    return true;
  });
  CAPTURE(end.said);
  CHECK(end.exit == 0);
  CHECK(count_of(end.said, "ran over the end") == 3);
}

// The kernel then says of a SIGSEGV neither where it is nor what was to be delivered, and the code that was
// interrupted could go on.
TEST_CASE("a signal for which a stack has no room left names the fiber and ends in SIGSEGV") {
  const child_end end = alone([] {
    struct sigaction own {};
    own.sa_handler = [](int) {};
    ::sigaction(SIGUSR1, &own, nullptr);
    ::raise(SIGUSR1);  // to find the function takes more of a stack than to call it
    const annulet::hub home;
    spawn({.name = "deep"}, [] { use_all_but(1024, [] { ::raise(SIGUSR1); }); }).join();
    return true;
  });
  CAPTURE(end.said);
  CHECK(end.signal == SIGSEGV);
  CHECK(end.says("\"deep\" (spawned at "));
  CHECK(end.says("ran over the end of its stack of 262144 bytes"));
}

TEST_CASE("a pointer that is none is no overflow, also where little is left of the stack") {
  const child_end end = alone([] {
    const annulet::hub home;
    spawn([] {
      use_all_but(1024, [] {
        *reinterpret_cast<volatile char*>(std::uintptr_t{1} << 62) =
            1;  // no address at all: not a page fault
      });
    }).join();
    return true;
  });
  CAPTURE(end.said);
  CHECK(end.signal == SIGSEGV);
  CHECK(end.said.empty());
}

TEST_CASE("a handler that the program installs later stands, whatever hubs begin and end") {
  static struct sigaction ours;
  const child_end end = alone([] {
    {
      const annulet::hub home;
      ours = of_segv();
      // It passes on to the one that it has replaced.
      handle_with(
          [](int number, siginfo_t* info, void* context) {
            calls = calls + 1;
            if (calls == 3) {
              ::_exit(42);  // round in a circle
            }
            ours.sa_sigaction(number, info, context);
          },
          SA_ONSTACK);
    }
    bool stands = of_segv().sa_sigaction != ours.sa_sigaction;
    const annulet::hub second;
    stands = stands && of_segv().sa_sigaction != ours.sa_sigaction;
    if (stands) {
      spawn([] { run_over(way_down::recursion, 1); }).join();
    }
    return stands;
  });
  CAPTURE(end.said);
  CHECK(end.signal == SIGSEGV);  // ours still knows that there was no handler before
  CHECK(count_of(end.said, "ran over the end") == 1);
}

TEST_CASE("a hub that is told not to has no handler and no signal stack, and an overflow is SIGSEGV") {
  for (const bool engine : {true, false}) {
    const child_end end = alone([&] {
      const auto run = [] {
        if (of_segv().sa_handler != SIG_DFL || signal_stack().ss_flags != SS_DISABLE) {
          return;
        }
        spawn([] { run_over(way_down::recursion, 1); }).join();
      };
      if (engine) {
        annulet::hub_options options;
        options.overflows = overflow_report::none;
        const annulet::hub home(options);
        run();
      } else {
        const driven world({.overflows = overflow_report::none});
        run();
      }
      return false;
    });
    CAPTURE(end.said);
    CHECK(end.signal == SIGSEGV);
    CHECK(end.said.empty());
  }
}
