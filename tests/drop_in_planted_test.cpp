// Whether the oracle of the drop-ins sees bugs that were planted in them.

#include "oracle/drop_ins.hpp"
#include "oracle/run.hpp"
#include "support/planting.hpp"

#include <doctest/doctest.h>

#include <iostream>

using annulet::detail::plant;

namespace {

void check_caught(plant bug, unsigned every) {
  const std::uint64_t seed = oracle::fresh_seed();
  std::cout << "note: seed " << seed << std::endl;
  const annulet_test::planting planted(bug, every);
  const oracle::drop_in_verdict result = oracle::run_drop_ins(seed, 20'000);
  CHECK_MESSAGE(!result.mismatch.empty(), "not seen in 20,000 operations");
  std::cout << "note: after " << result.counts.operations << " operations" << std::endl;
}

}  // namespace

TEST_CASE("a hang-up that was not asked about is seen") { check_caught(plant::unasked_hang_up, 20); }
TEST_CASE("a closed descriptor that is not told is seen") { check_caught(plant::missing_invalid, 20); }
TEST_CASE("a time that is rounded to a tick is seen") { check_caught(plant::rounded_time, 20); }
