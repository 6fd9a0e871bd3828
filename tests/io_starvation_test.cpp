// Two that keep each other busy for ever leave the hub no wait: what a third asks of the kernel is handed
// over all the same, in each mode that the ring can have.
#include <annulet/hub/io.hpp>

#include "support/io_calls.hpp"

#include <doctest/doctest.h>

#include <array>
#include <string_view>
#include <utility>

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

std::size_t count_read(int fd) {
  std::array<char, 8> text;
  return annulet::read(fd, text);
}

}  // namespace

TEST_CASE("two that play ping-pong starve nobody who waits for a pipe or a terminal") {
  for (const auto mode :
       {ring_mode::defer_taskrun, ring_mode::coop_taskrun, ring_mode::submit_all, ring_mode::plain}) {
    CAPTURE(static_cast<int>(mode));
    annulet::hub_options options;
    options.mode = mode;
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
