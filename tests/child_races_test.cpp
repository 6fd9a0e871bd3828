// wait_child and run_process, and what may end them at nearly the same time as the child ends. Each has one
// outcome; no status is lost or told twice, and no zombie, descriptor or byte is left behind.
//
// ANNULET_RACE_ROUNDS says how many calls for each and each way of ending it.

#include <annulet/hub/child.hpp>
#include <annulet/hub/run_process.hpp>

#include "support/call_races.hpp"
#include "support/processes.hpp"

#include <doctest/doctest.h>

#include <chrono>
#include <csignal>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

using namespace annulet::test;
using annulet::deadline;
using annulet::exit_status;
using namespace std::chrono_literals;

namespace {

constexpr std::size_t usual_calls = 240;
const std::vector<ending> ends = {ending::completion, ending::kill, ending::guard, ending::deadline,
                                  ending::all};

void crowds(const char* name, std::size_t at_once,
            const std::function<void(race_ground&, ending, outcomes&)>& crowd) {
  race_ground ground(name, usual_calls);
  const ticker beside;
  outcomes of_the_first("");
  crowd(ground, ending::completion, of_the_first);  // the pool has made what it keeps
  const std::size_t descriptors = open_descriptors();
  for (const ending how : ends) {
    CAPTURE(static_cast<int>(how));
    outcomes counts(std::string(name) + " against " + ending_names[static_cast<std::size_t>(how)]);
    const std::uint64_t rounds = (ground.rounds + at_once - 1) / at_once;
    for (std::uint64_t i = 0; i < rounds; ++i) {
      crowd(ground, how, counts);
      REQUIRE_FALSE(has_children());
      REQUIRE(open_descriptors() == descriptors);
    }
    counts.check_among(rounds * at_once, possible_ends_without_close(how), how == ending::completion ? 1 : 2);
  }
}

}  // namespace

TEST_CASE("a wait for a child has one outcome, and its status is had once") {
  constexpr std::size_t at_once = 6;
  std::chrono::nanoseconds usual =
      150us;  // until all of them have ended, which on a busy machine takes longer
  crowds("wait_child", at_once, [&](race_ground& ground, ending how, outcomes& counts) {
    std::vector<pid_t> children;
    for (std::size_t i = 0; i < at_once; ++i) {
      children.push_back(forked([] { ::pause(); }));
    }
    std::vector<std::optional<exit_status>> had(at_once);
    call_race calls(ground, how, usual * 2);
    std::vector<racer> others;
    for (std::size_t i = 0; i < at_once; ++i) {
      calls.start([&, i](deadline until, call_record&) { had[i] = annulet::wait_child(children[i], until); });
      const std::size_t wait = ground.dice.below(250'000);
      others.push_back({[&children, i, wait] {
        annulet::this_fiber::sleep_for(std::chrono::nanoseconds(wait));
        ::kill(children[i], i % 2 == 0 ? SIGKILL : SIGTERM);
      }});
    }
    const auto begin = std::chrono::steady_clock::now();
    calls.run(std::move(others));
    for (std::size_t i = 0; i < at_once; ++i) {
      CAPTURE(i);
      REQUIRE((calls[i].what == end::done) == had[i].has_value());
      if (!had[i]) {
        had[i] = annulet::wait_child(children[i], 30s);
      }
      REQUIRE(had[i]->signal() == (i % 2 == 0 ? SIGKILL : SIGTERM));
    }
    usual = (usual * 7 + (std::chrono::steady_clock::now() - begin)) / 8;
    calls.count_in(counts);
  });
}

TEST_CASE("a run of a process has one outcome, and no byte of it is lost") {
  constexpr std::size_t at_once = 4;
  std::chrono::nanoseconds usual = 8ms;  // what all of them take together
  crowds("run_process", at_once, [&](race_ground& ground, ending how, outcomes& counts) {
    std::vector<std::string> input(at_once);
    std::vector<std::optional<annulet::process_result>> had(at_once);
    call_race calls(ground, how, usual * 2);
    const auto begin = std::chrono::steady_clock::now();
    for (std::size_t i = 0; i < at_once; ++i) {
      input[i] = std::string(1 + ground.dice.below(200'000), static_cast<char>('a' + i));
      calls.start([&, i](deadline until, call_record&) {
        had[i] = annulet::run_process({.command = {"cat"}}, {.input = input[i]}, until);
      });
    }
    calls.run({{[] {}}});
    if (how == ending::completion) {
      usual = (usual * 7 + (std::chrono::steady_clock::now() - begin)) / 8;
    }
    for (std::size_t i = 0; i < at_once; ++i) {
      CAPTURE(i);
      REQUIRE((calls[i].what == end::done) == had[i].has_value());
      if (had[i]) {
        REQUIRE(had[i]->status.success());
        REQUIRE(had[i]->output == input[i]);
        REQUIRE(had[i]->errors.empty());
      }
    }
    calls.count_in(counts);
  });
}
