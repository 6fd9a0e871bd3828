// Many of the programs in ported/ at once, each in a fiber of this thread, beside one that looks at the
// clock.
#pragma once

#include "../ported/programs.h"
#include "files.hpp"
#include "running_time.hpp"
#include "slice_meter.hpp"
#include "waited_for_a_core.hpp"

#include <annulet/hub/c.h>
#include <annulet/hub/hub.hpp>
#include <annulet/runtime/fiber.hpp>
#include <annulet/runtime/this_fiber.hpp>

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <deque>
#include <optional>
#include <string>
#include <vector>

namespace annulet::test {

using steady = std::chrono::steady_clock;
using std::chrono::nanoseconds;

// One of them with its arguments, the name first; and what came of it.
struct ported_program {
  int (*function)(int, char**, FILE*) = nullptr;
  std::vector<std::string> words{};
  int status = -1;
  std::string said{};

  void run() {
    std::vector<char*> pointers;
    for (std::string& word : words) {
      pointers.push_back(word.data());
    }
    pointers.push_back(nullptr);
    char* text = nullptr;
    std::size_t size = 0;
    FILE* const out = ::open_memstream(&text, &size);
    const int ended = function(static_cast<int>(words.size()), pointers.data(), out);
    std::fclose(out);
    said.assign(text, size);
    std::free(text);
    status = ended;
  }
};

// Parks for a millisecond again and again, and takes down how late it goes on. What the thread waited for a
// core meanwhile, or stood still on one, is not counted.
class ticker {
 public:
  explicit ticker(slice_meter& slices)
      : slices_(slices), fiber_(spawn({.name = "ticker"}, [this] { tick(); })) {}

  // In order of size.
  std::vector<nanoseconds> stop() {
    stopped_ = true;
    fiber_.join();
    std::ranges::sort(late_);
    return std::move(late_);
  }

 private:
  void tick() {
    while (!stopped_) {
      const nanoseconds before = waited_.so_far();
      const running_time::moment parks = slices_.thread.now();
      const auto due = steady::now() + std::chrono::milliseconds(1);
      this_fiber::sleep_until(due);
      slices_.end();  // where all others wait it goes on a hundred times without a switch
      const nanoseconds late = steady::now() - due;
      const nanoseconds stood = slices_.thread.stood_still(parks, slices_.thread.now());
      late_.push_back(std::max(late - (waited_.so_far() - before) - stood, nanoseconds::zero()));
    }
  }

  slice_meter& slices_;
  const waited_for_a_core waited_;
  bool stopped_ = false;
  std::vector<nanoseconds> late_;
  fiber<void> fiber_;
};

struct crowd_figures {
  nanoseconds took{};
  nanoseconds cpu{};      // of the thread
  nanoseconds sampled{};  // of that
  nanoseconds waited{};   // for a core
  nanoseconds longest_slice{};
  nanoseconds longest_by_clock{};
  std::uint64_t whose_slice = 0;
  std::vector<nanoseconds> late;  // of the beats, in order of size

  [[nodiscard]] nanoseconds late_at(double part) const {
    return late.at(static_cast<std::size_t>(part * static_cast<double>(late.size() - 1)));
  }
};

// Those of a group begin at once, and the groups one after the other, so that what they do every so many
// milliseconds they do not all do at a time: the thread would be busy then, and idle in between.
using groups = std::deque<std::vector<ported_program>>;
constexpr std::chrono::microseconds between_groups(3700);

// On a hub of their own. Where they are to be killed they all are, in no order, one after the other over this
// time from when the last has begun.
inline crowd_figures run_together(groups& all, slice_meter& slices,
                                  std::optional<nanoseconds> killed_within = std::nullopt) {
  const hub home;
  crowd_figures figures;
  ticker beside(slices);
  const auto start = steady::now();
  const running_time::moment before = slices.thread.now();
  const waited_for_a_core waited;
  slices.begin();
  std::vector<annulet_fiber*> fibers;
  const auto begin = [](void* one) { static_cast<ported_program*>(one)->run(); };
  for (auto& group : all) {
    for (ported_program& each : group) {
      require_ok(annulet_spawn(begin, &each, &fibers.emplace_back()), "annulet_spawn");
    }
    this_fiber::sleep_for(between_groups);
  }
  if (killed_within) {
    const auto begun = steady::now();
    constexpr std::size_t step = 7919;  // a prime, so each is met once
    for (std::size_t i = 0; i < fibers.size(); ++i) {
      this_fiber::sleep_until(begun + *killed_within * (i + 1) / fibers.size());
      require_ok(annulet_kill(fibers[(i + 1) * step % fibers.size()]), "annulet_kill");
    }
  }
  for (annulet_fiber* const each : fibers) {
    require_ok(annulet_join(each), "annulet_join");
  }
  slices.end();
  figures.took = steady::now() - start;
  const running_time::moment after = slices.thread.now();
  figures.cpu = after.clock - before.clock;
  figures.sampled = running_time::period * (after.samples - before.samples);
  figures.waited = waited.so_far();
  figures.longest_slice = slices.longest;
  figures.longest_by_clock = slices.longest_by_clock;
  figures.whose_slice = slices.whose;
  figures.late = beside.stop();
  return figures;
}

}  // namespace annulet::test
