// annulet_close under drop-ins that are parked: they are told, nothing of them is left in the kernel, and who
// gets the number next has nothing to do with them.

#include "support/files.hpp"

#include <annulet/selector/posix.h>
#include <annulet/hub/hub.hpp>
#include <annulet/runtime/fiber.hpp>

#include <doctest/doctest.h>

#include <array>
#include <cerrno>
#include <chrono>
#include <cstddef>
#include <cstdint>

#include <netinet/in.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

using namespace std::chrono_literals;
using annulet::test::descriptor;
using annulet::test::require_ok;

namespace {

struct outcome {
  long result;
  int error;
};

template <class Call>
auto parked_in(Call call, bool seen_by_kernel) {
  auto parked = annulet::spawn([call] {
    errno = 0;
    const long result = call();
    return outcome{result, errno};
  });
  annulet::this_fiber::yield();
  if (seen_by_kernel) {
    annulet::this_fiber::sleep_for(1ms);
  }
  return parked;
}

descriptor blocking_listener(sockaddr_in& name) {
  descriptor listener(require_ok(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), "socket"));
  name = {};
  name.sin_family = AF_INET;
  name.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  require_ok(::bind(listener.get(), reinterpret_cast<sockaddr*>(&name), sizeof(name)), "bind");
  require_ok(::listen(listener.get(), 4), "listen");
  socklen_t size = sizeof(name);
  require_ok(::getsockname(listener.get(), reinterpret_cast<sockaddr*>(&name), &size), "getsockname");
  return listener;
}

int connect_plainly(int socket, const sockaddr_in& name) {
  return ::connect(socket, reinterpret_cast<const sockaddr*>(&name), sizeof(name));
}

descriptor tcp_socket() {
  return descriptor(require_ok(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), "socket"));
}

}  // namespace

TEST_CASE("an accept whose listener is closed says so, and the port is free at once") {
  annulet::hub home;
  for (const bool seen : {false, true}) {
    CAPTURE(seen);
    sockaddr_in name{};
    const int listener = blocking_listener(name).release();
    auto parked = parked_in([=] { return annulet_accept(listener, nullptr, nullptr); }, seen);
    REQUIRE(annulet_close(listener) == 0);
    const descriptor next = tcp_socket();
    CHECK(::bind(next.get(), reinterpret_cast<sockaddr*>(&name), sizeof(name)) == 0);
    const outcome end = parked.get();
    CHECK(end.result == -1);
    CHECK(end.error == EBADF);
    CHECK(connect_plainly(tcp_socket().get(), name) == -1);
    CHECK(errno == ECONNREFUSED);
  }
}

TEST_CASE("an accept takes nothing of another listener that gets the number") {
  annulet::hub home;
  for (const bool seen : {false, true}) {
    CAPTURE(seen);
    sockaddr_in first{};
    sockaddr_in second{};
    const int listener = blocking_listener(first).release();
    auto parked = parked_in([=] { return annulet_accept(listener, nullptr, nullptr); }, seen);
    REQUIRE(annulet_close(listener) == 0);
    const descriptor next = blocking_listener(second);
    REQUIRE(next.get() == listener);
    const descriptor client = tcp_socket();
    REQUIRE(connect_plainly(client.get(), second) == 0);
    CHECK(parked.get().error == EBADF);
    pollfd waiting{next.get(), POLLIN, 0};
    CHECK(::poll(&waiting, 1, 0) == 1);
  }
}

TEST_CASE("a connect does not connect the socket that gets the number") {
  annulet::hub home;
  sockaddr_in name{};
  const descriptor listener = blocking_listener(name);
  const int socket = tcp_socket().release();
  auto parked = parked_in(
      [&, socket] { return annulet_connect(socket, reinterpret_cast<sockaddr*>(&name), sizeof(name)); },
      false);
  REQUIRE(annulet_close(socket) == 0);
  const descriptor next = tcp_socket();
  REQUIRE(next.get() == socket);
  const outcome end = parked.get();
  CHECK((end.result == 0 || end.error == EBADF));  // it may have been connected before it was closed
  sockaddr_in peer{};
  socklen_t size = sizeof(peer);
  CHECK(::getpeername(next.get(), reinterpret_cast<sockaddr*>(&peer), &size) == -1);
  CHECK(errno == ENOTCONN);
}

TEST_CASE("a read, a receive and a poll whose descriptor is closed say so") {
  annulet::hub home;
  for (const bool seen : {false, true}) {
    CAPTURE(seen);
    std::array<int, 2> pair{};
    require_ok(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair.data()), "socketpair");
    const descriptor peer(pair[1]);
    const int fd = pair[0];
    static char byte;
    pollfd one{fd, POLLIN, 0};
    auto reads = parked_in([=] { return annulet_read(fd, &byte, 1); }, seen);
    auto receives = parked_in([=] { return annulet_recv(fd, &byte, 1, 0); }, seen);
    auto polls = parked_in([&] { return static_cast<long>(annulet_poll(&one, 1, 5000)); }, seen);
    REQUIRE(annulet_close(fd) == 0);
    CHECK(::recv(peer.get(), &byte, 1, MSG_DONTWAIT) == 0);
    const descriptor next = tcp_socket();
    REQUIRE(next.get() == fd);
    CHECK(reads.get().error == EBADF);
    CHECK(receives.get().error == EBADF);
    CHECK(polls.get().result == 1);
    CHECK(one.revents == POLLNVAL);
  }
}

TEST_CASE("a child that a fiber forks, with a hub of its own, tells bad pointers from good ones") {
  annulet::hub home;
  int status = -1;
  annulet::spawn([&] {
    const pid_t child = ::fork();
    if (child == 0) {
      const annulet::hub own;
      // A hole above this frame, which is on the fiber's stack, and below the end of the thread's.
      void* const hole = ::mmap(nullptr, std::size_t{1} << 30, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
      const auto here = reinterpret_cast<std::uintptr_t>(&hole);
      auto at = reinterpret_cast<std::uintptr_t>(hole);
      unsigned char in_memory = 0;
      for (std::uintptr_t page = (here | 4095) + 1; at < here; page += 4096) {
        if (::mincore(reinterpret_cast<void*>(page), 4096, &in_memory) != 0) {
          at = page;
        }
      }
      const bool refused =
          annulet_nanosleep(reinterpret_cast<timespec*>(at), nullptr) == -1 && errno == EFAULT;
      ::_exit(refused ? 0 : 1);
    }
    ::waitpid(child, &status, 0);
  }).join();
  CHECK(status == 0);
}

TEST_CASE("who begins to wait while close waits for a request is told as well, and holds nothing") {
  const annulet::hub hub;
  sockaddr_in name{};
  descriptor listener = blocking_listener(name);
  const int fd = listener.release();
  auto accepts = parked_in([fd] { return annulet_accept(fd, nullptr, nullptr); }, true);
  pollfd late_poll{fd, POLLIN, 0};
  fd_set reads;
  FD_ZERO(&reads);
  FD_SET(fd, &reads);
  // These run when close is parked.
  auto polls = annulet::spawn([&] { return annulet_poll(&late_poll, 1, 5000); });
  auto selects = annulet::spawn([&] {
    errno = 0;
    const long result = annulet_select(fd + 1, &reads, nullptr, nullptr, nullptr);
    return outcome{result, errno};
  });
  CHECK(annulet_close(fd) == 0);
  const descriptor again(require_ok(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), "socket"));
  CHECK(::bind(again.get(), reinterpret_cast<sockaddr*>(&name), sizeof(name)) == 0);
  const outcome accepted = accepts.get();
  CHECK(accepted.result == -1);
  CHECK(accepted.error == EBADF);
  CHECK(polls.get() == 1);
  CHECK(late_poll.revents == POLLNVAL);
  const outcome selected = selects.get();
  CHECK(selected.result == -1);
  CHECK(selected.error == EBADF);
}
