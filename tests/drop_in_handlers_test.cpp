// Signal handlers that make the calls of posix.h, as handlers of ported code do: one that need not wait is
// made, and one that has to stops the thread. Whoever was interrupted, in the middle of malloc maybe, must
// not find that others ran meanwhile.

#include "support/blocked_signals.hpp"
#include "support/counted_signal.hpp"
#include "support/files.hpp"
#include "support/while_waiting.hpp"

#include <annulet/selector/posix.h>
#include <doctest/doctest.h>
#include <annulet/hub/hub.hpp>
#include <annulet/runtime/fiber.hpp>
#include <annulet/runtime/this_fiber.hpp>

#include <array>
#include <atomic>
#include <chrono>
#include <csignal>
#include <memory>
#include <thread>
#include <utility>
#include <vector>

#include <fcntl.h>
#include <netinet/in.h>
#include <sys/time.h>
#include <unistd.h>

using namespace std::chrono_literals;
using annulet::test::counted_signal;
using annulet::test::require_ok;

namespace {

// What a handler does, and what it found.
struct act {
  bool (*call)() = nullptr;
  std::atomic<int> made{0};
  std::atomic<int> wrong{0};
  std::atomic<int> switched{0};
};
act now_done;
std::atomic<long> turns{0};

void begin_with(bool (*call)()) {
  now_done.call = call;
  now_done.made = 0;
  now_done.wrong = 0;
  now_done.switched = 0;
}

// The next alarm: so long after a handler has ended, for one that waits may take longer than that.
std::atomic<long> period{0};

void set_alarm() {
  const itimerval once{{0, 0}, {0, period}};
  ::setitimer(ITIMER_REAL, &once, nullptr);
}

void make_call(int signal) {
  const int kept = errno;
  const long before = turns;
  now_done.wrong += now_done.call() ? 0 : 1;
  now_done.switched += turns != before ? 1 : 0;
  ++now_done.made;
  annulet::test::count_signal(signal);
  if (period != 0) {
    set_alarm();
  }
  errno = kept;
}

std::array<int, 2> ends{-1, -1};  // of a pipe
int epoll = -1;
int silent = -1;  // a socket
int listener = -1;

bool writes_a_byte() { return annulet_write(ends[1], "x", 1) == 1; }
bool polls_for_a_while() {
  pollfd none{ends[0], POLLIN, 0};
  return annulet_poll(&none, 1, 1) == 0;
}
bool selects_for_a_while() {
  fd_set reads;
  FD_ZERO(&reads);
  FD_SET(ends[0], &reads);
  timeval limit{0, 1000};
  return annulet_select(ends[0] + 1, &reads, nullptr, nullptr, &limit) == 0 && !FD_ISSET(ends[0], &reads) &&
         limit.tv_sec == 0 && limit.tv_usec == 0;
}
bool waits_for_epoll_for_a_while() {
  epoll_event event{};
  return annulet_epoll_wait(epoll, &event, 1, 1) == 0;
}
bool sleeps() {
  const timespec some{0, 1'000'000};
  return annulet_nanosleep(&some, nullptr) == 0;
}
bool receives_with_a_limit() {
  char byte = 0;
  return annulet_recv(silent, &byte, 1, 0) == -1 && errno == EAGAIN;
}
bool accepts_with_a_limit() { return annulet_accept(listener, nullptr, nullptr) == -1 && errno == EAGAIN; }

// With bytes that its peer does not take, so that a thread would wait for a while.
int lingering_socket(const annulet::test::tcp_listener& to) {
  auto both = annulet::test::connect_to(to);
  std::array<char, 65536> much{};
  while (::send(both.first.get(), much.data(), much.size(), MSG_DONTWAIT) > 0) {
  }
  const linger for_a_second{1, 1};
  require_ok(::setsockopt(both.first.get(), SOL_SOCKET, SO_LINGER, &for_a_second, sizeof(for_a_second)),
             "SO_LINGER");
  static annulet::test::descriptor its_peer;  // stays open until the next comes
  its_peer = std::move(both.second);
  return both.first.release();
}
bool closes_what_lingers() { return annulet_close(std::exchange(silent, -1)) == 0; }

// Fibers that always run, with the heap between them, until `many` handlers have.
void run_busy(const counted_signal& signal, int many) {
  std::vector<annulet::fiber<void>> busy;
  for (int i = 0; i < 4; ++i) {
    busy.push_back(annulet::spawn([&] {
      std::vector<std::unique_ptr<char[]>> held(16);
      while (signal.times() < many) {
        for (auto& one : held) {
          one = std::make_unique<char[]>(64 + static_cast<std::size_t>(turns % 512));
          ++turns;
          (void)annulet_poll(nullptr, 0, 0);  // breathes now and then
        }
        annulet::this_fiber::yield();
      }
    }));
  }
  for (auto& one : busy) {
    one.get();
  }
}

struct timer {
  explicit timer(std::chrono::microseconds between) {
    period = between.count();
    set_alarm();
  }
  ~timer() {
    period = 0;
    set_alarm();
  }
};

struct files {
  files() {
    require_ok(::pipe2(ends.data(), O_CLOEXEC), "pipe");
    epoll = require_ok(::epoll_create1(EPOLL_CLOEXEC), "epoll");
  }
  ~files() {
    for (int* const fd : {&ends[0], &ends[1], &epoll, &silent, &listener}) {
      if (*fd >= 0) {
        ::close(*fd);
      }
      *fd = -1;
    }
  }
};

int limited_socket(int type) {
  const int fd = require_ok(::socket(AF_INET, type | SOCK_CLOEXEC, 0), "socket");
  const timeval limit{0, 2000};
  require_ok(::setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit)), "SO_RCVTIMEO");
  return fd;
}

void run_beside_busy_fibers(bool (*call)(), int many) {
  begin_with(call);
  const counted_signal alarm(SIGALRM, SA_RESTART, &make_call);
  {
    const timer ticks(5ms);
    run_busy(alarm, many);
  }
  CHECK(now_done.made >= many);
  CHECK(now_done.wrong == 0);
  CHECK(now_done.switched == 0);
}

}  // namespace

TEST_CASE("a handler that interrupts a fiber writes, and waits, and no other fiber runs meanwhile") {
  const annulet::hub hub;
  const files open;
  listener = limited_socket(SOCK_STREAM);
  require_ok(::listen(listener, 1), "listen");
  silent = limited_socket(SOCK_DGRAM);
  constexpr int many = 40;
  for (bool (*const call)() : {&polls_for_a_while, &selects_for_a_while, &waits_for_epoll_for_a_while,
                               &sleeps, &receives_with_a_limit, &accepts_with_a_limit, &writes_a_byte}) {
    run_beside_busy_fibers(call, many);
  }
}

TEST_CASE("a handler closes a socket that lingers, and no other fiber runs meanwhile") {
  const annulet::hub hub;
  const files open;
  const auto to = annulet::test::make_tcp_listener();
  silent = lingering_socket(to);
  begin_with(&closes_what_lingers);
  const counted_signal usr1(SIGUSR1, 0, &make_call);
  bool over = false;
  auto busy = annulet::spawn([&over] {
    while (!over) {
      ++turns;
      annulet::this_fiber::yield();
    }
  });
  annulet::this_fiber::yield();
  ::raise(SIGUSR1);
  over = true;
  busy.get();
  CHECK(now_done.made == 1);
  CHECK(now_done.wrong == 0);
  CHECK(now_done.switched == 0);
}

TEST_CASE("a handler's writes are all there, though fibers of the thread breathe and the heap is in use") {
  const annulet::hub hub;
  const files open;
  begin_with(&writes_a_byte);
  const counted_signal alarm(SIGALRM, SA_RESTART, &make_call);
  constexpr int many = 2000;
  {
    const timer ticks(200us);
    run_busy(alarm, many);
  }
  CHECK(now_done.wrong == 0);
  CHECK(now_done.switched == 0);
  std::vector<char> bytes(static_cast<std::size_t>(now_done.made) + 1);
  CHECK(::read(ends[0], bytes.data(), bytes.size()) == now_done.made);
}

TEST_CASE("a handler that comes while all fibers wait makes its calls, and what it wrote wakes one") {
  const annulet::hub hub;
  const files open;
  begin_with(&writes_a_byte);
  const counted_signal usr1(SIGUSR1, SA_RESTART, &make_call);
  constexpr int rounds = 100;
  for (int round = 0; round < rounds; ++round) {
    const annulet::test::once_asleep sends([self = ::pthread_self()] { ::pthread_kill(self, SIGUSR1); });
    char byte = 0;
    REQUIRE(annulet_read(ends[0], &byte, 1) == 1);
  }
  CHECK(now_done.made == rounds);
  CHECK(now_done.wrong == 0);
}

TEST_CASE("a handler that waits while all fibers wait stops the thread") {
  const annulet::hub hub;
  const files open;
  begin_with(&polls_for_a_while);
  const counted_signal usr1(SIGUSR1, 0, &make_call);
  auto ticker = annulet::spawn([] {
    for (int i = 0; i < 100; ++i) {
      annulet_usleep(100);
      ++turns;
    }
  });
  const annulet::test::once_asleep sends([self = ::pthread_self(), &usr1] {
    for (int i = 1; i <= 10; ++i) {
      ::pthread_kill(self, SIGUSR1);
      while (usr1.times() < i) {
        std::this_thread::sleep_for(100us);
      }
    }
  });
  while (usr1.times() < 10) {
    annulet_usleep(500);
  }
  ticker.get();
  CHECK(now_done.made == 10);
  CHECK(now_done.wrong == 0);
  CHECK(now_done.switched == 0);
}

TEST_CASE("a thread that blocks signals is not taken for a handler") {
  const annulet::hub hub;
  const annulet::test::blocked_signals none_comes({SIGUSR2});
  int ran = 0;
  auto other = annulet::spawn([&] { ++ran; });
  const timespec some{0, 1'000'000};
  CHECK(annulet_nanosleep(&some, nullptr) == 0);
  CHECK(ran == 1);
  other.get();
}

TEST_CASE("a handler is known for one, though calls waited with the same signals blocked before") {
  const annulet::hub hub;
  const files open;
  now_done.call = &polls_for_a_while;
  now_done.made = 0;
  now_done.switched = 0;
  const counted_signal usr1(SIGUSR1, 0, &make_call);
  auto other = annulet::spawn([&] {
    while (usr1.times() == 0) {
      ++turns;
      annulet::this_fiber::yield();
    }
  });
  {
    const annulet::test::blocked_signals none_comes({SIGUSR1});
    CHECK(annulet_usleep(100) == 0);
  }
  ::raise(SIGUSR1);
  other.get();
  CHECK(now_done.made == 1);
  CHECK(now_done.switched == 0);
}

TEST_CASE("nobody runs while signals are blocked around calls that need not wait, but not for ever") {
  const annulet::hub hub;
  const files open;
  bool done = false;
  auto other = annulet::spawn([&] {
    while (!done) {
      ++turns;
      annulet::this_fiber::yield();
    }
  });
  CHECK(annulet_usleep(100) == 0);
  const annulet::test::blocked_signals none_comes({SIGUSR1});
  const long before = turns;
  const auto call = [](int times) {
    for (int i = 0; i < times; ++i) {
      char byte = 0;
      CHECK(writes_a_byte());
      CHECK(annulet_read(ends[0], &byte, 1) == 1);
    }
  };
  call(300);
  CHECK(turns == before);
  call(10'000);
  CHECK(turns != before);
  done = true;
  other.get();
}
