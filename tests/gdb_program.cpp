// What gdb_test.py looks at from outside: fibers that stand still in functions with known names, on two hubs,
// until stdin ends. A third thread has no hub. As an argument, how many more fibers sleep.
#include <annulet/hub/hub.hpp>
#include <annulet/hub/io.hpp>
#include <annulet/runtime/event.hpp>
#include <annulet/runtime/fiber.hpp>
#include <annulet/runtime/mutex.hpp>
#include <annulet/runtime/this_fiber.hpp>

#include <array>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <latch>
#include <mutex>
#include <thread>
#include <vector>

#include <unistd.h>

using annulet::spawn;
using namespace std::chrono_literals;

namespace {

// Something to be done after each wait keeps the caller's frame.
volatile int done = 0;

[[gnu::noinline]] void waits_for_parcel(annulet::event& parcel, int number) {
  parcel.wait();
  done = number;
}

[[gnu::noinline]] void opens_the_door(annulet::event& parcel, int number) {
  waits_for_parcel(parcel, number + 1);
  done = number;
}

[[gnu::noinline]] void wants_the_key(annulet::mutex& key) {
  const std::lock_guard lock(key);
  done = 2;
}

[[gnu::noinline]] void sleeps_long() {
  annulet::this_fiber::sleep_for(1h);
  done = 3;
}

[[gnu::noinline]] void uses_100_kib_once() {
  std::array<volatile char, 100 * 1024> room;
  for (auto& c : room) {
    c = 1;
  }
  done = room[0];
}

[[gnu::noinline]] void listens(int fd) {
  std::array<std::byte, 1> byte{};
  (void)annulet::read(fd, byte);
  done = 4;
}

[[gnu::noinline]] void keeps_its_thread(int fd) {
  char byte = 0;
  while (::read(fd, &byte, 1) > 0) {
  }
  done = 5;
}

// A hub of its own, whose thread stands in a system call with one fiber parked and one that has not begun. It
// has not parked since it last waited.
void other_hub(int fd, std::latch& stands) {
  annulet::hub hub;
  auto sleeper = spawn({.name = "other sleeper"}, [] { sleeps_long(); });
  annulet::this_fiber::sleep_for(100ms);
  auto unborn = spawn({.name = "unborn"}, [] { sleeps_long(); });
  stands.count_down();
  keeps_its_thread(fd);
}

}  // namespace

int main(int argc, char** argv) {
  std::latch stands(1);
  std::array<int, 2> never{};
  if (::pipe(never.data()) != 0) {
    return 1;
  }
  std::thread other([&] { other_hub(never[0], stands); });
  std::thread hubless([&] { keeps_its_thread(never[0]); });
  {
    annulet::hub hub;
    annulet::event parcel;
    annulet::mutex key;
    const std::lock_guard held(key);
    auto first = spawn({.name = "parcel"}, [&] { opens_the_door(parcel, 41); });
    auto second = spawn({.name = "\x1b key \xff"}, [&] { wants_the_key(key); });
    auto third = spawn({.name = "listener"}, [&] {
      uses_100_kib_once();
      listens(never[0]);
    });
    auto ended = spawn({.name = "ended"}, [] {});
    std::vector<annulet::fiber<void>> many;
    for (int left = argc > 1 ? std::atoi(argv[1]) : 0; left > 0; --left) {
      many.push_back(spawn([] { sleeps_long(); }));
    }
    ended.join();
    stands.wait();  // this hub has known the time since that join: the other's is the latest
    std::puts("all stand");
    std::fflush(stdout);
    listens(STDIN_FILENO);
    parcel.set();
    many.clear();
  }
  ::close(never[1]);
  other.join();
  hubless.join();
}
