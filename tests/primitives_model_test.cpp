// Random steps of several fibers on each primitive, in step with a model of it: who is served, in which
// order, with what, and how each call ends. ANNULET_MODEL_STEPS says how many; each of some millions takes
// about a second.
#include "support/group_stage.hpp"
#include "support/lock_stages.hpp"
#include "support/model_runs.hpp"
#include "support/queue_stages.hpp"
#include "support/shared_mutex_stage.hpp"
#include "support/signal_stages.hpp"

#include <doctest/doctest.h>

#include <chrono>
#include <cstdint>
#include <initializer_list>
#include <iostream>

using annulet_test::hold_to_model;
using annulet_test::model_verdict;
using annulet_test::outcome;

namespace {

// Takes the steps, and requires that enough calls ended in each of these ways.
template <class Stage>
void goes_as_its_model_says(const char* name, std::initializer_list<outcome> ways) {
  const std::uint64_t seed = annulet_test::model_seed();
  const std::uint64_t steps = oracle::from_environment("ANNULET_MODEL_STEPS", 100'000);
  std::cout << "note: " << name << ": seed " << seed << " (ANNULET_MODEL_SEED to repeat it)" << std::endl;
  const auto begin = std::chrono::steady_clock::now();
  const model_verdict verdict = hold_to_model<Stage>(seed, steps);
  const std::chrono::duration<double> took = std::chrono::steady_clock::now() - begin;
  const auto& counts = verdict.counts;
  std::cout << "note: " << name << ": " << counts.steps << " steps in " << took.count() << " s; "
            << counts.parked << " calls parked, " << counts.given_way << " gave way; ended yes "
            << counts.ended(outcome::yes) << ", no " << counts.ended(outcome::no) << ", deadline passed "
            << counts.ended(outcome::deadline_passed) << ", killed " << counts.ended(outcome::killed)
            << ", expired " << counts.ended(outcome::expired) << ", logic error "
            << counts.ended(outcome::misuse) << ", threw " << counts.ended(outcome::thrown) << std::endl;
  CHECK(verdict.mismatch == "");
  CHECK(counts.steps >= steps);
  CHECK(counts.given_way >= steps / 5000);
  for (const outcome way : ways) {
    CHECK(counts.ended(way) >= steps / 500);
  }
}

}  // namespace

TEST_CASE("mutex") {
  using enum outcome;
  goes_as_its_model_says<annulet_test::mutex_stage>("mutex", {yes, no, killed, expired, misuse});
}
TEST_CASE("recursive_mutex") {
  using enum outcome;
  goes_as_its_model_says<annulet_test::recursive_mutex_stage>("recursive_mutex",
                                                              {yes, no, killed, expired, misuse});
}
TEST_CASE("condition_variable") {
  using enum outcome;
  goes_as_its_model_says<annulet_test::condition_variable_stage>("condition_variable",
                                                                 {yes, no, killed, expired, misuse});
}
TEST_CASE("shared_mutex") {
  using enum outcome;
  goes_as_its_model_says<annulet_test::shared_mutex_stage>("shared_mutex",
                                                           {yes, no, killed, expired, misuse});
}
TEST_CASE("semaphore") {
  using enum outcome;
  goes_as_its_model_says<annulet_test::semaphore_stage>("semaphore", {yes, no, killed, expired, misuse});
}
TEST_CASE("event") {
  using enum outcome;
  goes_as_its_model_says<annulet_test::event_stage>("event", {yes, no, killed, expired, misuse});
}
TEST_CASE("latch") {
  using enum outcome;
  goes_as_its_model_says<annulet_test::latch_stage>("latch", {yes, no, killed, expired, misuse});
}
TEST_CASE("barrier") {
  using enum outcome;
  goes_as_its_model_says<annulet_test::barrier_stage>("barrier", {yes, no, killed, expired, misuse, thrown});
}
TEST_CASE("queue") {
  using enum outcome;
  goes_as_its_model_says<annulet_test::queue_stage>("queue",
                                                    {yes, no, deadline_passed, killed, expired, misuse});
}
TEST_CASE("channel") {
  using enum outcome;
  goes_as_its_model_says<annulet_test::channel_stage>("channel",
                                                      {yes, no, deadline_passed, killed, expired, misuse});
}
TEST_CASE("fiber_group") {
  using enum outcome;
  goes_as_its_model_says<annulet_test::group_stage>(
      "fiber_group", {yes, no, deadline_passed, killed, expired, misuse, thrown});
}
