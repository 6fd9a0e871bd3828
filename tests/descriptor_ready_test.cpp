// What an annulet::descriptor remembers of its readiness: how many system calls that saves, that it is never
// wrong about it, and that selectors may watch the same file.
#include <annulet/hub/descriptor.hpp>

#include "support/engine.hpp"
#include "support/io_calls.hpp"
#include "support/syscalls.hpp"

#include <doctest/doctest.h>

#include <array>
#include <cstdint>
#include <functional>
#include <string>
#include <utility>

using namespace annulet::test;
using annulet::hub;
using annulet::io_event;
using annulet::mutable_buffer;
using annulet::selector;
using annulet::spawn;
namespace this_fiber = annulet::this_fiber;

namespace {

constexpr std::uint64_t receives = SYS_recvfrom, sends = SYS_sendto;
constexpr unsigned times = 100;

std::array<char, 4096> room{};

// Writes on the other side when it is told to, and then lets the reader be parked once more.
void write_then_let_run(int fd, std::string_view text) {
  write_text(fd, text);
  for (int i = 0; i < 4; ++i) {
    this_fiber::yield();
  }
}

// Its reader has waited once, so that the request is armed, and then looks away: what the peer does meanwhile
// has been heard of before the next call.
annulet::descriptor armed(descriptor mine, int peer) {
  annulet::descriptor file = adopt(std::move(mine));
  auto first = spawn_parked([&] { return file.read(room, limit); });
  write_text(peer, "x");
  REQUIRE(first.get() == 1);
  return file;
}

void let_hub_hear() { this_fiber::sleep_for(5ms); }

}  // namespace

TEST_CASE("a receive after its event is one call, and waiting costs the park's enter alone") {
  auto parts = count_syscalls([](auto mark) {
    hub home;
    auto [mine, peer] = make_tcp_pair();
    annulet::descriptor file = armed(std::move(mine), peer.get());
    auto writer = spawn([fd = peer.get()] {
      for (;;) {
        this_fiber::sleep_for(200us);
        write_text(fd, "abc");
      }
    });
    for (unsigned i = 0; i < 3; ++i) {
      (void)file.recv(room);
    }
    mark();
    for (unsigned i = 0; i < times; ++i) {
      (void)file.recv(room);
    }
    mark();
    writer.kill();
    writer.join();
  });
  REQUIRE(parts.size() == 1);
  CHECK(parts[0][receives] == times);
  const std::uint64_t waits = wait_call();
  CHECK(parts[0][waits] <= 2 * times + 2);  // of the writer's sleeps, and of the parks
  CHECK(total(parts[0]) == parts[0][receives] + parts[0][waits] + times);
}

TEST_CASE("what is there already is received by one call and no enter, and a send is one call") {
  auto parts = count_syscalls([](auto mark) {
    hub home;
    auto [mine, peer] = make_tcp_pair();
    annulet::descriptor file = armed(std::move(mine), peer.get());
    write_text(peer.get(), std::string(4 * times, 'x'));
    let_hub_hear();
    mark();
    for (unsigned i = 0; i < times; ++i) {
      (void)file.recv(mutable_buffer(room.data(), 4));
    }
    mark();
    for (unsigned i = 0; i < times; ++i) {
      (void)file.send("abc"sv);
    }
    mark();
  });
  REQUIRE(parts.size() == 2);
  CHECK(parts[0][receives] == times);
  const std::uint64_t waits = wait_call();
  CHECK(parts[0][waits] <= times / 16);  // others have their turn now and then
  CHECK(total(parts[0]) == parts[0][receives] + parts[0][waits]);
  CHECK(parts[1][sends] == times);
  CHECK(parts[1][waits] <= times / 16);
  CHECK(total(parts[1]) == parts[1][sends] + parts[1][waits]);
}

TEST_CASE("after a short read of a stream nothing is asked in vain") {
  auto parts = count_syscalls([](auto mark) {
    hub home;
    auto [mine, peer] = make_tcp_pair();
    annulet::descriptor file = armed(std::move(mine), peer.get());
    (void)failure_of([&] { return file.recv(room, 1ms); });
    mark();
    for (unsigned i = 0; i < times; ++i) {
      auto waiting = spawn_parked([&] { return file.recv(room); });
      write_then_let_run(peer.get(), "abc");
      (void)waiting.get();
    }
    mark();
  });
  REQUIRE(parts.size() == 1);
  CHECK(parts[0][receives] == times);
}

TEST_CASE("by a plain number a short read before urgent data is not the end of what is there") {
  hub home;
  const auto [mine, peer] = make_tcp_pair();
  write_text(peer.get(), "abc");
  require_ok(static_cast<int>(::send(peer.get(), "!", 1, MSG_OOB)), "send");
  write_text(peer.get(), "def");
  let_hub_hear();
  CHECK(annulet::recv(mine.get(), room, limit) == 3);
  auto rest = spawn([&, fd = mine.get()] { return annulet::recv(fd, room); });
  REQUIRE(rest.join(limit));
  CHECK(rest.get() == 3);
}

TEST_CASE("urgent data can be had after a short read") {
  hub home;
  auto [mine, peer] = make_tcp_pair();
  annulet::descriptor file = armed(std::move(mine), peer.get());
  write_text(peer.get(), "abc");
  require_ok(static_cast<int>(::send(peer.get(), "!", 1, MSG_OOB)), "send");
  let_hub_hear();
  CHECK(file.recv(room, limit) == 3);
  auto urgent = spawn([&] { return file.recv(room, annulet::message_flags(MSG_OOB)); });
  REQUIRE(urgent.join(limit));
  CHECK(urgent.get() == 1);
  CHECK(room[0] == '!');
}

TEST_CASE("a packet of a pipe in packet mode is not the end of what is there") {
  hub home;
  auto [reader, writer] = make_pipe(O_NONBLOCK | O_CLOEXEC | O_DIRECT);
  annulet::descriptor file = armed(std::move(reader), writer.get());
  write_text(writer.get(), "abc");
  write_text(writer.get(), "de");
  let_hub_hear();
  CHECK(file.read(room, limit) == 3);
  auto rest = spawn([&] { return file.read(room); });
  REQUIRE(rest.join(limit));
  CHECK(rest.get() == 2);
}

TEST_CASE("data and the end that come together are both received, whatever was read first") {
  hub home;
  for (auto make : {+[] { return make_tcp_pair(); }, +[] { return make_socket_pair(); },
                    +[] {
                      auto [reader, writer] = make_pipe();
                      return socket_pair{std::move(reader), std::move(writer)};
                    }}) {
    auto [mine, peer] = make();
    annulet::descriptor file = armed(std::move(mine), peer.get());
    write_text(peer.get(), "abc");
    peer.close();
    let_hub_hear();
    CHECK(file.read(room, limit) == 3);
    for (int again = 0; again < 3; ++again) {
      auto end = spawn([&] { return file.read(room); });
      REQUIRE(end.join(limit));
      CHECK(end.get() == 0);
    }
  }
}

TEST_CASE("what somebody else has consumed is waited for anew, and what he has left is found") {
  hub home;
  auto [mine, peer] = make_tcp_pair();
  annulet::descriptor file = armed(std::move(mine), peer.get());
  const descriptor copy(::dup(file.fileno()));
  for (int round = 0; round < 5; ++round) {
    write_text(peer.get(), "abc");
    let_hub_hear();
    CHECK(try_read(copy.get()) == 3);
    auto waiting = spawn_parked([&] { return file.recv(room, limit); });
    CHECK_FALSE(waiting.done());
    write_text(peer.get(), "defg");
    CHECK(waiting.get() == 4);
    write_text(peer.get(), "hi");
    CHECK(file.recv(mutable_buffer(room.data(), 1), limit) == 1);
    CHECK(try_read(copy.get()) == 1);
  }
}

TEST_CASE("a selector and the calls of fibers may use one descriptor at the same time") {
  hub home;
  auto [mine, peer] = make_tcp_pair();
  annulet::descriptor file = armed(std::move(mine), peer.get());
  const int number = file.fileno();
  selector sel;
  sel.register_(file, io_event::read);
  for (int round = 0; round < 5; ++round) {
    CHECK(look(sel).empty());
    auto selecting = park_in_select(sel);
    auto receiving = spawn_parked([&] { return file.recv(mutable_buffer(room.data(), 1), limit); });
    write_text(peer.get(), "abc");
    CHECK(receiving.get() == 1);
    CHECK(selecting.get() == event_map{{number, io_event::read}});
    CHECK(look(sel) == event_map{{number, io_event::read}});
    CHECK(file.recv(room, limit) == 2);
    CHECK(look(sel).empty());
  }
  sel.modify(file, both);
  fill_for_good(number, peer.get());
  auto selecting = park_in_select(sel);
  auto sending = spawn_parked([&] { return file.send("x"sv, limit); });
  CHECK_FALSE(sending.done());
  while (!sending.done() || !selecting.done()) {
    drain(peer.get());
    this_fiber::sleep_for(1ms);
  }
  CHECK(sending.get() == 1);
  CHECK(selecting.get() == event_map{{number, io_event::write}});
  sel.modify(file, io_event::read);
  auto closed = park_in_select(sel);
  file.close();
  CHECK(closed.get() == event_map{{number, io_event::read}});
  while (drain(peer.get())) {  // the end comes behind what was still to be sent
    this_fiber::sleep_for(1ms);
  }
  sel.unregister(number);
}
