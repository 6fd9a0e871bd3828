// Two that keep each other busy for ever leave the hub no wait: what a third asks of the kernel is handed
// over all the same, in each mode that the ring can have.
#include <annulet/hub/close.hpp>
#include <annulet/hub/io.hpp>
#include <annulet/selector/selector.hpp>

#include "support/io_calls.hpp"

#include <doctest/doctest.h>

#include <array>
#include <string_view>
#include <utility>
#include <vector>

#include <sys/socket.h>
#include <sys/un.h>

using namespace annulet::test;
using annulet::hub;
using annulet::ring_mode;
using annulet::spawn;
namespace this_fiber = annulet::this_fiber;
using namespace std::string_view_literals;

namespace {

void play(const annulet::descriptor& ball) {
  std::array<char, 8> text;
  while (ball.recv(text) != 0) {
    (void)ball.send("x"sv);
  }
}

// Requests that are done within their submission: each accept finds a connection already.
void greet_oneself(const bool& over) {
  const descriptor listener(require_ok(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0), "socket"));
  sockaddr_un where{};
  socklen_t size = sizeof(where);
  auto* const address = reinterpret_cast<sockaddr*>(&where);
  where.sun_family = AF_UNIX;
  require_ok(::bind(listener.get(), address, sizeof(where.sun_family)), "bind");  // the kernel finds a name
  require_ok(::listen(listener.get(), 8), "listen");
  require_ok(::getsockname(listener.get(), address, &size), "getsockname");
  while (!over) {
    const descriptor guest(require_ok(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0), "socket"));
    require_ok(::connect(guest.get(), address, size), "connect");
    (void)annulet::accept(listener.get());
  }
}

std::vector<annulet::hub_options> all_ring_modes() {
  std::vector<annulet::hub_options> all;
  for (const auto mode :
       {ring_mode::defer_taskrun, ring_mode::coop_taskrun, ring_mode::submit_all, ring_mode::plain}) {
    all.emplace_back().mode = mode;
  }
  return all;
}

std::size_t count_read(int fd) {
  std::array<char, 8> text;
  return annulet::read(fd, text);
}

}  // namespace

TEST_CASE("two that play ping-pong starve nobody who waits for a pipe or a terminal") {
  for (const auto& options : all_ring_modes()) {
    CAPTURE(static_cast<int>(options.mode));
    const hub home(options);
    auto [mine, peer] = make_socket_pair();
    const auto left = annulet::descriptor::adopt(mine.release());
    const auto right = annulet::descriptor::adopt(peer.release());
    const auto ends = make_pipe();
    const auto [master, slave] = make_pty();
    auto first = spawn([&] { play(left); });
    auto second = spawn([&] { play(right); });
    (void)left.send("x"sv);
    this_fiber::sleep_for(2ms);

    auto of_pipe = spawn(&count_read, ends.reader.get());
    auto of_terminal = spawn(&count_read, slave.get());
    this_fiber::sleep_for(2ms);
    write_text(ends.writer.get(), "hello");
    write_text(master.get(), "hello\n");
    CHECK(of_pipe.join(limit / 4));
    CHECK(of_terminal.join(limit / 4));
    CHECK_FALSE(first.done());
    CHECK_FALSE(second.done());
    for (auto* const player : {&first, &second}) {
      player->kill();
    }
    for (auto* const reader : {&of_pipe, &of_terminal}) {
      reader->kill();
      reader->join();
    }
  }
}

TEST_CASE("requests that are done as soon as they are submitted, again and again, starve nobody") {
  for (const auto& options : all_ring_modes()) {
    CAPTURE(static_cast<int>(options.mode));
    const hub home(options);
    const auto ends = make_pipe();
    auto reader = spawn_parked([&] { return count_read(ends.reader.get()); });
    this_fiber::sleep_for(2ms);
    bool over = false;
    auto first = spawn_parked([&] { greet_oneself(over); });
    // This submits the first one's request, which is done before anybody waits: from then on each wait finds
    // one that is.
    const auto source = make_eventfd();
    auto target = make_eventfd();
    annulet::dup2(source.get(), target.get());
    auto second = spawn_parked([&] { greet_oneself(over); });
    this_fiber::sleep_for(2ms);
    write_text(ends.writer.get(), "x");
    CHECK(reader.join(limit / 4));
    over = true;
    first.join();
    second.join();
    reader.kill();
    reader.join();
  }
}

TEST_CASE("events that nobody waits for hold up nobody who does, beside fibers that are always ready") {
  const hub home;
  annulet::selector unasked;
  std::vector<socket_pair> crowd;
  for (int i = 0; i < 200; ++i) {
    unasked.register_(crowd.emplace_back(make_socket_pair()).first.get(), annulet::io_event::read);
  }
  const auto ends = make_pipe();
  auto reader = spawn_parked([&] { return count_read(ends.reader.get()); });
  this_fiber::sleep_for(2ms);
  for (const auto& pair : crowd) {
    write_text(pair.second.get(), "x");
  }
  write_text(ends.writer.get(), "x");
  bool over = false;
  auto busy = spawn([&] {
    while (!over) {
      this_fiber::yield();
    }
  });
  int turns = 0;  // two switches each
  while (!reader.done() && turns < 1000) {
    this_fiber::yield();
    ++turns;
  }
  CHECK(turns <= 40);  // there is a look every 64 switches
  over = true;
  busy.join();
}
