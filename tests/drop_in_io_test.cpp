// Connections, files and what is refused, each scene plainly and as a drop-in.

#include "support/counted_signal.hpp"
#include "support/page_before_nothing.hpp"
#include "support/plain_and_parked_io.hpp"
#include "support/two_ends.hpp"
#include "support/while_waiting.hpp"

#include <doctest/doctest.h>

#include <array>
#include <atomic>
#include <chrono>
#include <cstring>
#include <string>

#include <pthread.h>

using namespace std::chrono_literals;
using annulet::test::act;
using annulet::test::counted_signal;
using annulet::test::descriptor;
using annulet::test::do_act;
using annulet::test::ends;
using annulet::test::io_calls_of;
using annulet::test::is_socket;
using annulet::test::kind;
using annulet::test::kinds;
using annulet::test::later;
using annulet::test::make_ends;
using annulet::test::make_pipe;
using annulet::test::note_wait;
using annulet::test::once_asleep;
using annulet::test::require_ok;
using annulet::test::same_io_in_both;
using annulet::test::scene_notes;
using annulet::test::set_limit;
using annulet::test::set_nonblocking;
using annulet::test::wait_where_it_ends;

namespace {

std::string numbered(std::size_t size) {
  std::string text;
  while (text.size() < size) {
    text += std::to_string(text.size()) + ' ';
  }
  text.resize(size);
  return text;
}

}  // namespace

TEST_CASE("accept waits, or does not where the listener does not block, or until its time is over") {
  same_io_in_both(
      [](const io_calls_of& c, scene_notes& notes) {
        const auto listener = annulet::test::make_tcp_listener();
        const int fd = listener.socket.get();
        const auto connects = [&] {
          const descriptor client(require_ok(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), "socket"));
          const sockaddr_in address = annulet::test::loopback(listener.port);
          require_ok(::connect(client.get(), reinterpret_cast<const sockaddr*>(&address), sizeof(address)),
                     "connect");
        };
        notes.result("nothing", c.accept(fd, nullptr, nullptr));
        require_ok(::fcntl(fd, F_SETFL, ::fcntl(fd, F_GETFL) & ~O_NONBLOCK), "F_SETFL");
        for (const int flags : {0, SOCK_NONBLOCK | SOCK_CLOEXEC}) {
          const later acts(connects);
          sockaddr_in peer{};
          socklen_t size = sizeof(peer);
          const descriptor got(c.accept4(fd, reinterpret_cast<sockaddr*>(&peer), &size, flags));
          notes.note("accepted", got.get() >= 0);
          notes.note("size", size);
          notes.note("family", peer.sin_family);
          notes.note("flags", ::fcntl(got.get(), F_GETFL) * 10 + ::fcntl(got.get(), F_GETFD));
        }
        {
          const later acts(connects);
          const descriptor got(c.accept(fd, nullptr, nullptr));
          notes.note("accepted", got.get() >= 0);
        }
        notes.result("bad flags", c.accept4(fd, nullptr, nullptr, 1 << 30));
        set_limit(fd, SO_RCVTIMEO, 5ms);
        note_wait(notes, 5ms, [&] { notes.result("over", c.accept(fd, nullptr, nullptr)); });
        notes.note("flags", ::fcntl(fd, F_GETFL));
        set_limit(fd, SO_RCVTIMEO, 0ms);
        for (const int flags : {0, SA_RESTART}) {
          const counted_signal usr1(SIGUSR1, flags);
          std::atomic<bool> over{false};
          const once_asleep acts([&, self = ::pthread_self()] {
            ::pthread_kill(self, SIGUSR1);
            while (usr1.times() == 0) {
              std::this_thread::sleep_for(1ms);
            }
            wait_where_it_ends(over, flags == SA_RESTART);
            connects();
          });
          const descriptor got(c.accept(fd, nullptr, nullptr));
          const int error = errno;
          over = true;
          notes.note("accepted", got.get() >= 0);
          notes.note("errno", got.get() >= 0 ? 0 : error);
        }
        const ends not_listening = make_ends(kind::tcp);
        notes.result("of no listener", c.accept(not_listening.mine.get(), nullptr, nullptr));
        const auto pipe = make_pipe(O_CLOEXEC);
        notes.result("of no socket", c.accept(pipe.reader.get(), nullptr, nullptr));
        notes.result("of nothing", c.accept(12'345, nullptr, nullptr));
      },
      annulet::test::beside::nobody);
}

TEST_CASE("connect waits, or does not where the socket does not block") {
  same_io_in_both([](const io_calls_of& c, scene_notes& notes) {
    auto listener = annulet::test::make_tcp_listener();
    const sockaddr_in address = annulet::test::loopback(listener.port);
    const auto* const peer = reinterpret_cast<const sockaddr*>(&address);
    const auto fresh = [](int flags) {
      return descriptor(require_ok(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | flags, 0), "socket"));
    };
    const descriptor blocking = fresh(0);
    notes.result("connect", c.connect(blocking.get(), peer, sizeof(address)));
    notes.result("again", c.connect(blocking.get(), peer, sizeof(address)));
    notes.note("flags", ::fcntl(blocking.get(), F_GETFL));
    const descriptor nonblocking = fresh(SOCK_NONBLOCK);
    notes.result("connect", c.connect(nonblocking.get(), peer, sizeof(address)));
    require_ok(::fcntl(nonblocking.get(), F_SETFL, 0), "F_SETFL");
    notes.result("made to block", c.connect(nonblocking.get(), peer, sizeof(address)));
    notes.result("nowhere", c.connect(blocking.get(), nullptr, sizeof(address)));
    const descriptor other = fresh(0);
    notes.result("nowhere", c.connect(other.get(), reinterpret_cast<const sockaddr*>(16), sizeof(address)));
    notes.result("too short", c.connect(other.get(), peer, 2));
    listener.socket.close();
    notes.result("refused", c.connect(other.get(), peer, sizeof(address)));
    const auto pipe = make_pipe(O_CLOEXEC);
    notes.result("of no socket", c.connect(pipe.reader.get(), peer, sizeof(address)));
    notes.result("of nothing", c.connect(12'345, peer, sizeof(address)));
  });
}

TEST_CASE("what the kernel refuses, and transfers of nothing") {
  same_io_in_both([](const io_calls_of& c, scene_notes& notes) {
    const annulet::test::page_before_nothing page;
    char byte = 0;
    auto* const nowhere = reinterpret_cast<void*>(16);
    for (const kind what : kinds) {
      ends both = make_ends(what);
      const int fd = both.mine.get();
      do_act(act::answers, both, what);
      if (what == kind::pty || what == kind::pipe) {
        const later settles([] {}, 2ms);
      }
      notes.result("read nothing", c.read(fd, &byte, 0));
      notes.result("read into nowhere", c.read(fd, nowhere, 1));
      notes.result("readv with vectors nowhere", c.readv(fd, static_cast<const iovec*>(nowhere), 1));
      notes.result("readv of none", c.readv(fd, nullptr, 0));
      notes.result("readv of too many", c.readv(fd, nullptr, 1025));
      notes.result("readv of less than none", c.readv(fd, nullptr, -1));
      ends others = make_ends(what, true);
      notes.result("write nothing", c.write(others.mine.get(), &byte, 0));
      notes.result("write from nowhere", c.write(others.mine.get(), nowhere, 1));
      notes.result("writev of none", c.writev(others.mine.get(), nullptr, 0));
      notes.result("recv", c.recv(fd, nowhere, 1, MSG_DONTWAIT));
      notes.result("recvmsg nowhere", c.recvmsg(fd, static_cast<msghdr*>(nowhere), MSG_DONTWAIT));
      notes.result("sendmsg nowhere", c.sendmsg(others.mine.get(), static_cast<const msghdr*>(nowhere), 0));
    }
    notes.result("read of nothing open", c.read(12'345, &byte, 1));
    notes.result("write of nothing open", c.write(12'345, &byte, 1));
    notes.result("recv of nothing open", c.recv(12'345, &byte, 1, 0));
    notes.result("send of nothing open", c.send(12'345, &byte, 1, 0));
    notes.result("close of nothing open", c.close(12'345));
    notes.result("close of nothing", c.close(-1));
    const auto pipe = make_pipe(O_CLOEXEC);
    notes.result("read of a writer", c.read(pipe.writer.get(), &byte, 1));
    notes.result("write of a reader", c.write(pipe.reader.get(), &byte, 1));
  });
}

TEST_CASE("a regular file, and a timer") {
  same_io_in_both([](const io_calls_of& c, scene_notes& notes) {
    const descriptor file(require_ok(::open("/tmp", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600), "open"));
    const std::string text = numbered(300'000);
    notes.result("write", c.write(file.get(), text.data(), text.size()));
    notes.note("position", ::lseek(file.get(), 0, SEEK_CUR));
    require_ok(static_cast<int>(::lseek(file.get(), 10, SEEK_SET)), "lseek");
    std::string back(text.size(), ' ');
    notes.result("read", c.read(file.get(), back.data(), back.size()));
    notes.note("the same", back.substr(0, text.size() - 10) == text.substr(10));
    notes.result("at the end", c.read(file.get(), back.data(), back.size()));
    const descriptor folder(require_ok(::open("/tmp", O_RDONLY | O_CLOEXEC), "open"));
    notes.result("read of a folder", c.read(folder.get(), back.data(), 1));
    const descriptor event(require_ok(::eventfd(0, EFD_CLOEXEC), "eventfd"));
    std::array<std::uint64_t, 2> counts{3, 4};
    notes.result("write of an event", c.write(event.get(), counts.data(), sizeof(counts[0])));
    notes.result("write of more than an event takes", c.write(event.get(), counts.data(), sizeof(counts)));
    notes.result("write of less", c.write(event.get(), counts.data(), 7));
    notes.result("read of an event", c.read(event.get(), counts.data(), sizeof(counts)));
    notes.note("count", static_cast<long>(counts[0]));
    const later adds([&] { annulet::test::add_to_eventfd(event.get()); });
    notes.result("read of an event", c.read(event.get(), counts.data(), sizeof(counts)));
  });
}
