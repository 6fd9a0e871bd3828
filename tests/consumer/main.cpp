// What a user's first program looks like: built by package_test.py against an installed copy, with nothing
// but pkg-config to find it.
#include <chrono>
#include <cstdio>
#include <string_view>

#include <unistd.h>

#include <annulet/hub/hub.hpp>
#include <annulet/runtime/fiber.hpp>
#include <annulet/selector/selector.hpp>

int main() {
  annulet::hub hub;
  int ends[2];
  if (pipe(ends) != 0) {
    return 1;
  }

  auto greeting = annulet::spawn([&] {
    annulet::selector selector;
    selector.register_(ends[0], annulet::io_event::read);
    const auto ready = selector.select(std::chrono::seconds(10));
    std::printf("%zu ready\n", ready.size());
    for (const auto& [key, events] : ready) {
      char text[16];
      const auto size = read(key->fd, text, sizeof text);
      std::printf("%.*s\n", static_cast<int>(size), text);
    }
    return ready.size();
  });

  annulet::this_fiber::yield();  // now the other fiber is parked in select
  constexpr std::string_view hello = "hello";
  if (write(ends[1], hello.data(), hello.size()) < 0) {
    return 1;
  }
  return greeting.get() == 1 ? 0 : 1;
}
