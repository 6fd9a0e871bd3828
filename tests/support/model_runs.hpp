// Many lives of a stage (primitive_stage.hpp), every one from a seed of its own.
#pragma once

#include "../oracle/run.hpp"
#include "primitive_stage.hpp"

#include <algorithm>
#include <cstdint>
#include <string>

namespace annulet_test {

struct model_verdict {
  stage_tally counts{};
  std::string mismatch{};  // with the seed that repeats it; empty where there was none
};

inline std::uint64_t model_seed() {
  return oracle::from_environment("ANNULET_MODEL_SEED", oracle::fresh_seed());
}

// Takes so many steps, and stops at the first mismatch. The first life is that of the seed itself.
template <class Stage>
model_verdict hold_to_model(std::uint64_t seed, std::uint64_t steps) {
  constexpr std::uint64_t steps_in_a_life = 20'000;
  model_verdict result;
  for (; result.counts.steps < steps && result.mismatch.empty(); ++seed) {
    Stage life(seed, result.counts);
    life.run(std::min(steps - result.counts.steps, steps_in_a_life));
    if (const std::string wrong = life.wrong(); !wrong.empty()) {
      result.mismatch = "ANNULET_MODEL_SEED=" + std::to_string(seed) +
                        " ANNULET_MODEL_STEPS=" + std::to_string(steps_in_a_life) + " shows: " + wrong;
    }
  }
  return result;
}

}  // namespace annulet_test
