// The drop-ins held against the plain calls, over every kind of descriptor there is.
//
// ANNULET_ORACLE_OPERATIONS says how many operations, ANNULET_ORACLE_SEED which.

#include "oracle/drop_ins.hpp"
#include "oracle/run.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <iostream>

TEST_CASE("the drop-ins say what the plain calls say, whatever is done to the descriptors") {
  const std::uint64_t seed = oracle::from_environment("ANNULET_ORACLE_SEED", oracle::fresh_seed());
  const std::uint64_t operations = oracle::from_environment("ANNULET_ORACLE_OPERATIONS", 200'000);
  std::cout << "note: seed " << seed << std::endl;
  const oracle::drop_in_verdict result = oracle::run_drop_ins(seed, operations);
  std::cout << oracle::figures(result.counts) << std::flush;
  CHECK_MESSAGE(result.mismatch.empty(), result.mismatch);
  if (!result.mismatch.empty() || operations < 20'000) {
    return;
  }
  const oracle::drop_in_tally& counts = result.counts;
  CHECK(counts.operations == operations);
  CHECK(counts.found > operations / 100);
  CHECK(counts.parked > operations / 10'000);
  CHECK((counts.woken > 0 || operations < 40'000));
  if (operations >= 200'000) {  // of fewer some 3 in 10,000 are woken, which is no share to hold one run to
    CHECK(counts.woken > operations / 10'000);
  }
  CHECK(counts.refused > 0);
  CHECK(counts.moved < operations / 1000);
  CHECK(std::ranges::count_if(counts.ready, [](std::uint64_t count) { return count > 0; }) >= 14);
}
