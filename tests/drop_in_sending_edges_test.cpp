// What sending calls do where few programs look, each scene plainly and as a drop-in.

#include "support/full_ends.hpp"
#include "support/rights.hpp"
#include "support/texts.hpp"
#include "support/two_ends.hpp"
#include "support/while_waiting.hpp"

#include <doctest/doctest.h>

#include <array>
#include <atomic>
#include <chrono>
#include <cstring>
#include <fstream>
#include <map>
#include <string>
#include <thread>
#include <vector>

#include <linux/errqueue.h>
#include <linux/net_tstamp.h>

using namespace std::chrono_literals;
using annulet::test::descriptor;
using annulet::test::ends;
using annulet::test::fill_blocking;
using annulet::test::io_calls_of;
using annulet::test::kind;
using annulet::test::later;
using annulet::test::make_ends;
using annulet::test::note_wait;
using annulet::test::once_asleep;
using annulet::test::require_ok;
using annulet::test::same_io_in_both;
using annulet::test::scene_notes;
using annulet::test::set_limit;
using annulet::test::set_nonblocking;
using annulet::test::write_text;

namespace {

// Reads for as long as it lives, with pauses.
class slow_reader {
 public:
  slow_reader(int fd, std::size_t at_once, std::chrono::milliseconds pause)
      : thread_([this, fd, at_once, pause] {
          std::vector<char> bytes(at_once);
          while (!over_) {
            (void)::recv(fd, bytes.data(), bytes.size(), MSG_DONTWAIT);
            std::this_thread::sleep_for(pause);
          }
        }) {}
  ~slow_reader() {
    over_ = true;
    thread_.join();
  }
  slow_reader(const slow_reader&) = delete;
  slow_reader& operator=(const slow_reader&) = delete;

 private:
  std::atomic<bool> over_{false};
  std::thread thread_;
};

template <class Value>
void set_option(int fd, int option, Value value) {
  require_ok(::setsockopt(fd, SOL_SOCKET, option, &value, sizeof(value)), "setsockopt");
}

}  // namespace

TEST_CASE("what the kernel tells of the sending does not cut it short") {
  for (const bool zero_copy : {false, true}) {
    CAPTURE(zero_copy);
    same_io_in_both([&](const io_calls_of& c, scene_notes& notes) {
      const ends both = make_ends(kind::tcp);
      const int fd = both.mine.get();
      set_option(fd, SO_SNDBUF, 32768);
      if (zero_copy) {
        set_option(fd, SO_ZEROCOPY, 1);
      } else {
        set_option(fd, SO_TIMESTAMPING,
                   SOF_TIMESTAMPING_TX_SCHED | SOF_TIMESTAMPING_TX_SOFTWARE | SOF_TIMESTAMPING_SOFTWARE |
                       SOF_TIMESTAMPING_OPT_TSONLY);
      }
      write_text(fd, "first");
      const slow_reader reader(both.peer.get(), 65536, 0ms);
      const std::vector<char> much(200'000);
      notes.result("send", c.send(fd, much.data(), much.size(), zero_copy ? MSG_ZEROCOPY : 0));
      notes.result("write", c.write(fd, much.data(), much.size()));
      iovec part{const_cast<char*>(much.data()), much.size()};
      msghdr message{};
      message.msg_iov = &part;
      message.msg_iovlen = 1;
      notes.result("sendmsg", c.sendmsg(fd, &message, 0));
      pollfd told{fd, 0, 0};
      notes.result("told", ::poll(&told, 1, 0));
    });
  }
}

TEST_CASE("urgent data waits for room, too") {
  for (const kind what : {kind::unix_stream, kind::tcp}) {
    CAPTURE(static_cast<int>(what));
    same_io_in_both([&](const io_calls_of& c, scene_notes& notes) {
      ends both = make_ends(what);
      fill_blocking(both, what);
      set_nonblocking(both.peer.get());
      notes.result("at once", c.send(both.mine.get(), "!", 1, MSG_OOB | MSG_DONTWAIT));
      {
        const once_asleep reads([&] { annulet::test::drain(both.peer.get()); });
        notes.result("send", c.send(both.mine.get(), "!", 1, MSG_OOB));
      }
    });
  }
}

TEST_CASE("the time for sending begins anew with each part that a Unix socket takes, and not on TCP") {
  for (const kind what : {kind::unix_stream, kind::tcp}) {
    CAPTURE(static_cast<int>(what));
    same_io_in_both([&](const io_calls_of& c, scene_notes& notes) {
      ends both = make_ends(what);
      const bool on_tcp = what == kind::tcp;
      if (on_tcp) {
        set_option(both.mine.get(), SO_SNDBUF, 16384);
        set_option(both.peer.get(), SO_RCVBUF, 16384);
      }
      // All of it takes longer than the limit, and each part far less, also where the reader is kept waiting.
      set_limit(both.mine.get(), SO_SNDTIMEO, on_tcp ? 50ms : 900ms);
      const std::vector<char> much(on_tcp ? 16 << 20 : 3 << 19);
      const slow_reader reader(both.peer.get(), on_tcp ? 16384 : 65536, on_tcp ? 5ms : 65ms);
      const auto wrote = c.write(both.mine.get(), much.data(), much.size());
      notes.note("all of it", wrote == static_cast<ssize_t>(much.size()));
      notes.note("some of it", wrote > 0);
    });
  }
}

// Linux counts it by its own ticks, and may be early by one of them.
TEST_CASE("the time for sending is over where nobody reads") {
  for (const kind what : {kind::unix_stream, kind::unix_datagram, kind::tcp}) {
    CAPTURE(static_cast<int>(what));
    same_io_in_both([&](const io_calls_of& c, scene_notes& notes) {
      ends both = make_ends(what);
      const int fd = both.mine.get();
      fill_blocking(both, what);
      set_limit(fd, SO_SNDTIMEO, 20ms);
      const char byte = 'x';
      const iovec parts[2] = {{const_cast<char*>(&byte), 1}, {const_cast<char*>(&byte), 1}};
      note_wait(notes, 10ms, [&] { notes.result("write", c.write(fd, &byte, 1)); });
      note_wait(notes, 10ms, [&] { notes.result("send", c.send(fd, &byte, 1, 0)); });
      note_wait(notes, 10ms, [&] { notes.result("writev", c.writev(fd, parts, 2)); });
      if (what != kind::unix_datagram) {
        note_wait(notes, 10ms, [&] { notes.result("urgent", c.send(fd, &byte, 1, MSG_OOB)); });
      }
      if (what == kind::unix_datagram) {
        note_wait(notes, 10ms, [&] { notes.result("nothing", c.write(fd, &byte, 0)); });
      }
    });
  }
}

TEST_CASE("a connection that begins with data waits to be made") {
  int allowed = 0;
  std::ifstream("/proc/sys/net/ipv4/tcp_fastopen") >> allowed;
  if ((allowed & 1) == 0) {
    MESSAGE("skipped: net.ipv4.tcp_fastopen forbids it");
    return;
  }
  same_io_in_both([](const io_calls_of& c, scene_notes& notes) {
    const auto listener = annulet::test::make_tcp_listener();
    sockaddr_in address = annulet::test::loopback(listener.port);
    auto* const peer = reinterpret_cast<sockaddr*>(&address);
    const std::string text(200'000, 'x');
    iovec part{const_cast<char*>(text.data()), text.size()};
    msghdr message{};
    message.msg_name = peer;
    message.msg_namelen = sizeof(address);
    message.msg_iov = &part;
    message.msg_iovlen = 1;
    for (const int how : {0, 1, 2}) {
      const descriptor mine(require_ok(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), "socket"));
      std::size_t got = 0;
      const later reads([&] {
        pollfd ready{listener.socket.get(), POLLIN, 0};
        require_ok(::poll(&ready, 1, 5000), "poll");
        const descriptor accepted(::accept(listener.socket.get(), nullptr, nullptr));
        for (std::string one; !(one = annulet::test::read_text(accepted.get())).empty(); got += one.size()) {
        }
      });
      const auto send = [&] {
        switch (how) {
          case 0:
            return c.sendto(mine.get(), "hello", 5, MSG_FASTOPEN, peer, sizeof(address));
          case 1:
            return c.sendto(mine.get(), text.data(), text.size(), MSG_FASTOPEN, peer, sizeof(address));
          default:
            return c.sendmsg(mine.get(), &message, MSG_FASTOPEN);
        }
      };
      notes.result("sent", send());
      require_ok(::shutdown(mine.get(), SHUT_WR), "shutdown");
    }
  });
}

TEST_CASE("all parts of a large message come with its credentials") {
  if (::geteuid() != 0) {
    MESSAGE("skipped: only root has others' credentials to send");
    return;
  }
  same_io_in_both([](const io_calls_of& c, scene_notes& notes) {
    const ends both = make_ends(kind::unix_stream);
    set_option(both.peer.get(), SO_PASSCRED, 1);
    std::string much(1 << 20, 'x');
    std::map<unsigned, std::size_t> sent_by;
    {
      const once_asleep reads([&] {
        for (std::size_t got = 0; got < much.size();) {
          alignas(cmsghdr) char control[CMSG_SPACE(sizeof(ucred))]{};
          std::array<char, 50'000> bytes;
          iovec part{bytes.data(), bytes.size()};
          msghdr message{};
          message.msg_iov = &part;
          message.msg_iovlen = 1;
          message.msg_control = control;
          message.msg_controllen = sizeof(control);
          const auto size = static_cast<std::size_t>(
              require_ok(static_cast<int>(::recvmsg(both.peer.get(), &message, 0)), "recvmsg"));
          ucred sender{};
          std::memcpy(&sender, CMSG_DATA(CMSG_FIRSTHDR(&message)), sizeof(sender));
          sent_by[sender.uid] += size;
          got += size;
        }
      });
      alignas(cmsghdr) char control[CMSG_SPACE(sizeof(ucred))]{};
      iovec part{much.data(), much.size()};
      msghdr message{};
      message.msg_iov = &part;
      message.msg_iovlen = 1;
      message.msg_control = control;
      message.msg_controllen = sizeof(control);
      cmsghdr* const head = CMSG_FIRSTHDR(&message);
      head->cmsg_level = SOL_SOCKET;
      head->cmsg_type = SCM_CREDENTIALS;
      head->cmsg_len = CMSG_LEN(sizeof(ucred));
      const ucred other{::getpid(), 1234, 1234};
      std::memcpy(CMSG_DATA(head), &other, sizeof(other));
      notes.result("sendmsg", c.sendmsg(both.mine.get(), &message, 0));
    }
    for (const auto& [user, size] : sent_by) {
      notes.note("user " + std::to_string(user), static_cast<long>(size));
    }
  });
}

TEST_CASE("a large message brings its descriptor once") {
  same_io_in_both([](const io_calls_of& c, scene_notes& notes) {
    const ends both = make_ends(kind::unix_stream);
    const descriptor sent = annulet::test::make_eventfd();
    const std::string much(1 << 20, 'x');
    std::size_t brought = 0;
    {
      const once_asleep reads([&] {
        for (std::size_t got = 0; got < much.size();) {
          alignas(cmsghdr) char control[256];
          std::array<char, 50'000> bytes;
          iovec part{bytes.data(), bytes.size()};
          msghdr message{};
          message.msg_iov = &part;
          message.msg_iovlen = 1;
          message.msg_control = control;
          message.msg_controllen = sizeof(control);
          got += static_cast<std::size_t>(
              require_ok(static_cast<int>(::recvmsg(both.peer.get(), &message, 0)), "recvmsg"));
          brought += annulet::test::descriptors_of(message).size();
        }
      });
      notes.result("sendmsg", annulet::test::with_descriptor(much, sent.get(), [&](const msghdr& message) {
                     return c.sendmsg(both.mine.get(), &message, 0);
                   }));
    }
    notes.note("brought", static_cast<long>(brought));
  });
}
