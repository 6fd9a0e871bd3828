// spawn_join: what it costs to spawn a fiber with an empty body and to join it.
//
//   annulet_bench spawn_join
//
// The subject is annulet::spawn(f).join() on the hub's pool of stacks. It is held against Boost.Fiber with
// pooled_fixedsize_stack; Boost.Fiber with its default stack (a malloc and a free each) and std::thread,
// which stays on the same processor, are printed beside it. All bodies count up, and the count is checked.
#include <annulet/hub/hub.hpp>
#include <annulet/runtime/fiber.hpp>

#include <boost/fiber/fiber.hpp>
#include <boost/fiber/pooled_fixedsize_stack.hpp>
#include <thread>

#include "benches.hpp"
#include "harness.hpp"

namespace bench {
namespace {

template <class SpawnAndJoin>
void turn(meter& clock, std::uint64_t operations, SpawnAndJoin spawn_and_join) {
  std::uint64_t ran = 0;
  const auto body = [&ran] { ++ran; };
  const std::uint64_t warm_up = operations / 8 + 1;
  for (std::uint64_t i = 0; i < warm_up; ++i) {
    spawn_and_join(body);
  }
  clock.start();
  for (std::uint64_t i = 0; i < operations; ++i) {
    spawn_and_join(body);
  }
  clock.stop(operations);
  if (ran != warm_up + operations) {
    fail("spawn_join: not every body has run when its join returned");
  }
}

}  // namespace

void bench_spawn_join(harness& run) {
  annulet::hub hub;
  boost::fibers::pooled_fixedsize_stack stacks;
  run.hold({.bench = "spawn_join",
            .setting = "empty body",
            .operation = "a spawn and a join",
            .subject = {"annulet",
                        [](meter& clock, std::uint64_t operations) {
                          turn(clock, operations, [](const auto& body) { annulet::spawn(body).join(); });
                        }},
            .baselines = {{"Boost.Fiber, pooled stack",
                           [&](meter& clock, std::uint64_t operations) {
                             turn(clock, operations, [&](const auto& body) {
                               boost::fibers::fiber(std::allocator_arg, stacks, body).join();
                             });
                           },
                           goal::at_least(3.0)},
                          {"Boost.Fiber, default stack",
                           [](meter& clock, std::uint64_t operations) {
                             turn(clock, operations,
                                  [](const auto& body) { boost::fibers::fiber(body).join(); });
                           }},
                          {"std::thread", [](meter& clock, std::uint64_t operations) {
                             turn(clock, operations, [](const auto& body) { std::thread(body).join(); });
                           }}}});
}

}  // namespace bench
