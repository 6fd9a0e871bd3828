// skynet: a tree of fibers, each of which spawns ten and sums what they return, down to a million leaves.
//
//   annulet_bench skynet
//
// The natural form in annulet is a function that spawns itself and adds up what fiber<T>::get() returns. Go's
// goroutines hand their sums up through a channel, and so do Boost.Fiber's fibers where the program is
// written as that library shows it: each child runs at once (launch::dispatch), on a stack of its default
// kind, and is detached. The leanest that was found is printed beside it: children write to their parent's
// frame and are joined, on pooled stacks too. There are two orders:
// - depth first: each child is waited for before the next is spawned, so seven fibers are alive at most;
// - at once: all ten are spawned, then waited for. As fibers run in the order in which they became ready, all
//   are alive at once, each with a page of its stack at least. (Go begins with the latest, and has a fraction
//   of them.) A million of Boost.Fiber's default stacks take 10 GiB and half a minute, so these are held with
//   a tenth of the leaves, and the million with small stacks.
// A turn is one whole tree. Stacks are warm: they are kept from the turns before, by annulet's hub and by
// Boost.Fiber's pools, and given back to the kernel by its default. In the row that is cold they are new, and
// the beginning and the end of the hub, or of the pool, are in the time; Go's process is new. The smallest
// stack is enough for annulet; its default is printed beside it.
#include <annulet/hub/hub.hpp>
#include <annulet/runtime/fiber.hpp>

#include <array>
#include <boost/fiber/buffered_channel.hpp>
#include <boost/fiber/fiber.hpp>
#include <boost/fiber/pooled_fixedsize_stack.hpp>
#include <cstdio>
#include <memory>
#include <optional>
#include <string>

#include "asked_process.hpp"
#include "benches.hpp"
#include "harness.hpp"

namespace bench {
namespace {

constexpr std::uint64_t children = 10;
constexpr std::size_t small_stack = 16 * 1024;  // of Boost.Fiber
constexpr std::size_t largest_chunk = 1024;  // stacks; without a bound the pool doubles its last allocation
enum class order { depth_first, at_once };
enum class begun { cold, warm };

constexpr std::uint64_t fibers_of(std::uint64_t leaves) {
  return leaves == 1 ? 1 : 1 + children * fibers_of(leaves / children);
}

void check_sum(std::uint64_t sum, std::uint64_t leaves) {
  if (sum != leaves * (leaves - 1) / 2) {
    fail("skynet: the sum is wrong");
  }
}

// --- annulet

std::uint64_t annulet_tree(order how, std::size_t stack_size, std::uint64_t first, std::uint64_t leaves) {
  if (leaves == 1) {
    return first;
  }
  const std::uint64_t share = leaves / children;
  const auto spawn_child = [&](std::uint64_t i) {
    return annulet::spawn({.stack_size = stack_size}, annulet_tree, how, stack_size, first + i * share,
                          share);
  };
  std::uint64_t sum = 0;
  if (how == order::depth_first) {
    for (std::uint64_t i = 0; i < children; ++i) {
      sum += spawn_child(i).get();
    }
    return sum;
  }
  std::array<annulet::fiber<std::uint64_t>, children> fibers;
  for (std::uint64_t i = 0; i < children; ++i) {
    fibers[i] = spawn_child(i);
  }
  for (auto& one : fibers) {
    sum += one.get();
  }
  return sum;
}

void annulet_turn(meter& clock, order how, begun begin, std::size_t stack_size, std::uint64_t leaves) {
  clock.start();
  {
    std::optional<annulet::hub> hub;
    if (begin == begun::cold) {
      hub.emplace();
    }
    check_sum(annulet::spawn({.stack_size = stack_size}, annulet_tree, how, stack_size, 0, leaves).get(),
              leaves);
  }
  clock.stop(fibers_of(leaves));
}

// --- Boost.Fiber

template <class Stacks>
struct boost_tree {
  order how;
  Stacks& stacks;

  void run(std::uint64_t& result, std::uint64_t first, std::uint64_t leaves) const {
    if (leaves == 1) {
      result = first;
      return;
    }
    const std::uint64_t share = leaves / children;
    std::array<std::uint64_t, children> results;
    const auto spawn_child = [&](std::uint64_t i) {
      return boost::fibers::fiber(std::allocator_arg, stacks,
                                  [&, i] { run(results[i], first + i * share, share); });
    };
    if (how == order::depth_first) {
      for (std::uint64_t i = 0; i < children; ++i) {
        spawn_child(i).join();
      }
    } else {
      std::array<boost::fibers::fiber, children> fibers;
      for (std::uint64_t i = 0; i < children; ++i) {
        fibers[i] = spawn_child(i);
      }
      for (auto& one : fibers) {
        one.join();
      }
    }
    result = 0;
    for (const std::uint64_t one : results) {
      result += one;
    }
  }
};

// Children run as they are spawned, so this is depth first by itself.
void boost_by_channel(boost::fibers::buffered_channel<std::uint64_t>& parent, std::uint64_t first,
                      std::uint64_t leaves) {
  if (leaves == 1) {
    parent.push(first);
    return;
  }
  boost::fibers::buffered_channel<std::uint64_t> results(16);  // wants a power of two, above the children
  const std::uint64_t share = leaves / children;
  for (std::uint64_t i = 0; i < children; ++i) {
    boost::fibers::fiber(boost::fibers::launch::dispatch, [&results, share, from = first + i * share] {
      boost_by_channel(results, from, share);
    }).detach();
  }
  std::uint64_t sum = 0;
  for (std::uint64_t i = 0; i < children; ++i) {
    sum += results.value_pop();
  }
  parent.push(sum);
}

turn_function boost_channels(std::uint64_t leaves) {
  return [=](meter& clock, std::uint64_t) {
    clock.start();
    boost::fibers::buffered_channel<std::uint64_t> result(2);
    boost_by_channel(result, 0, leaves);
    check_sum(result.value_pop(), leaves);
    clock.stop(fibers_of(leaves));
  };
}

template <class Stacks>
void boost_run(order how, Stacks& stacks, std::uint64_t leaves) {
  std::uint64_t sum = 0;
  const boost_tree<Stacks> tree{how, stacks};
  boost::fibers::fiber(std::allocator_arg, stacks, [&] { tree.run(sum, 0, leaves); }).join();
  check_sum(sum, leaves);
}

turn_function boost_default(order how, std::uint64_t leaves) {
  return [=](meter& clock, std::uint64_t) {
    boost::fibers::default_stack stacks;
    clock.start();
    boost_run(how, stacks, leaves);
    clock.stop(fibers_of(leaves));
  };
}

turn_function boost_pooled(order how, begun begin, std::uint64_t leaves) {
  using pool = boost::fibers::pooled_fixedsize_stack;
  const auto make = [] { return pool(small_stack, 32, largest_chunk); };
  std::optional<pool> kept;
  if (begin == begun::warm) {
    kept = make();
  }
  return [=](meter& clock, std::uint64_t) mutable {
    clock.start();
    {
      pool stacks = kept ? *kept : make();  // a copy is the same pool
      boost_run(how, stacks, leaves);
    }
    clock.stop(fibers_of(leaves));
  };
}

// --- Go

void go_turn(meter& clock, asked_process& go, order how, std::uint64_t leaves) {
  clock.start();
  const std::string answer =
      go.ask((how == order::depth_first ? "depth_first " : "at_once ") + std::to_string(leaves));
  clock.stop(fibers_of(leaves));
  unsigned long long sum = 0;
  double wall_ns = 0, cpu_ns = 0;
  if (std::sscanf(answer.c_str(), "%llu %lf %lf", &sum, &wall_ns, &cpu_ns) != 3) {
    fail("skynet: Go answers '%s'", answer.c_str());
  }
  check_sum(sum, leaves);
  const auto fibers = static_cast<double>(fibers_of(leaves));
  clock.took(wall_ns / fibers, cpu_ns / fibers);
}

// --- the contests

struct workload {
  std::uint64_t leaves;
  order how;
  begun begin;
  bool with_default_stacks;  // of Boost.Fiber
};

std::string setting_of(const workload& what) {
  return std::to_string(what.leaves) + " leaves, " +
         (what.how == order::depth_first ? "depth first" : "at once") +
         (what.begin == begun::cold ? ", cold" : "");
}

void add_boost(contest& to, const workload& what) {
  const bool by_channel = what.how == order::depth_first;
  if (by_channel) {
    to.baselines.push_back({"Boost.Fiber", boost_channels(what.leaves), goal::at_least(10.0)});
  }
  if (what.with_default_stacks) {
    to.baselines.push_back({by_channel ? "Boost.Fiber, joined" : "Boost.Fiber, its default",
                            boost_default(what.how, what.leaves),
                            by_channel ? std::nullopt : std::optional(goal::at_least(10.0))});
  }
  to.baselines.push_back({"Boost.Fiber, small, pooled", boost_pooled(what.how, what.begin, what.leaves)});
}

void add_go(contest& to, const workload& what) {
  const auto go = go_program::find("skynet_go");
  if (!go) {
    return;
  }
  auto kept = what.begin == begun::warm ? std::make_shared<asked_process>(*go) : nullptr;
  to.baselines.push_back({"Go, one processor",
                          [=](meter& clock, std::uint64_t) {
                            if (kept != nullptr) {
                              go_turn(clock, *kept, what.how, what.leaves);
                            } else {
                              asked_process fresh(*go);
                              go_turn(clock, fresh, what.how, what.leaves);
                            }
                          },
                          goal::at_most(1.0)});
}

void hold(harness& run, const workload& what) {
  const std::string setting = setting_of(what);
  // A page or three of each stack, in the pools of each.
  const std::uint64_t needed = what.how == order::at_once ? fibers_of(what.leaves) * 4096 * 4 : 0;
  if (available_memory() < needed) {
    run.skip("skynet", setting, "needs " + std::to_string(needed >> 20) + " MiB of free memory");
    return;
  }
  const auto annulet_with = [&what](std::size_t stack_size) -> turn_function {
    return [=](meter& clock, std::uint64_t) {
      annulet_turn(clock, what.how, what.begin, stack_size, what.leaves);
    };
  };
  contest all{.bench = "skynet",
              .setting = setting,
              .operation = "a fiber: its spawn, its end, its result",
              .subject = {"annulet, smallest stacks", annulet_with(annulet::smallest_stack_size())},
              .baselines = {},
              .pairs_at_most = 9};
  add_boost(all, what);
  add_go(all, what);  // forks, so before there is a hub
  if (what.with_default_stacks) {
    all.baselines.push_back({"annulet, its default stacks", annulet_with(annulet::default_stack_size)});
  }
  std::optional<annulet::hub> hub;
  if (what.begin == begun::warm) {
    hub.emplace();
  }
  run.hold(all);
}

}  // namespace

void bench_skynet(harness& run) {
  if (!go_program::find("skynet_go")) {
    run.skip("skynet", "Go", "there was no Go when this was built");
  }
  const std::uint64_t leaves = run.options().quick ? 10'000 : 1'000'000;
  hold(run, {leaves, order::depth_first, begun::warm, true});
  hold(run, {leaves, order::at_once, begun::warm, false});
  hold(run, {leaves / 10, order::at_once, begun::warm, true});
  hold(run, {leaves / 10, order::at_once, begun::cold, true});
}

}  // namespace bench
