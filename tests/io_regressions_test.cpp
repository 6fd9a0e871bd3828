// What once went wrong in the calls on descriptors: numbers that are closed and given out anew while a call
// is about to begin, empty transfers in the middle of a queue, deadlines that nobody looked at.
#include <annulet/hub/io.hpp>
#include <annulet/selector/selector.hpp>

#include "support/io_calls.hpp"

#include <doctest/doctest.h>

#include <array>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include <poll.h>

using namespace annulet::test;
using annulet::const_buffer;
using annulet::hub;
using annulet::mutable_buffer;
using annulet::spawn;
namespace this_fiber = annulet::this_fiber;

namespace {

using steady = std::chrono::steady_clock;

// As many calls that find something as a fiber makes before it lets others run, less one.
void use_up_turns(int fd) {
  char byte = 0;
  for (int i = 0; i < 63; ++i) {
    REQUIRE(annulet::recv(fd, mutable_buffer(&byte, 1)) == 1);
  }
}

// A descriptor whose watch is armed, and of which it is known that there is nothing.
annulet::descriptor known_to_be_empty(descriptor socket, int peer) {
  auto file = adopt(std::move(socket));
  char byte = 0;
  auto first = spawn_parked([&] { CHECK(file.recv(mutable_buffer(&byte, 1)) == 1); });
  write_text(peer, "x");
  first.get();
  REQUIRE_FALSE(file.try_recv(mutable_buffer(&byte, 1)));
  return file;
}

// The number is given out anew, for another file.
void reuse(int number, int file) {
  REQUIRE(require_ok(::fcntl(file, F_DUPFD_CLOEXEC, number), "fcntl F_DUPFD_CLOEXEC") == number);
}

template <class Call>
void takes_no_byte_of_the_next_owner(Call&& call) {
  const hub home;
  auto old = make_socket_pair(), fresh = make_socket_pair();
  const std::string enough(100, 'A');
  write_text(old.second.get(), enough);
  const int number = old.first.get();
  annulet::descriptor file = adopt(std::move(old.first));
  std::string got;
  auto reader = spawn([&] {
    for (char byte = 0;; got += byte) {
      call(file, mutable_buffer(&byte, 1));
    }
  });
  annulet::descriptor next;
  auto closer = spawn([&] {
    file.close();
    reuse(number, fresh.first.get());
    next = annulet::descriptor::adopt(number);
    write_text(fresh.second.get(), "SECRET");
  });
  CHECK(failure_of([&] { reader.get(limit); }).error == EBADF);
  closer.get();
  CHECK(got == std::string(got.size(), 'A'));
  CHECK(read_some(next) == "SECRET");
}

}  // namespace

TEST_CASE("a call that lets others run first takes no byte of who is given its number meanwhile") {
  takes_no_byte_of_the_next_owner(
      [](const annulet::descriptor& file, mutable_buffer into) { (void)file.recv(into); });
  takes_no_byte_of_the_next_owner(
      [](const annulet::descriptor& file, mutable_buffer into) { (void)file.read_exactly(into); });
}

TEST_CASE("a call that lets others run first says EBADF where its number is closed meanwhile") {
  in_both_forms([](form way) {
    auto busy = make_socket_pair();
    write_text(busy.second.get(), std::string(1000, 'x'));
    auto [mine, peer] = make_socket_pair();
    const int number = mine.get();
    subject file(std::move(mine), way);
    std::string text(8, '\0');
    auto caller = spawn([&] {
      use_up_turns(busy.first.get());
      (void)annulet::read(file, text, limit);
    });
    auto fresh = make_socket_pair();
    auto closer = spawn([&] {
      file.close();
      reuse(number, fresh.first.get());
      write_text(fresh.second.get(), "SECRET");
    });
    const auto failed = failure_of([&] { caller.get(limit); });
    CHECK(failed.error == EBADF);
    CHECK(failed.names("read", number));
    closer.get();
    CHECK(read_some(number) == "SECRET");
    annulet::close(number);
  });
}

TEST_CASE("a close that waits for a request is not joined by calls that had only just begun") {
  const hub home;
  auto busy = make_socket_pair();
  write_text(busy.second.get(), std::string(1000, 'x'));
  auto [master, slave] = make_pty();
  auto file = adopt(std::move(slave));
  std::array<char, 8> text, more;
  auto waiting = spawn_parked([&] { (void)file.read(text); });
  auto late = spawn([&] {
    use_up_turns(busy.first.get());
    (void)file.read(more);
  });
  auto closer = spawn([&] { file.close(); });
  CHECK(closer.join(limit));
  CHECK(failure_of([&] { waiting.get(limit); }).error == EBADF);
  CHECK(failure_of([&] { late.get(limit); }).error == EBADF);
}

TEST_CASE("who receives nothing waits for his turn like others, and nobody misses what comes") {
  const hub home;
  auto [mine, peer] = make_tcp_pair();
  auto file = known_to_be_empty(std::move(mine), peer.get());
  std::array<char, 4> four;
  std::array<char, 64> more;
  auto first = spawn_parked([&] { CHECK(file.recv(four, limit) == 4); });
  auto empty = spawn_parked([&] { CHECK(file.recv(mutable_buffer(), limit) == 0); });
  auto last = spawn_parked([&] { CHECK(file.recv(more, limit) == 6); });
  write_text(peer.get(), "0123456789");
  const auto begin = steady::now();
  first.get();
  empty.get();
  last.get();
  CHECK(steady::now() - begin < limit / 2);
}

TEST_CASE("who receives nothing of a datagram socket does not take what another came first for") {
  const hub home;
  auto [mine, peer] = make_socket_pair(SOCK_DGRAM);
  std::string first(16, '\0');
  auto waiting = spawn_parked([&] { first.resize(annulet::recv(mine.get(), first, limit)); });
  write_text(peer.get(), "first");
  auto empty = spawn([&] { return annulet::recv(mine.get(), mutable_buffer(), limit); });
  this_fiber::yield();
  write_text(peer.get(), "second");
  waiting.get();
  CHECK(first == "first");
  CHECK(empty.get() == 0);
}

TEST_CASE(
    "dup2 leaves to the new file what was not asked of it: its connections, and its being unconnected") {
  const hub home;
  auto old = make_tcp_listener(), fresh = make_tcp_listener();
  for (const int listener : {old.socket.get(), fresh.socket.get()}) {
    require_ok(::fcntl(listener, F_SETFL, 0), "fcntl F_SETFL");
  }
  const descriptor client(require_ok(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), "socket"));
  const auto address = loopback(fresh.port);
  require_ok(::connect(client.get(), reinterpret_cast<const sockaddr*>(&address), sizeof(address)),
             "connect");
  auto caller = spawn_parked([&] { (void)annulet::accept(old.socket.get(), limit); });
  annulet::dup2(fresh.socket.get(), old.socket.get());
  CHECK(failure_of([&] { caller.get(); }).error == EBADF);
  require_ok(::fcntl(fresh.socket.get(), F_SETFL, O_NONBLOCK), "fcntl F_SETFL");
  const descriptor there(::accept4(fresh.socket.get(), nullptr, nullptr, SOCK_CLOEXEC));
  CHECK(there.get() >= 0);
}

TEST_CASE("a write_all or read_exactly that waits a thousand times is as quick as as many calls") {
  const hub home;
  const auto time_of = [](auto&& body) {
    const auto begin = steady::now();
    body();
    return steady::now() - begin;
  };
  const auto ends = make_blocking_pipe();
  const std::string all(std::size_t{8} << 20, 'x');  // some thousand times what the pipe holds at once
  std::string room(4096, '\0');
  const auto read_all = [&] {
    for (std::size_t got = 0; got < all.size();) {
      got += annulet::read(ends.reader.get(), room);
    }
  };
  // Some 128 waits in which each that was held to be in vain would cost a millisecond, in every round. What
  // other programs take of the time is not in every round.
  auto least_more = steady::duration::max();
  for (int round = 0; round < 10 && least_more >= 60ms; ++round) {
    const auto in_calls = time_of([&] {
      auto writer = spawn([&] {
        for (const_buffer rest = all; rest.size() > 0;) {
          rest = rest.without_first(annulet::write(ends.writer.get(), rest));
        }
      });
      read_all();
      writer.get();
    });
    const auto at_once = time_of([&] {
      auto writer = spawn([&] { annulet::write_all(ends.writer.get(), all); });
      read_all();
      writer.get();
    });
    least_more = std::min(least_more, at_once - in_calls);
  }
  CHECK(least_more < 60ms);
}

TEST_CASE("the deadline of write_all and read_exactly comes, however lively the peer is") {
  const hub home;
  auto [mine, peer] = make_socket_pair();
  auto reader = spawn([fd = peer.get()] {
    std::string room(1 << 16, '\0');
    while (annulet::recv(fd, room) > 0) {
    }
  });
  const std::string much(std::size_t{1} << 30, 'x');
  std::size_t done = 0;
  const auto begin = steady::now();
  CHECK(passes_deadline([&] { annulet::write_all(mine.get(), much, 20ms, &done); }));
  CHECK(steady::now() - begin >= 20ms);
  CHECK(done > 0);
  CHECK(done < much.size());
  const std::size_t before = done;
  // In the past: one look, and what that has moved is said.
  CHECK(passes_deadline([&] { annulet::write_all(mine.get(), much, 0ms, &done); }));
  CHECK(done < before + much.size());
  require_ok(::shutdown(mine.get(), SHUT_WR), "shutdown");
  reader.get();
}

TEST_CASE("a descriptor that outlives its hub closes nothing when its number was closed before") {
  std::optional<annulet::descriptor> file;
  auto pair = make_socket_pair();
  const int number = pair.first.release();
  {
    const hub home;
    file = annulet::descriptor::adopt(number);
    annulet::close(number);
  }
  reuse(number, pair.second.get());
  file.reset();
  CHECK(is_open(number));
  ::close(number);
}

TEST_CASE("an error that has nothing to do with the stream is told at once, though nothing is there") {
  const hub home;
  const auto at_once = [](auto&& call, int error) {
    const auto begin = steady::now();
    CHECK(failure_of(call).error == error);
    CHECK(steady::now() - begin < limit / 2);
  };
  std::array<char, 8> room;
  auto ends = make_pipe();
  auto reader = adopt(std::move(ends.reader));
  REQUIRE_FALSE(reader.try_read(room));
  at_once([&] { (void)reader.recv(room, limit); }, ENOTSOCK);
  at_once([&] { (void)reader.accept(limit); }, ENOTSOCK);

  auto [mine, peer] = make_tcp_pair();
  auto conn = adopt(std::move(mine));
  REQUIRE_FALSE(conn.try_recv(room));
  at_once([&] { (void)conn.accept(limit); }, EINVAL);
  const std::string block(1 << 16, 'x');
  while (conn.try_send(block)) {
  }
  at_once([&] { conn.connect(annulet::socket_address(loopback(9)), limit); }, EISCONN);

  auto [sender, receiver] = make_socket_pair(SOCK_DGRAM);
  auto datagrams = adopt(std::move(sender));
  while (datagrams.try_send("x"sv)) {
  }
  at_once([&] { (void)datagrams.send(std::string(1 << 20, 'x'), limit); }, EMSGSIZE);
}

TEST_CASE("of a plain number nothing is remembered, also where a descriptor owned its last file") {
  const hub home;
  auto [mine, peer] = make_tcp_pair();
  const int number = mine.get();
  auto file = known_to_be_empty(std::move(mine), peer.get());
  auto [next, next_peer] = make_tcp_pair();
  require_ok(::dup2(next.get(), number), "dup2");  // behind the hub's back
  write_text(next_peer.get(), "hello");
  const auto begin = steady::now();
  CHECK(read_some(number, limit) == "hello");
  CHECK(steady::now() - begin < limit / 2);
  auto ends = make_pipe();
  require_ok(::dup2(ends.reader.get(), number), "dup2");
  write_text(ends.writer.get(), "y");
  CHECK(read_some(number, limit) == "y");
  file.close();
}

TEST_CASE("a deadline of zero looks once at a blocking tty, truly") {
  const hub home;
  const auto [master, slave] = make_pty();
  std::array<char, 8> room;
  for (int i = 0; i < 200; ++i) {
    CHECK_FALSE(annulet::try_read(slave.get(), room));
    write_text(master.get(), "line");
    CHECK(annulet::read(slave.get(), room, 0ms) == 4);
    write_text(master.get(), "line");
    CHECK(annulet::try_read(slave.get(), room) == 4);
  }
}

TEST_CASE("a close that lingers stops its fiber and no other, and the number is free at once") {
  const hub home;
  auto [mine, peer] = make_tcp_pair();
  const int number = mine.get();
  const linger two_seconds{1, 2};
  require_ok(::setsockopt(number, SOL_SOCKET, SO_LINGER, &two_seconds, sizeof(two_seconds)), "SO_LINGER");
  auto conn = adopt(std::move(mine));
  const std::string block(1 << 16, 'x');
  while (conn.try_send(block)) {
  }
  auto closer = spawn([&] { conn.close(); });
  auto longest = steady::duration::zero();
  for (auto last = steady::now(); !closer.done();) {
    this_fiber::sleep_for(1ms);
    CHECK_FALSE(is_open(number));
    longest = std::max(longest, steady::now() - std::exchange(last, steady::now()));
    if (drain(peer.get()); longest > 1s) {
      break;
    }
  }
  closer.get();
  CHECK(longest < 1s);
}

TEST_CASE("urgent data is sent when there is room, in its turn") {
  const hub home;
  const auto [mine, peer] = make_tcp_pair();
  fill_for_good(mine.get(), peer.get());
  CHECK(passes_deadline(
      [&] { (void)annulet::send(mine.get(), "!"sv, annulet::message_flags(MSG_OOB), 20ms); }));
  auto sender =
      spawn_parked([&] { return annulet::send(mine.get(), "!"sv, annulet::message_flags(MSG_OOB), limit); });
  while (!sender.done()) {
    drain(peer.get());
    this_fiber::sleep_for(1ms);
  }
  CHECK(sender.get() == 1);
}

TEST_CASE("a selector does not take a number that is being closed, and the file is let go in time") {
  const hub home;
  auto listener = make_tcp_listener();
  require_ok(::fcntl(listener.socket.get(), F_SETFL, 0), "fcntl F_SETFL");
  const int number = listener.socket.get();
  auto caller = spawn_parked([&] { (void)annulet::accept(number); });
  auto closer = spawn([&] { annulet::close(listener.socket.release()); });
  annulet::selector selector;
  std::string refusal;
  auto other = spawn([&] {
    while (!closer.done() && refusal.empty()) {
      try {
        selector.register_(number, annulet::io_event::read);
        selector.unregister(number);
        this_fiber::yield();
      } catch (const std::invalid_argument& e) {
        refusal = e.what();
      }
    }
  });
  closer.get();
  other.get();
  CHECK(failure_of([&] { caller.get(); }).error == EBADF);
  CHECK(refusal.find("is not open") != std::string::npos);
  CHECK(make_tcp_listener(listener.port).port == listener.port);
}

TEST_CASE("an address that was to be filled in is empty where the call throws") {
  const hub home;
  auto [mine, peer] = make_socket_pair(SOCK_DGRAM);
  annulet::socket_address sender(loopback(1));
  std::array<char, 8> room;
  CHECK(passes_deadline([&] { (void)annulet::recvfrom(mine.get(), room, sender, {}, 1ms); }));
  CHECK(sender.family() == AF_UNSPEC);
  const auto listener = make_tcp_listener();
  annulet::socket_address client(loopback(1));
  CHECK(passes_deadline([&] { (void)annulet::accept(listener.socket.get(), client, 1ms); }));
  CHECK(client.family() == AF_UNSPEC);
}
