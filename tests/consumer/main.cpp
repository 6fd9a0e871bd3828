// What a user's first program looks like. The projects beside it each find annulet in another way;
// package_test.py builds them.
#include <array>
#include <chrono>
#include <cstdio>
#include <string_view>

#include <sys/socket.h>

#include <annulet/hub/hub.hpp>
#include <annulet/hub/io.hpp>
#include <annulet/runtime/cancellation.hpp>
#include <annulet/runtime/event.hpp>
#include <annulet/runtime/fiber.hpp>
#include <annulet/selector/selector.hpp>

using namespace std::chrono_literals;

int main() {
  annulet::hub hub;
  const annulet::timeout all_of_it(30s);
  int ends[2];
  if (socketpair(AF_UNIX, SOCK_STREAM, 0, ends) != 0) {
    return 1;
  }
  auto here = annulet::descriptor::adopt(ends[0]);
  auto there = annulet::descriptor::adopt(ends[1]);

  auto echo = annulet::spawn([&] {
    annulet::selector selector;
    selector.register_(there, annulet::io_event::read);
    const auto ready = selector.select(10s);
    std::array<char, 16> text;
    const auto size = there.recv(text);
    there.write_all({text.data(), size});
    return ready.size();
  });

  annulet::event nothing;
  nothing.wait(0s);
  annulet::this_fiber::yield();  // now the other fiber is parked in select
  constexpr std::string_view hello = "hello";
  annulet::write_all(here, hello, 10s);
  std::array<char, hello.size()> answer;
  const auto size = annulet::read_exactly(here, answer, 10s);  // parks until it has answered
  std::printf("%zu ready\n%.*s\n", echo.get(), static_cast<int>(size), answer.data());
}
