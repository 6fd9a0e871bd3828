// switch: what it costs that a fiber yields to the next, with 2, 1,000 and 100,000 fibers in a round-robin.
//
//   annulet_bench switch
//
// The subject is annulet::this_fiber::yield() with a real hub standing and everything on: fairness, pending
// kills and timeouts, exception state and errno kept. It is held against
// - bare jump_fcontext calls around a ring of as many contexts (raw_contexts.hpp says how their stacks lie),
// and
//   the same with the stack after the next prefetched, printed beside it: among many contexts that is the
//   floor;
// - Boost.Fiber's boost::this_fiber::yield() with its round-robin scheduler. Its dispatcher fiber takes a
// turn in
//   each round as well, which makes a third of its jumps with 2 fibers and nothing with many; it is a cost of
//   that library and stays in the figure. Its fibers have pooled stacks of its default size.
// Main waits in a join throughout. Each contender runs three laps that are checked for their order and that
// touch every stack, then the timed laps.
#include <annulet/hub/hub.hpp>
#include <annulet/runtime/fiber.hpp>

#include <algorithm>
#include <boost/fiber/fiber.hpp>
#include <boost/fiber/operations.hpp>
#include <boost/fiber/pooled_fixedsize_stack.hpp>
#include <string>
#include <vector>

#include "benches.hpp"
#include "harness.hpp"
#include "raw_contexts.hpp"
#include "relay.hpp"

namespace bench {
namespace {

constexpr std::size_t largest_chunk = 1024;  // stacks; without a bound the pool doubles its last allocation

void annulet_turn(meter& clock, std::size_t count, std::uint64_t rounds) {
  relay course(clock, count, rounds);
  std::vector<annulet::fiber<void>> fibers;
  fibers.reserve(count);
  for (std::size_t i = 0; i < count; ++i) {
    fibers.push_back(annulet::spawn([&course, i] { course.run(i, [] { annulet::this_fiber::yield(); }); }));
  }
  for (auto& one : fibers) {
    one.join();
  }
  course.check();
}

void boost_turn(meter& clock, boost::fibers::pooled_fixedsize_stack& stacks, std::size_t count,
                std::uint64_t rounds) {
  relay course(clock, count, rounds);
  std::vector<boost::fibers::fiber> fibers;
  fibers.reserve(count);
  for (std::size_t i = 0; i < count; ++i) {
    fibers.emplace_back(std::allocator_arg, stacks,
                        [&course, i] { course.run(i, [] { boost::this_fiber::yield(); }); });
  }
  for (auto& one : fibers) {
    one.join();
  }
  course.check();
}

void hold_with(harness& run, std::size_t count) {
  // Up to three pages a stack in each of the three contenders' pools, and the page tables for them.
  const std::uint64_t needed = count * 4096 * 3 * 3 * 3 / 2;
  const std::string setting = std::to_string(count) + " fibers";
  if (available_memory() < needed) {
    run.skip("switch", setting, "needs " + std::to_string(needed >> 20) + " MiB of free memory");
    return;
  }
  annulet::hub hub;
  raw_contexts contexts(count);
  boost::fibers::pooled_fixedsize_stack stacks(boost::fibers::default_stack::traits_type::default_size(), 32,
                                               largest_chunk);
  const auto rounds = [count](std::uint64_t switches) {
    return std::max<std::uint64_t>(switches / count, 1);
  };
  run.hold(
      {.bench = "switch",
       .setting = setting,
       .operation = "a switch",
       .subject = {"annulet yield",
                   [=](meter& clock, std::uint64_t switches) {
                     annulet_turn(clock, count, rounds(switches));
                   }},
       .baselines = {
           {"raw jump_fcontext",
            [&](meter& clock, std::uint64_t switches) { contexts.turn(clock, rounds(switches)); },
            goal::at_most(3.6)},
           {"the same, prefetching",
            [&](meter& clock, std::uint64_t switches) {
              contexts.turn_with_prefetch(clock, rounds(switches));
            }},
           {"Boost.Fiber yield",
            [&](meter& clock, std::uint64_t switches) { boost_turn(clock, stacks, count, rounds(switches)); },
            goal::at_least(3.0, "the aim is 3.8x")}}});
}

}  // namespace

void bench_switch(harness& run) {
  for (const std::size_t count : {2, 1000, 100'000}) {
    hold_with(run, count);
  }
}

}  // namespace bench
