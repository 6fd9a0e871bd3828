// The profile in examples/: a call that it does not list ends the process here.
#include "../examples/seccomp_profile.hpp"

#include "support/child.hpp"
#include "support/files.hpp"
#include "support/refused_calls.hpp"

#include <annulet/selector/posix.h>
#include <annulet/hub/close.hpp>
#include <annulet/hub/descriptor.hpp>
#include <annulet/hub/file.hpp>
#include <annulet/hub/hub.hpp>
#include <annulet/hub/io.hpp>
#include <annulet/hub/offload.hpp>
#include <annulet/hub/process.hpp>
#include <annulet/hub/run_on_all_cores.hpp>
#include <annulet/hub/run_process.hpp>
#include <annulet/runtime/cancellation.hpp>
#include <annulet/runtime/fiber.hpp>
#include <annulet/runtime/this_fiber.hpp>
#include <annulet/selector/selector.hpp>

#include <doctest/doctest.h>

#include <array>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <functional>
#include <span>
#include <string>
#include <system_error>
#include <thread>
#include <vector>

#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/epoll.h>
#include <sys/select.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

using namespace std::chrono_literals;
using annulet::test::make_tcp_listener;
using annulet_test::child_end;
using annulet_test::in_child;
using example::confinement;

namespace {

bool fibers_and_time() {
  int ran = 0;
  std::vector<annulet::fiber<void>> all;
  for (int i = 0; i < 200; ++i) {
    all.push_back(annulet::spawn([&ran] {
      annulet::this_fiber::sleep_for(1ms);
      ++ran;
    }));
  }
  auto killed = annulet::spawn([] { annulet::this_fiber::sleep_for(1h); });
  annulet::this_fiber::yield();
  killed.kill();
  killed.join();
  for (auto& one : all) {
    one.join();
  }
  return ran == 200;
}

bool echo_over_tcp() {
  const auto listener = make_tcp_listener();
  auto server = annulet::spawn([&] {
    const annulet::descriptor connection(annulet::accept(listener.socket.get()));
    std::array<std::byte, 100> buffer{};
    while (const std::size_t size = connection.recv(buffer)) {
      connection.send(std::span(buffer).first(size));
    }
  });
  const annulet::descriptor client =
      annulet::descriptor::adopt(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  client.connect(annulet::socket_address(annulet::test::loopback(listener.port)));
  std::array<std::byte, 5> word{};
  client.send(word);
  const bool came_back = client.recv(word) != 0;
  ::shutdown(client.fileno(), SHUT_WR);
  server.join();
  return came_back;
}

bool selector_and_drop_ins() {
  std::array<int, 2> two{};
  if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, two.data()) != 0) {
    return false;
  }
  bool right = false;
  {
    annulet::selector watching;
    watching.register_(two[0], annulet::io_event::read);
    auto later = annulet::spawn([&] { (void)annulet_write(two[1], "xy", 2); });
    right = watching.select(5s).size() == 1;
    later.join();
  }
  pollfd one{two[0], POLLIN, 0};
  fd_set set;
  FD_ZERO(&set);
  FD_SET(two[0], &set);
  std::array<char, 2> bytes{};
  timeval time{5, 0};
  sigset_t none;
  sigemptyset(&none);
  const timespec moment{0, 1'000'000};
  right = right && annulet_select(two[0] + 1, &set, nullptr, nullptr, &time) == 1 &&
          annulet_read(two[0], bytes.data(), bytes.size()) == 2 && annulet_poll(&one, 1, 1) == 0 &&
          annulet_ppoll(&one, 1, &moment, &none) == 0 && annulet_usleep(100) == 0 &&
          annulet_clock_nanosleep(CLOCK_TAI, 0, &moment, nullptr) == 0;
  return annulet_close(two[0]) == 0 && annulet_close(two[1]) == 0 && right;
}

bool a_file(const std::string& path) {
  const annulet::descriptor file = annulet::open(path, O_RDWR | O_CREAT | O_TRUNC, 0600);
  const std::array<std::byte, 10> some{};
  std::array<std::byte, 20> found{};
  const bool written = annulet::pwrite(file, some, 0) == some.size();
  annulet::fsync(file);
  return written && annulet::pread(file, found, 0) == some.size();
}

bool other_threads() {
  int done = 0;
  auto beside = annulet::spawn([&done] { done += annulet::offload([] { return 1; }); });
  beside.join();
  return done == 1;
}

// Where nothing but a hub is allowed. To write to a pipe that nobody reads is an error, and no signal.
bool pipes() {
  std::array<int, 2> ends{};
  if (::pipe2(ends.data(), O_CLOEXEC) != 0) {
    return false;
  }
  std::array<std::byte, 10> bytes{};
  auto reader = annulet::spawn([&] { return annulet::read(ends[0], bytes); });
  annulet::this_fiber::yield();
  const bool written = annulet::write(ends[1], std::span(bytes).first(3)) == 3;
  const bool came = reader.get() == 3;
  const std::array<iovec, 2> two{{{bytes.data(), 2}, {bytes.data() + 2, 3}}};
  const bool gathered = annulet::writev(ends[1], two) == 5 && annulet::readv(ends[0], two) == 5 &&
                        annulet::write(ends[1], std::span(bytes).first(0)) == 0;
  annulet::close(ends[0]);
  int error = 0;
  try {
    (void)annulet::write(ends[1], bytes);
  } catch (const std::system_error& e) {
    error = e.code().value();
  }
  annulet::close(ends[1]);
  return written && came && gathered && error == EPIPE;
}

// A priority event of a disk's file, which fires again and again for io_uring and not for poll(2).
bool poll_by_a_set_of_its_own() {
  auto waits = annulet::spawn([] {
    const int file = ::open("/bin/true", O_RDONLY | O_CLOEXEC);
    pollfd one{file, POLLPRI, 0};
    return annulet_poll(&one, 1, 10) == 0 && annulet_close(file) == 0;
  });
  return waits.get();
}

// A program's own set, from a fiber.
bool epoll_drop_in() {
  auto waits = annulet::spawn([] {
    const int set = ::epoll_create1(EPOLL_CLOEXEC);
    epoll_event event{};
    return annulet_epoll_wait(set, &event, 1, 5) == 0 && annulet_close(set) == 0;
  });
  return waits.get();
}

bool processes() {
  const bool elsewhere = annulet::run_process({.command = {"/bin/true"}, .directory = "/"}).status.success();
  annulet::process sleeper({.command = {"/bin/sleep", "100"}});
  return elsewhere && sleeper.terminate(10s).signal() == SIGTERM;
}

// Refused is what is not listed, by an end of the process or, as by default, by an error.
void confine_to(confinement what, annulet::engine_choice on, std::uint32_t otherwise) {
  what.otherwise = otherwise;
  what.uring = on == annulet::engine_choice::uring;
  example::confine(what);
}

child_end confined(const confinement& what, annulet::engine_choice on, const std::function<bool()>& act) {
  return in_child([&] {
    confine_to(what, on, SCMP_ACT_KILL_PROCESS);
    const annulet::hub home({.engine = on});
    return act();
  });
}

constexpr std::array engines = {annulet::engine_choice::uring, annulet::engine_choice::epoll};

}  // namespace

TEST_CASE("what the profile lists is enough for each engine") {
  const auto folder = std::filesystem::temp_directory_path();
  const std::string path = folder / ("annulet.confined." + std::to_string(::getpid()));
  for (const auto on : engines) {
    const auto end = confined({}, on, [&] {
      return fibers_and_time() && echo_over_tcp() && selector_and_drop_ins() && a_file(path) &&
             poll_by_a_set_of_its_own() && other_threads();
    });
    CAPTURE(static_cast<int>(on));
    CAPTURE(end.said);
    CHECK(end.signal == 0);
    CHECK(end.exit == 0);
  }
  std::filesystem::remove(path);
}

TEST_CASE("pipes need nothing of sockets and files, on older kernels neither") {
  for (const auto on : engines) {
    for (const std::uint32_t otherwise : {SCMP_ACT_KILL_PROCESS, SCMP_ACT_ERRNO(EPERM)}) {
      for (const bool older : {false, true}) {
        const auto end = in_child([&] {
          if (older) {
            annulet::test::refuse_where(SYS_pwritev2, 5, 0x100, EOPNOTSUPP);  // RWF_NOSIGNAL, of Linux 6.18
          }
          confine_to({.sockets = false, .files = false}, on, otherwise);
          const annulet::hub home({.engine = on});
          return pipes() && epoll_drop_in();
        });
        CAPTURE(static_cast<int>(on));
        CAPTURE(otherwise);
        CAPTURE(older);
        CAPTURE(end.said);
        CHECK(end.signal == 0);
        CHECK(end.exit == 0);
      }
    }
  }
}

TEST_CASE("names and processes need what is listed for them") {
  for (const auto on : engines) {
    const auto end = confined({.names = true, .processes = true}, on, [] {
      addrinfo* found = nullptr;
      const bool known = annulet_getaddrinfo("localhost", "80", nullptr, &found) == 0;
      if (known) {
        ::freeaddrinfo(found);
      }
      return known && processes();
    });
    CAPTURE(static_cast<int>(on));
    CAPTURE(end.said);
    CHECK(end.signal == 0);
    CHECK(end.exit == 0);
  }
}

TEST_CASE("hubs on all cores need nothing else") {
  for (const auto on : engines) {
    const auto end = in_child([on] {
      confine_to({.sockets = false, .files = false}, on, SCMP_ACT_KILL_PROCESS);
      std::atomic<unsigned> ran{0};
      annulet::run_on_all_cores(
          [&](annulet::hub&, std::size_t) {
            annulet::this_fiber::sleep_for(1ms);
            ++ran;
          },
          {.count = 3, .pinned = true, .hub = {.engine = on}});
      return ran == 3;
    });
    CAPTURE(static_cast<int>(on));
    CAPTURE(end.said);
    CHECK(end.signal == 0);
    CHECK(end.exit == 0);
  }
}

TEST_CASE("it is strict: what is not listed ends the process") {
  const auto on = annulet::engine_choice::uring;
  CHECK(confined({.sockets = false}, on, [] { return ::socket(AF_INET, SOCK_STREAM, 0) < 0; }).signal ==
        SIGSYS);
  CHECK(confined({.files = false}, on, [] { return ::open("/", O_RDONLY) < 0; }).signal == SIGSYS);
  CHECK(confined({}, on, [] { return ::mkdir("/nowhere/to", 0) != 0; }).signal == SIGSYS);
  CHECK(confined({}, annulet::engine_choice::epoll, [] {
          return ::syscall(SYS_io_uring_enter, -1, 0, 0, 0, nullptr, 0) < 0;
        }).signal == SIGSYS);
}
