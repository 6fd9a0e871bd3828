// What becomes of a job in the background that reads its terminal, or writes to it: by plain calls and by
// drop-ins, each at a terminal of its own.

#include "support/counted_signal.hpp"
#include "support/plain_and_parked_io.hpp"
#include "support/processes.hpp"
#include "support/texts.hpp"

#include <doctest/doctest.h>

#include <atomic>
#include <chrono>
#include <csignal>
#include <cstdint>
#include <string>
#include <thread>

#include <pty.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <termios.h>

using namespace std::chrono_literals;
using annulet::test::descriptor;
using annulet::test::forked;
using annulet::test::handled;
using annulet::test::io_calls_of;
using annulet::test::require_ok;

namespace {

enum class signal_is : std::uint8_t { left_alone, blocked, ignored, handled, restarting };

struct job {
  bool reads = true;
  bool stops_writers = true;  // stty tostop
  bool orphan = false;        // nobody at its terminal could let it go on
  bool of_nothing = false;    // no bytes
  signal_is signal = signal_is::left_alone;

  [[nodiscard]] int number() const { return reads ? SIGTTIN : SIGTTOU; }
};

// In memory that the processes share.
struct report {
  std::atomic<int> stopped_by{0};
  std::atomic<int> times_handled{0};
  std::atomic<int> result{77};
  std::atomic<int> error{0};
  std::atomic<bool> over{false};
};

void come_to_foreground() {
  sigset_t all;
  sigset_t before;
  sigfillset(&all);
  ::pthread_sigmask(SIG_SETMASK, &all, &before);
  ::tcsetpgrp(0, ::getpgrp());
  ::pthread_sigmask(SIG_SETMASK, &before, nullptr);
}

void handle(int signal) {
  annulet::test::count_signal(signal);
  if (handled[static_cast<std::size_t>(signal)] == 2) {
    come_to_foreground();
  }
}

void prepare(int signal, signal_is how) {
  sigset_t only;
  sigemptyset(&only);
  sigaddset(&only, signal);
  ::pthread_sigmask(how == signal_is::blocked ? SIG_BLOCK : SIG_UNBLOCK, &only, nullptr);
  struct sigaction action {};
  action.sa_handler = how == signal_is::ignored ? SIG_IGN : SIG_DFL;
  if (how == signal_is::handled || how == signal_is::restarting) {
    action.sa_handler = &handle;
    action.sa_flags = how == signal_is::restarting ? SA_RESTART : 0;
  }
  ::sigaction(signal, &action, nullptr);
}

// The job's process. Descriptor 0 is the terminal.
void work(const job& which, const io_calls_of& c, report& told) {
  prepare(which.number(), which.signal);
  char byte = 'x';
  const std::size_t size = which.of_nothing ? 0 : 1;
  errno = 0;
  told.result = static_cast<int>(which.reads ? c.read(0, &byte, size) : c.write(0, &byte, size));
  told.error = errno;
  told.times_handled = handled[static_cast<std::size_t>(which.number())].load();
  told.over = true;
}

void work_by(bool drop_ins, const job& which, report& told) {
  if (!drop_ins) {
    work(which, annulet::test::plain_io, told);
    return;
  }
  const annulet::hub home;
  work(which, annulet::test::drop_in_io, told);
}

// The shell in this play, which brings a job that is stopped to the foreground.
void lead(bool drop_ins, const job& which, report& told) {
  require_ok(::setsid(), "setsid");
  require_ok(::ioctl(0, TIOCSCTTY, 0), "TIOCSCTTY");
  const pid_t child = forked([&] {
    ::setpgid(0, 0);
    const pid_t first = ::getpid();
    if (which.orphan && ::fork() != 0) {
      ::_exit(0);
    }
    while (which.orphan && ::getppid() == first) {
      std::this_thread::sleep_for(1ms);
    }
    ::alarm(20);
    work_by(drop_ins, which, told);
    ::_exit(0);
  });
  int status = 0;
  require_ok(::waitpid(child, &status, WUNTRACED), "waitpid");
  if (WIFSTOPPED(status)) {
    told.stopped_by = WSTOPSIG(status);
    require_ok(::tcsetpgrp(0, child), "tcsetpgrp");
    ::kill(child, SIGCONT);
    require_ok(::waitpid(child, &status, 0), "waitpid");
  }
  for (int i = 0; i < 20'000 && which.orphan && !told.over; ++i) {
    std::this_thread::sleep_for(1ms);
  }
}

std::string seen(bool drop_ins, const job& which) {
  void* const shared =
      ::mmap(nullptr, sizeof(report), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  auto& told = *new (shared) report;
  int master = -1;
  int slave = -1;
  require_ok(::openpty(&master, &slave, nullptr, nullptr, nullptr), "openpty");
  const descriptor outside(master);
  const descriptor inside(slave);
  termios settings{};
  require_ok(::tcgetattr(slave, &settings), "tcgetattr");
  settings.c_lflag |= which.stops_writers ? TOSTOP : 0U;
  require_ok(::tcsetattr(slave, TCSANOW, &settings), "tcsetattr");
  annulet::test::write_text(master, "abc\n");
  const pid_t leader = forked([&] {
    ::prctl(PR_SET_PDEATHSIG, SIGKILL);
    ::alarm(20);
    ::dup2(slave, 0);
    lead(drop_ins, which, told);
    ::_exit(0);
  });
  int status = -1;
  require_ok(::waitpid(leader, &status, 0), "waitpid");
  const std::string all = "leader " + std::to_string(status) + ", stopped by " +
                          std::to_string(told.stopped_by) + ", returned " + std::to_string(told.result) +
                          ", errno " + std::to_string(told.error) + ", handled " +
                          std::to_string(told.times_handled);
  ::munmap(shared, sizeof(report));
  return all;
}

void same_by_both(const job& which) {
  const std::string plain = seen(false, which);
  CHECK(seen(true, which) == plain);
}

constexpr std::array all_of = {signal_is::left_alone, signal_is::blocked, signal_is::ignored,
                               signal_is::handled, signal_is::restarting};

}  // namespace

TEST_CASE("a job of the background that reads its terminal is stopped, and reads on in the foreground") {
  CHECK(seen(true, {}) == "leader 0, stopped by 21, returned 1, errno 0, handled 0");
  same_by_both({.of_nothing = true});
}

TEST_CASE("a job of the background that writes to its terminal is stopped where that is wanted") {
  for (const bool wanted : {true, false}) {
    CAPTURE(wanted);
    same_by_both({.reads = false, .stops_writers = wanted});
  }
}

TEST_CASE("a job of the background blocks the terminal's signal, ignores it, or handles it") {
  for (const bool reads : {true, false}) {
    for (const signal_is how : all_of) {
      CAPTURE(reads);
      CAPTURE(static_cast<int>(how));
      same_by_both({.reads = reads, .signal = how});
    }
  }
}

TEST_CASE("a job whose shell is gone is told so, and not stopped for good") {
  for (const bool reads : {true, false}) {
    for (const signal_is how : all_of) {
      CAPTURE(reads);
      CAPTURE(static_cast<int>(how));
      same_by_both({.reads = reads, .orphan = true, .signal = how});
    }
  }
}
