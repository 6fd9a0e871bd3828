// Bugs switched on in the primitives, to show that the models see them, and on each stage.
#include "support/group_stage.hpp"
#include "support/lock_stages.hpp"
#include "support/model_runs.hpp"
#include "support/planting.hpp"
#include "support/queue_stages.hpp"
#include "support/shared_mutex_stage.hpp"
#include "support/signal_stages.hpp"

#include <doctest/doctest.h>

#include <cstdint>
#include <iostream>
#include <string>

using annulet::detail::plant;
using annulet_test::hold_to_model;
using annulet_test::model_verdict;
using annulet_test::planting;

namespace {

// A bug strikes at every hundredth time that it could.
constexpr unsigned every = 100;
constexpr std::uint64_t most_steps = 1'000'000;

// What the model says of so many steps.
template <class Stage>
std::string caught(const char* name, std::uint64_t steps = 50'000) {
  const std::uint64_t seed = annulet_test::model_seed();
  const model_verdict verdict = hold_to_model<Stage>(seed, steps);
  std::cout << "note: " << name << ": seed " << seed << ", " << verdict.counts.steps << " steps" << std::endl;
  return verdict.mismatch;
}

template <class Stage>
void catches(plant which, const char* name) {
  const planting strikes(which, every);
  const std::string mismatch = caught<Stage>(name, most_steps);
  CHECK_MESSAGE(mismatch != "", name);
  CHECK_MESSAGE(strikes.asked() >= every, mismatch);
}

}  // namespace

TEST_CASE("without a planted bug the models find nothing") {
  CHECK(caught<annulet_test::mutex_stage>("mutex") == "");
  CHECK(caught<annulet_test::condition_variable_stage>("condition_variable") == "");
  CHECK(caught<annulet_test::semaphore_stage>("semaphore") == "");
}

TEST_CASE("the models see that one fiber in a hundred is woken for a mutex and does not have it") {
  catches<annulet_test::mutex_stage>(plant::lost_hand_over, "mutex");
  catches<annulet_test::recursive_mutex_stage>(plant::lost_hand_over, "recursive_mutex");
  catches<annulet_test::condition_variable_stage>(plant::lost_hand_over, "condition_variable");
}

TEST_CASE("the model of each primitive sees that one wake in a hundred is out of order") {
  catches<annulet_test::mutex_stage>(plant::wake_out_of_order, "mutex");
  catches<annulet_test::recursive_mutex_stage>(plant::wake_out_of_order, "recursive_mutex");
  catches<annulet_test::condition_variable_stage>(plant::wake_out_of_order, "condition_variable");
  catches<annulet_test::shared_mutex_stage>(plant::wake_out_of_order, "shared_mutex");
  catches<annulet_test::semaphore_stage>(plant::wake_out_of_order, "semaphore");
  catches<annulet_test::event_stage>(plant::wake_out_of_order, "event");
  catches<annulet_test::latch_stage>(plant::wake_out_of_order, "latch");
  catches<annulet_test::barrier_stage>(plant::wake_out_of_order, "barrier");
  catches<annulet_test::queue_stage>(plant::wake_out_of_order, "queue");
  catches<annulet_test::channel_stage>(plant::wake_out_of_order, "channel");
  catches<annulet_test::group_stage>(plant::wake_out_of_order, "fiber_group");
}

TEST_CASE("the models see that a fiber that was served in time calls itself late, one in a hundred times") {
  catches<annulet_test::condition_variable_stage>(plant::swallowed_signal, "condition_variable");
  catches<annulet_test::semaphore_stage>(plant::swallowed_signal, "semaphore");
}
