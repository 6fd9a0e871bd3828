// park_1m: the memory of a million fibers that are parked, each on a guarded stack of the default size.
//
//   annulet_bench park_1m
//
// Each contender is a process of its own, whose memory is read from outside before there are fibers and when
// all of them wait for one event: what is resident and what its page tables take (VmRSS and VmPTE), and how
// many mappings it has, of which each costs the kernel some 200 bytes more, and of which a process has 65,530
// at most. Then all are let go and counted. Boost.Fiber's protected stacks are two mappings each, so there
// are as many as the kernel allows; its default stacks have no guard.
#include <annulet/hub/hub.hpp>
#include <annulet/runtime/event.hpp>
#include <annulet/runtime/fiber.hpp>
#include <annulet/runtime/this_fiber.hpp>

#include <algorithm>
#include <boost/fiber/condition_variable.hpp>
#include <boost/fiber/fiber.hpp>
#include <boost/fiber/mutex.hpp>
#include <boost/fiber/operations.hpp>
#include <boost/fiber/protected_fixedsize_stack.hpp>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <functional>
#include <iterator>
#include <string>
#include <vector>

#include "asked_process.hpp"
#include "benches.hpp"
#include "harness.hpp"

namespace bench {
namespace {

constexpr std::uint64_t most_bytes = 5 * 1024;  // a fiber
constexpr std::uint64_t most_mappings = 100;    // in all
constexpr std::uint64_t other_mappings = 1'000;

// --- what is measured

struct memory_use {
  std::uint64_t resident = 0, page_tables = 0;  // bytes
  std::uint64_t mappings = 0;

  std::uint64_t bytes() const { return resident + page_tables; }
};

memory_use memory_of(pid_t process) {
  const std::string folder = "/proc/" + std::to_string(process);
  memory_use found;
  std::ifstream status(folder + "/status");
  for (std::string word; status >> word;) {
    if (word == "VmRSS:") {
      status >> found.resident;
    } else if (word == "VmPTE:") {
      status >> found.page_tables;
    }
  }
  found.resident *= 1024;
  found.page_tables *= 1024;
  std::ifstream maps(folder + "/maps");
  found.mappings = static_cast<std::uint64_t>(
      std::count(std::istreambuf_iterator<char>(maps), std::istreambuf_iterator<char>(), '\n'));
  if (found.resident == 0 || found.page_tables == 0 || found.mappings == 0) {
    fail("park_1m: %s says nothing of its memory", folder.c_str());
  }
  return found;
}

memory_use park(const std::function<void()>& body, std::uint64_t fibers) {
  asked_process process(body);
  const auto ask = [&](const std::string& question, std::uint64_t expected) {
    if (const std::string said = process.ask(question); said != std::to_string(expected)) {
      fail("park_1m: '%s' is answered '%s'", question.c_str(), said.c_str());
    }
  };
  ask("park 0", 0);
  const memory_use before = memory_of(process.id());
  ask("park " + std::to_string(fibers), fibers);
  const memory_use after = memory_of(process.id());
  ask("end", fibers);
  return {after.resident - std::min(before.resident, after.resident),
          after.page_tables - std::min(before.page_tables, after.page_tables),
          after.mappings - std::min(before.mappings, after.mappings)};
}

// --- who parks

// `spawn(n)` makes so many fibers, and returns when all wait; `end()` returns how many have ended.
template <class Spawn, class End>
void answer_questions(const Spawn& spawn, const End& end) {
  while (const auto question = next_question()) {
    unsigned long long count = 0;
    if (*question == "end") {
      count = end();
    } else if (std::sscanf(question->c_str(), "park %llu", &count) == 1) {
      spawn(count);
    }
    answer(std::to_string(count));
  }
}

void annulet_fibers() {
  annulet::hub hub;
  annulet::event over;
  std::vector<annulet::fiber<void>> fibers;
  std::uint64_t parked = 0, ended = 0;
  answer_questions(
      [&](std::uint64_t count) {
        fibers.reserve(count);
        for (std::uint64_t i = 0; i < count; ++i) {
          fibers.push_back(annulet::spawn([&] {
            ++parked;
            over.wait();
            ++ended;
          }));
        }
        while (parked < count) {
          annulet::this_fiber::yield();
        }
      },
      [&] {
        over.set();
        for (auto& one : fibers) {
          one.join();
        }
        return ended;
      });
}

template <class Stacks>
void boost_fibers() {
  boost::fibers::mutex guard;
  boost::fibers::condition_variable over;
  bool is_over = false;
  std::vector<boost::fibers::fiber> fibers;
  std::uint64_t parked = 0, ended = 0;
  answer_questions(
      [&](std::uint64_t count) {
        fibers.reserve(count);
        for (std::uint64_t i = 0; i < count; ++i) {
          fibers.emplace_back(std::allocator_arg, Stacks(), [&] {
            std::unique_lock lock(guard);
            ++parked;
            over.wait(lock, [&] { return is_over; });
            ++ended;
          });
        }
        while (parked < count) {
          boost::this_fiber::yield();
        }
      },
      [&] {
        is_over = true;
        over.notify_all();
        for (auto& one : fibers) {
          one.join();
        }
        return ended;
      });
}

// --- what comes out

std::string described(const memory_use& all, std::uint64_t fibers) {
  const auto count = static_cast<double>(fibers);
  const auto each = [&](std::uint64_t bytes) { return static_cast<double>(bytes) / 1024 / count; };
  char text[160];
  std::snprintf(text, sizeof text, "%.2f KiB each (%.2f resident, %.2f page tables), %llu mappings in all",
                each(all.bytes()), each(all.resident), each(all.page_tables),
                static_cast<unsigned long long>(all.mappings));
  return text;
}

std::uint64_t mappings_allowed() {
  std::uint64_t most = 0;
  std::ifstream("/proc/sys/vm/max_map_count") >> most;
  return most;
}

}  // namespace

void bench_park_1m(harness& run) {
  const std::uint64_t fibers = run.options().quick ? 100'000 : 1'000'000;
  const std::string setting = std::to_string(fibers) + " parked";
  if (available_memory() < 2 * most_bytes * fibers) {
    run.skip("park_1m", setting,
             "needs " + std::to_string(2 * most_bytes * fibers >> 20) + " MiB of free memory");
    return;
  }
  const memory_use ours = park(annulet_fibers, fibers);

  std::string others;
  const auto tell = [&others](const std::string& who, const std::function<void()>& body,
                              std::uint64_t count) {
    others += (others.empty() ? "" : "\n        ") + who + ", " + std::to_string(count) + ": " +
              described(park(body, count), count);
  };
  using boost::fibers::default_stack, boost::fibers::protected_fixedsize_stack;
  const std::uint64_t allowed = (std::max(mappings_allowed(), 2 * other_mappings) - other_mappings) / 2;
  tell("Boost.Fiber, protected stacks", boost_fibers<protected_fixedsize_stack>, std::min(fibers, allowed));
  tell("Boost.Fiber, its default, no guards", boost_fibers<default_stack>, fibers / 10);
  if (const auto go = go_program::find("park_go")) {
    tell("Go", *go, fibers);
  } else {
    others += "; there was no Go when this was built";
  }
  run.note({.bench = "park_1m",
            .setting = setting,
            .operation = "a fiber",
            .verdicts = {{.asked = "<= 5 KiB each",
                          .found = described(ours, fibers),
                          .met = ours.bytes() <= most_bytes * fibers},
                         {.asked = "<= " + std::to_string(most_mappings) + " mappings for all",
                          .found = std::to_string(ours.mappings),
                          .met = ours.mappings <= most_mappings}},
            .remark = others});
}

}  // namespace bench
