// What calls on sockets do where others come between, or ask for what few programs do, each scene plainly and
// as a drop-in.

#include "support/counted_signal.hpp"
#include "support/cpu_time.hpp"
#include "support/full_ends.hpp"
#include "support/page_before_nothing.hpp"
#include "support/refused_calls.hpp"
#include "support/texts.hpp"
#include "support/two_ends.hpp"
#include "support/while_waiting.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <csignal>
#include <cstring>
#include <functional>
#include <limits>
#include <thread>
#include <utility>
#include <vector>

#include <linux/errqueue.h>
#include <sys/un.h>
#include <ucontext.h>

using namespace std::chrono_literals;
using annulet::test::at_last;
using annulet::test::descriptor;
using annulet::test::ends;
using annulet::test::io_calls_of;
using annulet::test::kind;
using annulet::test::later;
using annulet::test::make_ends;
using annulet::test::once_asleep;
using annulet::test::page_before_nothing;
using annulet::test::require_ok;
using annulet::test::same_io_in_both;
using annulet::test::scene_notes;
using annulet::test::set_limit;
using annulet::test::write_text;

namespace {

#if defined(__x86_64__)

// Done once, right before this thread's next poll(2).
thread_local const std::function<void()>* before_poll = nullptr;

// The filter traps poll(2), so it is ppoll(2) that is made.
void poll_after_act(int, siginfo_t*, void* context) {
  if (before_poll != nullptr) {
    (*std::exchange(before_poll, nullptr))();
  }
  auto& registers = static_cast<ucontext_t*>(context)->uc_mcontext.gregs;
  const auto milliseconds = static_cast<int>(registers[REG_RDX]);
  const timespec limit{milliseconds / 1000, milliseconds % 1000 * 1'000'000L};
  const long found = ::syscall(SYS_ppoll, registers[REG_RDI], registers[REG_RSI],
                               milliseconds < 0 ? nullptr : &limit, nullptr, 0);
  registers[REG_RAX] = found < 0 ? -errno : found;
}

// On a thread of its own, which the filter ends with.
void with_polls_trapped(const std::function<void()>& body) {
  struct sigaction action {};
  action.sa_sigaction = &poll_after_act;
  action.sa_flags = SA_SIGINFO;
  struct sigaction before {};
  require_ok(::sigaction(SIGSYS, &action, &before), "sigaction");
  std::thread([&] {
    annulet::test::seccomp_filter polls;
    polls.add(SCMP_ACT_TRAP, SCMP_SYS(poll));
    polls.load();
    body();
  }).join();
  require_ok(::sigaction(SIGSYS, &before, nullptr), "sigaction");
}

#endif

// The name of the kernel's choice.
void name(int unix_socket) {
  const sa_family_t family = AF_UNIX;
  require_ok(::bind(unix_socket, reinterpret_cast<const sockaddr*>(&family), sizeof(family)), "bind");
}

// An unnamed socket, and a receiver that others have filled.
struct full_receiver {
  descriptor socket{require_ok(::socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0), "socket")};
  descriptor sender{require_ok(::socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0), "socket")};
  sockaddr_un address{};
  socklen_t size = sizeof(address);

  full_receiver() {
    name(socket.get());
    require_ok(::getsockname(socket.get(), generic(), &size), "getsockname");
    const descriptor filler(require_ok(::socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0), "socket"));
    while (::sendto(filler.get(), "x", 1, MSG_DONTWAIT, generic(), size) == 1) {
    }
  }
  sockaddr* generic() { return reinterpret_cast<sockaddr*>(&address); }
};

// How many sends with MSG_ZEROCOPY the socket's notices speak of, when no more come.
long sends_noticed(int socket, long expected) {
  long noticed = 0;
  for (int quiet = 0; quiet < (noticed < expected ? 2000 : 20); ++quiet) {
    alignas(cmsghdr) char control[256];
    msghdr message{};
    message.msg_control = control;
    message.msg_controllen = sizeof(control);
    if (::recvmsg(socket, &message, MSG_ERRQUEUE) < 0) {
      std::this_thread::sleep_for(1ms);
      continue;
    }
    quiet = 0;
    for (cmsghdr* one = CMSG_FIRSTHDR(&message); one != nullptr; one = CMSG_NXTHDR(&message, one)) {
      sock_extended_err notice{};
      std::memcpy(&notice, CMSG_DATA(one), sizeof(notice));
      if (notice.ee_origin == SO_EE_ORIGIN_ZEROCOPY) {
        noticed = std::max(noticed, static_cast<long>(notice.ee_data) + 1);
      }
    }
  }
  return noticed;
}

constexpr auto everything = std::numeric_limits<std::size_t>::max();

}  // namespace

#if defined(__x86_64__)

TEST_CASE("what comes while a reader is about to be told of the end is not lost") {
  for (const bool reads : {false, true}) {
    for (const bool resets : {false, true}) {
      CAPTURE(reads);
      CAPTURE(resets);
      with_polls_trapped([&] {
        annulet::hub home;
        ends both = make_ends(kind::tcp);
        std::array<ssize_t, 2> got{};
        const auto receive = [&](ssize_t& result) {
          char bytes[4];
          const int fd = both.mine.get();
          result = reads ? annulet_read(fd, bytes, 4) : annulet_recv(fd, bytes, 4, 0);
          result = result < 0 ? -errno : result;
        };
        auto first = annulet::spawn([&] { receive(got[0]); });
        auto second = annulet::spawn([&] { receive(got[1]); });
        annulet::this_fiber::sleep_for(1ms);
        const std::function<void()> ends_it = [&] {
          if (!resets) {
            write_text(both.peer.get(), "2345");
          }
          do_act(resets ? annulet::test::act::resets : annulet::test::act::half_closes, both, kind::tcp);
        };
        before_poll = &ends_it;
        write_text(both.peer.get(), "1");  // wakes both, and one of them for nothing
        first.join();
        second.join();
        std::sort(got.begin(), got.end());
        CHECK(before_poll == nullptr);
        CHECK(got == (resets ? std::array<ssize_t, 2>{-ECONNRESET, 1} : std::array<ssize_t, 2>{1, 4}));
      });
    }
  }
}

#endif

TEST_CASE("MSG_WAITALL says, too, from whom it is") {
  for (const kind what : {kind::tcp, kind::unix_stream}) {
    for (const bool peeks : {false, true}) {
      for (const int room : {0, 3, 100, -1}) {
        CAPTURE(static_cast<int>(what));
        CAPTURE(peeks);
        CAPTURE(room);
        same_io_in_both([&](const io_calls_of& c, scene_notes& notes) {
          const ends both = make_ends(what);
          if (what == kind::unix_stream) {
            name(both.peer.get());
          }
          write_text(both.peer.get(), "hello");
          std::atomic<bool> is_written{false};
          const once_asleep writes([&] {
            write_text(both.peer.get(), "world");
            is_written = true;
          });
          const at_last ends_it([&] {
            if (is_written) {
              (void)::shutdown(both.peer.get(), SHUT_WR);
            }
          });
          std::array<char, 11> bytes{};
          std::array<char, 100> from{};
          socklen_t size = static_cast<socklen_t>(room);
          notes.result("recvfrom",
                       c.recvfrom(both.mine.get(), bytes.data(), 10, MSG_WAITALL | (peeks ? MSG_PEEK : 0),
                                  reinterpret_cast<sockaddr*>(from.data()), &size));
          notes.note(bytes.data());
          notes.note("size", size);
          notes.note("family", from[0]);
          notes.note("all of it", std::count(from.begin(), from.end(), '\0') < 97);
        });
      }
    }
  }
}

TEST_CASE("MSG_WAITALL has nowhere to say from whom it is") {
  const page_before_nothing page;
  for (const bool size_is_nowhere : {true, false}) {
    CAPTURE(size_is_nowhere);
    same_io_in_both([&](const io_calls_of& c, scene_notes& notes) {
      const ends both = make_ends(kind::unix_stream);
      name(both.peer.get());
      write_text(both.peer.get(), "hello");
      char bytes[5];
      char from[100];
      socklen_t size = 100;
      auto* const room = static_cast<sockaddr*>(static_cast<void*>(from));
      notes.result("recvfrom", c.recvfrom(both.mine.get(), bytes, 5, MSG_WAITALL,
                                          size_is_nowhere ? room : static_cast<sockaddr*>(page.last(1)),
                                          size_is_nowhere ? static_cast<socklen_t*>(page.last(1)) : &size));
      notes.note("size", size);
      notes.result("left", c.recv(both.mine.get(), bytes, 5, MSG_DONTWAIT));
    });
  }
}

TEST_CASE("who looks for all there is to come goes on looking when another has taken it") {
  same_io_in_both([](const io_calls_of& c, scene_notes& notes) {
    const ends both = make_ends(kind::tcp);
    write_text(both.peer.get(), "hello");
    const once_asleep takes([&] {
      char taken[5];
      require_ok(static_cast<int>(::recv(both.mine.get(), taken, 5, 0)), "recv");
      std::this_thread::sleep_for(20ms);
      write_text(both.peer.get(), "0123456789");
    });
    std::array<char, 10> bytes{};
    notes.result("recv", c.recv(both.mine.get(), bytes.data(), bytes.size(), MSG_PEEK | MSG_WAITALL));
  });
}

TEST_CASE("who has looked for all there is to come, and whose time is over, keeps what he has seen") {
  same_io_in_both([](const io_calls_of& c, scene_notes& notes) {
    const ends both = make_ends(kind::tcp);
    set_limit(both.mine.get(), SO_RCVTIMEO, 200ms);
    write_text(both.peer.get(), "hello");
    const once_asleep takes([&] {
      char taken[5];
      require_ok(static_cast<int>(::recv(both.mine.get(), taken, 5, 0)), "recv");
    });
    std::array<char, 11> bytes{};
    notes.result("recv", c.recv(both.mine.get(), bytes.data(), 10, MSG_PEEK | MSG_WAITALL));
    notes.note(bytes.data());
  });
}

TEST_CASE("a socket of datagrams knows no urgent ones, and waits") {
  same_io_in_both([](const io_calls_of& c, scene_notes& notes) {
    const auto pair = annulet::test::make_udp_pair();
    require_ok(::fcntl(pair.first.get(), F_SETFL, 0), "F_SETFL");
    const auto receive = [&](int flags) {
      char byte = 0;
      notes.result("recv", c.recv(pair.first.get(), &byte, 1, flags));
    };
    receive(MSG_OOB | MSG_DONTWAIT);
    receive(MSG_OOB | MSG_ERRQUEUE);
    const once_asleep sends([&] { write_text(pair.second.get(), "x"); });
    receive(MSG_OOB);
  });
}

TEST_CASE("a datagram that waits for a full receiver wastes no time, and gets there") {
  same_io_in_both([](const io_calls_of& c, scene_notes& notes) {
    full_receiver full;
    const auto send = [&] { return c.sendto(full.sender.get(), "hello", 5, 0, full.generic(), full.size); };
    set_limit(full.sender.get(), SO_SNDTIMEO, 100ms);
    constexpr auto some = 15ms;
    const auto used = annulet::test::least_cpu(some, annulet::test::thread_cpu,
                                               [&] { CHECK((send() == -1 && errno == EAGAIN)); });
    notes.note("wasted", used >= some);
    set_limit(full.sender.get(), SO_SNDTIMEO, 0ms);
    const later receives([&] {
      char bytes[8];
      require_ok(static_cast<int>(::recv(full.socket.get(), bytes, sizeof(bytes), 0)), "recv");
    });
    notes.result("sent", send());
  });
}

TEST_CASE("a send that is spared the copy gives one notice, however long it takes") {
  same_io_in_both([](const io_calls_of& c, scene_notes& notes) {
    constexpr int sends = 3;
    const ends both = make_ends(kind::tcp);
    const int fd = both.mine.get();
    const int on = 1;
    require_ok(::setsockopt(fd, SOL_SOCKET, SO_ZEROCOPY, &on, sizeof(on)), "SO_ZEROCOPY");
    const std::vector<char> much(4 << 20);
    std::thread reader([&] {
      std::vector<char> bytes(1 << 16);
      for (std::size_t left = sends * much.size() + 1; left != 0;) {
        left -= static_cast<std::size_t>(
            require_ok(static_cast<int>(::recv(both.peer.get(), bytes.data(), bytes.size(), 0)), "recv"));
      }
    });
    iovec part{const_cast<char*>(much.data()), much.size()};
    msghdr message{};
    message.msg_iov = &part;
    message.msg_iovlen = 1;
    notes.result("send", c.send(fd, much.data(), much.size(), MSG_ZEROCOPY));
    notes.result("send", c.send(fd, much.data(), much.size(), MSG_ZEROCOPY));
    notes.result("sendmsg", c.sendmsg(fd, &message, MSG_ZEROCOPY));
    notes.result("without", c.send(fd, "x", 1, 0));
    reader.join();
    notes.note("notices", sends_noticed(fd, sends));
  });
}

TEST_CASE("a send that is spared the copy is refused as any other") {
  const page_before_nothing page;
  same_io_in_both([&](const io_calls_of& c, scene_notes& notes) {
    ends both = make_ends(kind::tcp);
    const int fd = both.mine.get();
    const int on = 1;
    require_ok(::setsockopt(fd, SOL_SOCKET, SO_ZEROCOPY, &on, sizeof(on)), "SO_ZEROCOPY");
    notes.result("nowhere", c.sendmsg(fd, static_cast<msghdr*>(page.last(1)), MSG_ZEROCOPY));
    sockaddr nowhere{};
    notes.result("a bad size", c.sendto(fd, "x", 1, MSG_ZEROCOPY, &nowhere, 4000));
    annulet::test::fill_blocking(both, kind::tcp);
    set_limit(fd, SO_SNDTIMEO, 20ms);
    notes.result("full", c.send(fd, "x", 1, MSG_ZEROCOPY));
    do_act(annulet::test::act::resets, both, kind::tcp);
    notes.result("reset", c.send(fd, "x", 1, MSG_ZEROCOPY | MSG_NOSIGNAL));
    notes.result("over", c.send(fd, "x", 1, MSG_ZEROCOPY | MSG_NOSIGNAL));
    const annulet::test::counted_signal sigpipe(SIGPIPE);
    notes.result("over", c.send(fd, "x", 1, MSG_ZEROCOPY));
    notes.note("handled", sigpipe.times());
  });
}

TEST_CASE("a send that is spared the copy, and waits, is ended by a kill, and by the descriptor's end") {
  for (const bool killed : {true, false}) {
    CAPTURE(killed);
    annulet::hub home;
    ends both = make_ends(kind::tcp);
    annulet::test::fill_blocking(both, kind::tcp);
    const int fd = both.mine.get();
    const int on = 1;
    require_ok(::setsockopt(fd, SOL_SOCKET, SO_ZEROCOPY, &on, sizeof(on)), "SO_ZEROCOPY");
    auto sender = annulet::spawn([&] {
      CHECK(annulet_send(fd, "x", 1, MSG_ZEROCOPY) == -1);
      CHECK(errno == (killed ? ECANCELED : EBADF));
    });
    annulet::this_fiber::sleep_for(5ms);
    if (killed) {
      sender.kill();
    } else {
      CHECK(annulet_close(both.mine.release()) == 0);
    }
    sender.join();
  }
}

TEST_CASE("a receive of all that there may be ends where the stream does") {
  same_io_in_both([](const io_calls_of& c, scene_notes& notes) {
    const ends both = make_ends(kind::tcp);
    write_text(both.peer.get(), "abc");
    const once_asleep ends_it([&] {
      write_text(both.peer.get(), "def");
      (void)::shutdown(both.peer.get(), SHUT_WR);
    });
    static char bytes[16];
    notes.result("recv", c.recv(both.mine.get(), bytes, everything, MSG_WAITALL));
  });
}

TEST_CASE("a descriptor that is a path only refuses each call, whatever else is wrong") {
  const page_before_nothing page;
  same_io_in_both([&](const io_calls_of& c, scene_notes& notes) {
    const descriptor path(require_ok(::open("/dev/null", O_PATH | O_CLOEXEC), "open"));
    const sockaddr_in address = annulet::test::loopback(1);
    const auto* const peer = reinterpret_cast<const sockaddr*>(&address);
    const int fd = path.get();
    char byte = 0;
    notes.result("connect", c.connect(fd, peer, sizeof(address)));
    notes.result("connect", c.connect(fd, peer, 4000));
    notes.result("connect", c.connect(fd, peer, static_cast<socklen_t>(-1)));
    notes.result("connect", c.connect(fd, static_cast<sockaddr*>(page.last(1)), sizeof(address)));
    notes.result("accept", c.accept(fd, nullptr, nullptr));
    notes.result("recv", c.recv(fd, &byte, 1, 0));
    notes.result("send", c.send(fd, &byte, 1, 0));
    notes.result("read", c.read(fd, &byte, 1));
    notes.result("read", c.read(fd, &byte, 0));
    notes.result("write", c.write(fd, &byte, 1));
  });
}
