// A user's program with the address sanitizer, whose fibers use each other's frames, and throw; and with an
// argument one that uses a frame which has ended. package_test.py builds and runs it.
#include <array>
#include <chrono>
#include <cstdio>

#include <annulet/hub/hub.hpp>
#include <annulet/runtime/event.hpp>
#include <annulet/runtime/fiber.hpp>
#include <annulet/runtime/this_fiber.hpp>

using namespace std::chrono_literals;

namespace {

[[gnu::noinline]] volatile int* pass_through(volatile int* at) { return at; }

[[gnu::noinline]] volatile int* local_of_a_frame_that_ended() {
  volatile int local = 7;
  return pass_through(&local);
}

// Has a local of its own in use while the fibers that it starts park and go on.
int depth_of(int depth) {
  volatile int own = depth;
  if (depth > 0) {
    own = own + annulet::spawn([&own, depth] {
                  annulet::this_fiber::sleep_for(1ms);
                  own = own + 1;
                  return depth_of(depth - 1);
                }).get();
  }
  return own;
}

// Too large a frame for the sanitizer to keep it elsewhere, so the stack itself is marked where it lies; and
// the marks are taken off only by who knows which stack it is that an exception unwinds.
[[gnu::noinline]] int throw_past_a_large_frame() {
  std::array<volatile int, 20'000> room;
  room[0] = 1;
  if (room[0] != 0) {
    throw 1;
  }
  return room[1];
}

[[gnu::noinline]] int use_that_place() {
  std::array<volatile int, 30'000> room;
  for (auto& each : room) {
    each = 1;
  }
  return room[1];
}

}  // namespace

int main(int count, char**) {
  annulet::hub hub;
  annulet::event known;
  volatile int* at = nullptr;
  auto reader = annulet::spawn([&] {
    known.wait();
    annulet::this_fiber::sleep_for(1ms);
    return *at + depth_of(5);
  });
  auto owner = annulet::spawn([&] {
    volatile int own = 7;
    at = count > 1 ? local_of_a_frame_that_ended() : pass_through(&own);
    known.set();
    reader.join();
  });
  auto thrower = annulet::spawn([] {
    try {
      return throw_past_a_large_frame();
    } catch (int) {
      annulet::this_fiber::sleep_for(1ms);
      return use_that_place();
    }
  });
  owner.join();
  std::printf("%d %d\n", reader.get(), thrower.get());
}
