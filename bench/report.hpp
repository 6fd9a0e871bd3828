// What a run says: a table for each contest as soon as it is over, a summary of all that was asked, and JSON.
#pragma once

#include <ostream>

#include "harness.hpp"

namespace bench {

double load_average();  // of the last minute
void print_machine(const run_options& options);
void print_floor(const floor_figure& floor);
void judge(const contest& asked, outcome& result);  // fills in result.verdicts
void print(const outcome& result, const run_options& options);
void print_summary(const harness& run);
void write_json(std::ostream& out, const harness& run);

}  // namespace bench
