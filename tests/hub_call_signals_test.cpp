// How signals find the parked calls of ported code in a process with one thread, and on each step of the
// ring's ladder: drop_in_signals_test has the calls one by one, and other threads.

#include "oracle/run.hpp"
#include "support/blocked_signals.hpp"
#include "support/counted_signal.hpp"
#include "support/files.hpp"
#include "support/forked_sender.hpp"

#include <annulet/selector/posix.h>
#include <annulet/hub/hub.hpp>
#include <annulet/runtime/fiber.hpp>
#include <annulet/selector/selector.hpp>

#include <doctest/doctest.h>

#include <atomic>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstdint>
#include <cstdlib>
#include <initializer_list>
#include <optional>
#include <random>
#include <vector>

#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/single_threaded.h>
#include <sys/wait.h>
#include <unistd.h>

using namespace std::chrono_literals;
using annulet::test::blocked_signals;
using annulet::test::counted_signal;
using annulet::test::descriptor;
using annulet::test::forked_sender;
using annulet::test::make_pipe;
using annulet::test::require_ok;
using annulet::test::send_byte;
using annulet::test::set_of;

namespace {

const sigset_t none = set_of({});

struct outcome {
  int result;
  int error;
};

outcome ppoll_for(std::chrono::nanoseconds time, const sigset_t* mask, int fd = -1) {
  const timespec limit{time.count() / 1'000'000'000, time.count() % 1'000'000'000};
  pollfd one{fd, POLLIN, 0};
  errno = 0;
  const int result = annulet_ppoll(&one, 1, &limit, mask);
  return {result, errno};
}

bool interrupted(outcome o) { return o.result == -1 && o.error == EINTR; }

const auto sends_usr1 = [](pid_t to) { ::kill(to, SIGUSR1); };

}  // namespace

TEST_CASE("a handled signal ends those that let it in, with equal and with differing masks") {
  const counted_signal usr1(SIGUSR1);
  const sigset_t not_1 = set_of({SIGUSR1});
  for (const bool thread_blocks : {false, true}) {
    for (const bool equal : {false, true}) {
      CAPTURE(thread_blocks);
      CAPTURE(equal);
      annulet::hub home;
      std::optional<blocked_signals> here;
      if (thread_blocks) {
        here.emplace(std::initializer_list<int>{SIGUSR1});
      }
      const int before = usr1.times();
      auto beside = annulet::spawn([&] { return ppoll_for(equal ? 5s : 200ms, equal ? &none : &not_1); });
      const forked_sender sender(20ms, sends_usr1);
      CHECK(interrupted(ppoll_for(5s, &none)));
      CHECK(usr1.times() == before + 1);
      CHECK(interrupted(beside.get()) == equal);
    }
  }
}

TEST_CASE("a process that was stopped and goes on has had no signal") {
  annulet::hub home;
  auto sleeper = annulet::spawn([] { return annulet_usleep(300'000); });
  const forked_sender sender(20ms, [](pid_t to) {
    ::kill(to, SIGSTOP);
    ::usleep(20'000);
    ::kill(to, SIGCONT);
  });
  CHECK(ppoll_for(300ms, &none).result == 0);
  CHECK(annulet_poll(nullptr, 0, 1) == 0);
  CHECK(sleeper.get() == 0);
}

TEST_CASE("one that another fiber has handled meanwhile ends none, however often the hub waits") {
  annulet::hub home;
  const counted_signal usr1(SIGUSR1);
  auto parked = annulet::spawn([] { return ppoll_for(50ms, nullptr); });
  annulet::this_fiber::sleep_for(2ms);
  ::raise(SIGUSR1);
  CHECK(usr1.times() == 1);
  for (int i = 0; i < 10; ++i) {
    annulet::this_fiber::sleep_for(1ms);
  }
  CHECK(parked.get().result == 0);
}

TEST_CASE("one that a call has taken as it came in ends the others then, and nobody later") {
  annulet::hub home;
  const counted_signal usr1(SIGUSR1);
  const blocked_signals here{SIGUSR1};
  const auto quiet = make_pipe();
  const auto closed = make_pipe();
  std::vector<outcome> all;
  auto parked = annulet::spawn([&] {
    for (int i = 0; i < 3; ++i) {
      all.push_back(ppoll_for(i == 0 ? 5s : 40ms, &none, quiet.reader.get()));
    }
  });
  const int reader = ::dup(closed.reader.get());
  auto disturbed = annulet::spawn([&] { (void)ppoll_for(5s, &none, reader); });
  CHECK(ppoll_for(5ms, &none).result == 0);
  ::raise(SIGUSR1);
  annulet_close(reader);  // hands over to the kernel, and takes in what has come
  CHECK(interrupted(ppoll_for(0ms, &none)));
  CHECK(ppoll_for(30ms, &none).result == 0);
  parked.join();
  disturbed.join();
  REQUIRE(all.size() == 3);
  CHECK(interrupted(all[0]));
  CHECK(all[1].result == 0);
  CHECK(all[2].result == 0);
  CHECK(usr1.times() == 1);
}

TEST_CASE("a call that has its event lets no signal in any more") {
  annulet::hub home;
  const counted_signal usr1(SIGUSR1);
  const blocked_signals here{SIGUSR1};
  const auto pair = make_pipe();
  auto other = annulet::spawn([&] {
    ::raise(SIGUSR1);
    send_byte(pair.writer.get());
  });
  CHECK(ppoll_for(5s, &none, pair.reader.get()).result == 1);
  CHECK(usr1.times() == 0);
  other.join();
  CHECK(interrupted(ppoll_for(5s, &none)));
  CHECK(usr1.times() == 1);
}

namespace {

char* page = nullptr;

void mend_page(int) { ::mprotect(page, 4096, PROT_READ | PROT_WRITE); }

void touch_page(int signal) {
  page[0] = 1;
  annulet::test::count_signal(signal);
}

}  // namespace

TEST_CASE(
    "one that was heard while a descriptor was let go ends those that let it in, though the thread is busy") {
  annulet::hub home;
  const counted_signal usr1(SIGUSR1);
  const blocked_signals here{SIGUSR1};
  const auto quiet = make_pipe();
  annulet::selector watching;
  watching.register_(quiet.reader.get(), annulet::io_event::read);
  auto parked = annulet::spawn([] { return ppoll_for(5s, &none); });
  CHECK(ppoll_for(5ms, nullptr).result == 0);
  CHECK(watching.select(0ms).empty());
  ::raise(SIGUSR1);
  watching.unregister(quiet.reader.get());  // takes in what has come, and is no look
  const auto limit = std::chrono::steady_clock::now() + 2s;
  while (!parked.done() && std::chrono::steady_clock::now() < limit) {
    CHECK(annulet_poll(nullptr, 0, 0) == 0);
  }
  CHECK(std::chrono::steady_clock::now() < limit);
  CHECK(interrupted(parked.get()));
}

TEST_CASE("a handler may fault, where the program handles that") {
  annulet::hub home;
  page = static_cast<char*>(::mmap(nullptr, 4096, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
  REQUIRE(page != MAP_FAILED);
  {
    const counted_signal fault(SIGSEGV, 0, &mend_page);
    const counted_signal usr1(SIGUSR1, 0, &touch_page);
    const blocked_signals here{SIGUSR1};
    const forked_sender sender(10ms, sends_usr1);
    CHECK(interrupted(ppoll_for(5s, &none)));
    CHECK(usr1.times() == 1);
  }
  ::munmap(page, 4096);
}

namespace {

std::atomic<int> child_blocks{-1};

// As a server does whose worker has ended.
void fork_in_handler(int) {
  const pid_t child = ::fork();
  if (child == 0) {
    sigset_t now;
    ::sigprocmask(SIG_BLOCK, nullptr, &now);
    ::_exit(sigismember(&now, SIGTERM) != 0 ? 1 : 0);
  }
  int status = -1;
  ::waitpid(child, &status, 0);
  child_blocks = status;
}

}  // namespace

TEST_CASE("a child that a handler forks has the mask of the program") {
  annulet::hub home;
  const counted_signal usr1(SIGUSR1, 0, &fork_in_handler);
  const blocked_signals here{SIGUSR1};
  const forked_sender sender(10ms, sends_usr1);
  CHECK(interrupted(ppoll_for(5s, &none)));
  CHECK(child_blocks == 0);
}

TEST_CASE("the hub's own signal ends nobody's call") {
  annulet::hub_options options;
  options.dump_signal = SIGUSR2;
  annulet::hub home(options);
  const forked_sender sender(10ms, [](pid_t to) { ::kill(to, SIGUSR2); });
  CHECK(ppoll_for(60ms, &none).result == 0);
  const blocked_signals here{SIGUSR2};
  ::raise(SIGUSR2);
  CHECK(ppoll_for(30ms, &none).result == 0);
}

TEST_CASE("a signal is heard where there is no descriptor to be had for it") {
  annulet::hub home;
  const counted_signal usr1(SIGUSR1);
  const blocked_signals here{SIGUSR1};
  rlimit before{};
  REQUIRE(::getrlimit(RLIMIT_NOFILE, &before) == 0);
  const rlimit few{1, before.rlim_max};  // as many as poll may be asked about
  const auto pair = make_pipe();
  for (int i = 0; i < 2; ++i) {
    const forked_sender sender(10ms, sends_usr1);
    REQUIRE(::setrlimit(RLIMIT_NOFILE, &few) == 0);
    const outcome o = ppoll_for(5s, &none);
    REQUIRE(::setrlimit(RLIMIT_NOFILE, &before) == 0);
    CHECK(interrupted(o));
  }
  CHECK(usr1.times() == 2);
}

TEST_CASE("signals at random moments to a process of one thread: none is missed, none is too early") {
  const auto rounds = static_cast<unsigned>(oracle::from_environment("ANNULET_SIGNALS", 1'000));
  annulet::hub home;
  const counted_signal usr1(SIGUSR1);
  const blocked_signals here{SIGUSR1};
  const sigset_t not_1 = set_of({SIGUSR1});
  auto* const asked = static_cast<std::atomic<unsigned>*>(
      ::mmap(nullptr, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0));
  REQUIRE(asked != MAP_FAILED);
  {
    const forked_sender sender(0us, [&](pid_t to) {
      std::mt19937 random(std::random_device{}());
      for (unsigned done = 0; done < rounds && ::getppid() == to;) {
        if (asked->load() > done) {
          for (auto spins = random() % 20'000; spins != 0; --spins) {
            __asm__ volatile("");
          }
          ::kill(to, SIGUSR1);
          ++done;
        }
      }
    });
    for (unsigned round = 0; round < rounds; ++round) {
      const bool equal = round % 2 == 0;
      auto beside = annulet::spawn([&] { return ppoll_for(equal ? 10s : 200us, equal ? &none : &not_1); });
      auto ticker = annulet::spawn([] { annulet::this_fiber::sleep_for(20us); });
      annulet::this_fiber::yield();  // they are parked
      *asked = round + 1;
      REQUIRE(interrupted(ppoll_for(10s, &none)));
      REQUIRE(interrupted(beside.get()) == equal);
      REQUIRE(usr1.times() == static_cast<int>(round + 1));
      ticker.join();
    }
  }
  CHECK(::__libc_single_threaded != 0);  // of all cases
  ::munmap(asked, 4096);
}
