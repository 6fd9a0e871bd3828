// What receiving calls do where few programs look, each scene plainly and as a drop-in.

#include "support/rights.hpp"
#include "support/texts.hpp"
#include "support/two_ends.hpp"
#include "support/while_waiting.hpp"

#include <doctest/doctest.h>

#include <array>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include <sys/ioctl.h>

using namespace std::chrono_literals;
using annulet::test::descriptor;
using annulet::test::ends;
using annulet::test::io_calls_of;
using annulet::test::kind;
using annulet::test::make_ends;
using annulet::test::once_asleep;
using annulet::test::require_ok;
using annulet::test::same_io_in_both;
using annulet::test::scene_notes;
using annulet::test::send_with_descriptor;
using annulet::test::set_limit;
using annulet::test::write_text;

namespace {

// What one recvmsg brings, and which descriptors with it.
void note_message(scene_notes& notes, const io_calls_of& c, int socket, std::size_t size, int flags) {
  std::array<char, 16> bytes{};
  alignas(cmsghdr) char control[256]{};
  iovec part{bytes.data(), size};
  msghdr message{};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  message.msg_control = control;
  message.msg_controllen = sizeof(control);
  notes.result("recvmsg", c.recvmsg(socket, &message, flags));
  notes.note(std::string(bytes.data(), bytes.size()));
  notes.note("flags", message.msg_flags);
  notes.note("control", static_cast<long>(message.msg_controllen));
  for (const descriptor& brought : annulet::test::descriptors_of(message)) {
    notes.note("open", annulet::test::is_open(brought.get()));
  }
}

void note_recv(scene_notes& notes, const io_calls_of& c, int socket, std::size_t size, int flags) {
  std::array<char, 16> bytes{};
  notes.result("recv", c.recv(socket, bytes.data(), size, flags));
  notes.note(std::string(bytes.data(), bytes.size()));
}

// A call that receives in some way, of 4 bytes.
using receiving_call = ssize_t (*)(const io_calls_of&, int socket);
constexpr std::array<receiving_call, 5> receiving_calls = {
    [](const io_calls_of& c, int socket) {
      char bytes[4];
      return c.read(socket, bytes, 4);
    },
    [](const io_calls_of& c, int socket) {
      char bytes[4];
      const iovec part{bytes, 4};
      return c.readv(socket, &part, 1);
    },
    [](const io_calls_of& c, int socket) {
      char bytes[4];
      return c.recv(socket, bytes, 4, 0);
    },
    [](const io_calls_of& c, int socket) {
      char bytes[4];
      sockaddr_storage from{};
      socklen_t size = sizeof(from);
      return c.recvfrom(socket, bytes, 4, 0, reinterpret_cast<sockaddr*>(&from), &size);
    },
    [](const io_calls_of& c, int socket) {
      char bytes[4];
      iovec part{bytes, 4};
      msghdr message{};
      message.msg_iov = &part;
      message.msg_iovlen = 1;
      return c.recvmsg(socket, &message, 0);
    },
};

// A thread's first call that parks opens a descriptor for signals.
void park_once(const io_calls_of& c, int socket) {
  char byte = 0;
  set_limit(socket, SO_RCVTIMEO, 1ms);
  CHECK(c.recv(socket, &byte, 1, 0) == -1);
  CHECK(errno == EAGAIN);
}

descriptor make_udp() {
  descriptor socket(require_ok(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0), "socket"));
  sockaddr_in address = annulet::test::loopback(0);
  require_ok(::bind(socket.get(), reinterpret_cast<sockaddr*>(&address), sizeof(address)), "bind");
  return socket;
}

void connect_to_itself(const descriptor& socket) {
  sockaddr_in address{};
  socklen_t size = sizeof(address);
  auto* const generic = reinterpret_cast<sockaddr*>(&address);
  require_ok(::getsockname(socket.get(), generic, &size), "getsockname");
  require_ok(::connect(socket.get(), generic, size), "connect");
}

}  // namespace

TEST_CASE("MSG_WAITALL ends with what brings descriptors, and loses none") {
  for (const bool first_brings : {true, false}) {
    for (const bool second_comes_later : {true, false}) {
      for (const int flags : {int{MSG_WAITALL}, MSG_WAITALL | MSG_CMSG_CLOEXEC, 0}) {
        CAPTURE(first_brings);
        CAPTURE(second_comes_later);
        CAPTURE(flags);
        same_io_in_both([&](const io_calls_of& c, scene_notes& notes) {
          const ends both = make_ends(kind::unix_stream);
          const descriptor sent = annulet::test::make_eventfd();
          park_once(c, both.mine.get());
          const std::size_t open_before = annulet::test::open_descriptors();
          const auto send_first = [&] {
            if (first_brings) {
              send_with_descriptor(both.peer.get(), "ab", sent.get());
            } else {
              write_text(both.peer.get(), "ab");
            }
          };
          const auto send_second = [&] { send_with_descriptor(both.peer.get(), "cd", sent.get()); };
          set_limit(both.mine.get(), SO_RCVTIMEO, 900ms);
          send_first();
          if (second_comes_later) {
            const once_asleep sends(send_second);
            note_message(notes, c, both.mine.get(), 4, flags);
          } else {
            send_second();
            note_message(notes, c, both.mine.get(), 4, flags);
          }
          note_message(notes, c, both.mine.get(), 2, MSG_DONTWAIT);
          notes.note("lost", static_cast<long>(annulet::test::open_descriptors() - open_before));
        });
      }
    }
  }
}

TEST_CASE("a recv of all has no room for descriptors, and ends with what brings them all the same") {
  same_io_in_both([](const io_calls_of& c, scene_notes& notes) {
    const ends both = make_ends(kind::unix_stream);
    const descriptor sent = annulet::test::make_eventfd();
    park_once(c, both.mine.get());
    const std::size_t open_before = annulet::test::open_descriptors();
    set_limit(both.mine.get(), SO_RCVTIMEO, 900ms);
    const auto send = [&](const char* text) { send_with_descriptor(both.peer.get(), text, sent.get()); };
    send("ab");
    send("cd");
    note_recv(notes, c, both.mine.get(), 6, MSG_WAITALL);
    note_recv(notes, c, both.mine.get(), 6, MSG_WAITALL | MSG_DONTWAIT);
    write_text(both.peer.get(), "ef");
    {
      const once_asleep sends([&] { send("gh"); });
      note_recv(notes, c, both.mine.get(), 8, MSG_WAITALL);
    }
    notes.note("lost", static_cast<long>(annulet::test::open_descriptors() - open_before));
  });
}

TEST_CASE("MSG_WAITALL stops at the mark of urgent data") {
  same_io_in_both([](const io_calls_of& c, scene_notes& notes) {
    const ends both = make_ends(kind::tcp);
    write_text(both.peer.get(), "abc");
    require_ok(static_cast<int>(::send(both.peer.get(), "X", 1, MSG_OOB)), "send");
    write_text(both.peer.get(), "def");
    for (int on_the_way = 1; on_the_way != 0;) {
      require_ok(::ioctl(both.peer.get(), TIOCOUTQ, &on_the_way), "TIOCOUTQ");
    }
    set_limit(both.mine.get(), SO_RCVTIMEO, 500ms);
    note_recv(notes, c, both.mine.get(), 6, MSG_WAITALL);
    note_recv(notes, c, both.mine.get(), 1, MSG_OOB);
    note_recv(notes, c, both.mine.get(), 3, MSG_WAITALL);
  });
}

TEST_CASE("a receiver that waits for datagrams is woken by the end of receiving, and gets nothing") {
  for (const bool limited : {true, false}) {
    for (const int kind_of_socket : {0, 1, 2}) {
      for (const int how : {SHUT_RD, SHUT_RDWR}) {
        CAPTURE(limited);
        CAPTURE(kind_of_socket);
        CAPTURE(how);
        same_io_in_both([&](const io_calls_of& c, scene_notes& notes) {
          for (const receiving_call call : receiving_calls) {
            ends both;
            if (kind_of_socket == 0) {
              both = make_ends(kind::unix_datagram);
            } else {
              both.mine = make_udp();
              if (kind_of_socket == 2) {
                connect_to_itself(both.mine);
              }
            }
            const int fd = both.mine.get();
            if (limited) {
              set_limit(fd, SO_RCVTIMEO, 10s);  // never reached
            }
            {
              const once_asleep ends_it([&] { (void)::shutdown(fd, how); });
              notes.result("received", call(c, fd));
            }
            notes.result("and again", call(c, fd));
          }
        });
      }
    }
  }
}

TEST_CASE("what a peer has sent before it resets is received") {
  for (const kind what : {kind::unix_stream, kind::tcp}) {
    CAPTURE(static_cast<int>(what));
    same_io_in_both([&](const io_calls_of& c, scene_notes& notes) {
      ends both = make_ends(what);
      write_text(both.mine.get(), "unread");
      write_text(both.peer.get(), "abc");
      {
        const once_asleep resets([&] {
          write_text(both.peer.get(), "defg");
          both.peer.close();
        });
        note_recv(notes, c, both.mine.get(), 10, MSG_WAITALL);
      }
      note_recv(notes, c, both.mine.get(), 10, 0);
      note_recv(notes, c, both.mine.get(), 10, 0);
    });
  }
}

// The call that has received something leaves the error to the next one, whenever the reset comes.
TEST_CASE("a reset behind the last byte is told at each moment") {
  constexpr int resets = 500;
  std::mt19937 random(std::random_device{}());
  std::uniform_int_distribution<int> nanoseconds(0, 50'000);
  same_io_in_both([&](const io_calls_of& c, scene_notes& notes) {
    int told = 0;
    for (int i = 0; i < resets; ++i) {
      ends both = make_ends(kind::tcp);
      write_text(both.mine.get(), "unread");
      write_text(both.peer.get(), "abc");
      std::array<char, 10> bytes{};
      ssize_t got = 0;
      {
        const std::jthread peer([&both, later = std::chrono::nanoseconds(nanoseconds(random))] {
          std::this_thread::sleep_for(1ms);  // mostly it waits by then
          write_text(both.peer.get(), "defg");
          const auto then = std::chrono::steady_clock::now() + later;
          while (std::chrono::steady_clock::now() < then) {
          }
          both.peer.close();
        });
        got = c.recv(both.mine.get(), bytes.data(), bytes.size(), MSG_WAITALL);
      }
      errno = 0;
      told += got == 7 && c.recv(both.mine.get(), bytes.data(), 1, 0) == -1 && errno == ECONNRESET ? 1 : 0;
    }
    notes.note("told", told);
  });
}

TEST_CASE("a time for receiving that is longer than any clock is for ever") {
  same_io_in_both([](const io_calls_of& c, scene_notes& notes) {
    const ends both = make_ends(kind::unix_stream);
    for (const long seconds : {10'000'000'000'000L, 9'223'372'036L, 9'223'372'037L}) {
      const timeval time{seconds, 999'999};
      require_ok(::setsockopt(both.mine.get(), SOL_SOCKET, SO_RCVTIMEO, &time, sizeof(time)), "SO_RCVTIMEO");
      const once_asleep writes([&] { write_text(both.peer.get(), "x"); });
      note_recv(notes, c, both.mine.get(), 1, 0);
    }
  });
}
