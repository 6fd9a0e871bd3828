// Memory that runs out in the calls of ported code, and of C.
#include "support/allocation_sweep.hpp"
#include "support/files.hpp"
#include "support/two_ends.hpp"

#include <annulet/hub/c.h>
#include <annulet/selector/posix.h>
#include <annulet/runtime/scope.hpp>

#include <doctest/doctest.h>

#include <array>
#include <cerrno>
#include <csignal>
#include <new>

#include <fcntl.h>
#include <netdb.h>
#include <poll.h>
#include <sys/epoll.h>
#include <sys/select.h>
#include <sys/socket.h>
#include <sys/uio.h>

using namespace annulet;
using test::make_pipe;
using test::require;
using test::require_ok;
using test::scene;
using test::send_byte;

namespace {

// What a call of C says: ENOMEM as C++ does, and nothing else that is wrong.
template <class Result>
Result had(Result result, const char* call) {
  if (result < 0 && errno == ENOMEM) {
    throw std::bad_alloc();
  }
  require(result >= 0, call);
  return result;
}

template <class Wait>
void wait_for_a_byte(Wait wait) {
  const auto both = make_pipe();
  scope([&](fiber_group& other) {
    other.spawn([&] { send_byte(both.writer.get()); });
    require(had(wait(both.reader.get()), "it waited") == 1, "one is ready");
  });
}

int poll_many(int fd) {
  std::array<pollfd, 100> all{};
  all.fill({fd, POLLOUT, 0});
  all[0].events = POLLIN;
  return annulet_poll(all.data(), all.size(), 10'000);
}

int select_one(int fd) {
  fd_set set;
  FD_ZERO(&set);
  FD_SET(fd, &set);
  timeval limit{10, 0};
  return annulet_select(fd + 1, &set, nullptr, nullptr, &limit);
}

int wait_for_epoll(int fd) {
  const test::descriptor set(require_ok(::epoll_create1(EPOLL_CLOEXEC), "epoll_create1"));
  epoll_event event{EPOLLIN, {}};
  require_ok(::epoll_ctl(set.get(), EPOLL_CTL_ADD, fd, &event), "epoll_ctl");
  return annulet_epoll_wait(set.get(), &event, 1, 10'000);
}

template <class Receive, class Send>
void exchange(Receive receive, Send send) {
  const auto both = test::make_ends(test::kind::unix_stream);
  scope([&](fiber_group& other) {
    other.spawn([&] { require(had(send(both.peer.get()), "it sent") == 1, "a byte went"); });
    require(had(receive(both.mine.get()), "it received") == 1, "a byte came");
  });
}

void resolve(const char* name) {
  addrinfo hints{};
  hints.ai_socktype = SOCK_STREAM;
  addrinfo* found = nullptr;
  const int result = annulet_getaddrinfo(name, "80", &hints, &found);
  if (result == EAI_MEMORY || result == EAI_AGAIN || (result == EAI_SYSTEM && errno == ENOMEM)) {
    throw std::bad_alloc();
  }
  require(result == 0 && found != nullptr, "the name was found");
  ::freeaddrinfo(found);
}

void spawn_from_c() {
  annulet_fiber* fiber = nullptr;
  int ran = 0;
  const int result = annulet_spawn([](void* argument) { ++*static_cast<int*>(argument); }, &ran, &fiber);
  if (result == -ENOMEM) {
    throw std::bad_alloc();
  }
  require(result == 0 && annulet_join(fiber) == 0 && ran == 1, "it ran");
}

char byte = 'x';
iovec vector{&byte, 1};

const timespec ten_seconds{10, 0};
const sigset_t no_mask{};

int ppoll_one(int fd) {
  pollfd one{fd, POLLIN, 0};
  return annulet_ppoll(&one, 1, &ten_seconds, &no_mask);
}

int pselect_one(int fd) {
  fd_set set;
  FD_ZERO(&set);
  FD_SET(fd, &set);
  return annulet_pselect(fd + 1, &set, nullptr, nullptr, &ten_seconds, &no_mask);
}

void wait_for_epoll_with_masks() {
  wait_for_a_byte([](int fd) {
    const test::descriptor set(require_ok(::epoll_create1(EPOLL_CLOEXEC), "epoll_create1"));
    epoll_event event{EPOLLIN, {}};
    require_ok(::epoll_ctl(set.get(), EPOLL_CTL_ADD, fd, &event), "epoll_ctl");
    const int first = annulet_epoll_pwait(set.get(), &event, 1, 10'000, &no_mask);
    return first == 1 ? annulet_epoll_pwait2(set.get(), &event, 1, &ten_seconds, &no_mask) : first;
  });
}

void sleep_by_clocks() {
  const timespec moment{0, 1000};
  had(annulet_nanosleep(&moment, nullptr), "it slept");
  errno = annulet_clock_nanosleep(CLOCK_BOOTTIME, 0, &moment, nullptr);
  had(errno == 0 ? 0 : -1, "it slept");
}

void accept_and_connect() {
  const auto listener = test::make_tcp_listener();
  require_ok(::fcntl(listener.socket.get(), F_SETFL, 0), "fcntl");  // blocking
  const sockaddr_in address = test::loopback(listener.port);
  scope([&](fiber_group& other) {
    other.spawn([&] {
      const int accepted = had(annulet_accept(listener.socket.get(), nullptr, nullptr), "it accepted");
      require(annulet_close(accepted) == 0, "it was open");
    });
    const test::descriptor socket(require_ok(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), "socket"));
    had(annulet_connect(socket.get(), reinterpret_cast<const sockaddr*>(&address), sizeof(address)),
        "it connected");
    test::reset_on_close(socket.get());
  });
}

void end_fibers_from_c() {
  const auto waits = [](void*) { (void)annulet_usleep(10'000'000); };
  annulet_fiber* killed = nullptr;
  annulet_fiber* let_go = nullptr;
  int result = annulet_spawn(waits, nullptr, &killed);
  if (result == 0) {
    (void)annulet_yield();
    require(annulet_kill(killed) == 0 && annulet_join(killed) == 0, "it was killed");
    result = annulet_spawn([](void*) {}, nullptr, &let_go);
  }
  if (result == -ENOMEM) {
    throw std::bad_alloc();
  }
  require(result == 0 && annulet_detach(let_go) == 0 && annulet_yield() == 0, "it went its way");
}

const std::array of_ported_code = {
    scene{"annulet_poll", [] { wait_for_a_byte(poll_many); }},
    scene{"annulet_select", [] { wait_for_a_byte(select_one); }},
    scene{"annulet_epoll_wait", [] { wait_for_a_byte(wait_for_epoll); }},
    scene{"annulet_ppoll", [] { wait_for_a_byte(ppoll_one); }},
    scene{"annulet_pselect", [] { wait_for_a_byte(pselect_one); }},
    scene{"annulet_epoll_pwait, annulet_epoll_pwait2", wait_for_epoll_with_masks},
    scene{"annulet_nanosleep, annulet_clock_nanosleep", sleep_by_clocks},
    scene{"annulet_accept, annulet_connect, annulet_close", accept_and_connect},
    scene{"annulet_recv, annulet_send",
          [] {
            exchange([](int fd) { return annulet_recv(fd, &byte, 1, 0); },
                     [](int fd) { return annulet_send(fd, &byte, 1, 0); });
          }},
    scene{"annulet_recvfrom, annulet_sendto",
          [] {
            exchange([](int fd) { return annulet_recvfrom(fd, &byte, 1, 0, nullptr, nullptr); },
                     [](int fd) { return annulet_sendto(fd, &byte, 1, 0, nullptr, 0); });
          }},
    scene{"annulet_kill, annulet_detach, annulet_yield", end_fibers_from_c},
    scene{"annulet_usleep", [] { had(annulet_usleep(10), "it slept"); }},
    scene{"annulet_read, annulet_write",
          [] {
            exchange([](int fd) { return annulet_read(fd, &byte, 1); },
                     [](int fd) { return annulet_write(fd, &byte, 1); });
          }},
    scene{"annulet_readv, annulet_writev",
          [] {
            exchange([](int fd) { return annulet_readv(fd, &vector, 1); },
                     [](int fd) { return annulet_writev(fd, &vector, 1); });
          }},
    scene{"annulet_recvmsg, annulet_sendmsg",
          [] {
            const auto message = [] {
              msghdr whole{};
              whole.msg_iov = &vector;
              whole.msg_iovlen = 1;
              return whole;
            };
            exchange(
                [=](int fd) {
                  auto whole = message();
                  return annulet_recvmsg(fd, &whole, 0);
                },
                [=](int fd) {
                  const auto whole = message();
                  return annulet_sendmsg(fd, &whole, 0);
                });
          }},
    scene{"annulet_getaddrinfo of a number", [] { resolve("127.0.0.1"); }},
    scene{"annulet_getaddrinfo", [] { resolve("localhost"); }},
    scene{"annulet_spawn, annulet_join", spawn_from_c},
};

}  // namespace

TEST_CASE("ported code where memory runs out") { test::sweep_through_all(of_ported_code); }
