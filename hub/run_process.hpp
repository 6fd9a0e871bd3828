// Runs a program to its end: gives it its input, keeps what it says, and ends it where it takes too long.
//
//   const auto done = annulet::run_process({.command = {"git", "rev-parse", "HEAD"}}, {}, 10s);
//   if (done.status.success()) use(done.output);
#pragma once

#include "process.hpp"

#include <annulet/runtime/deadline.hpp>

#include <chrono>
#include <cstddef>
#include <string>

namespace [[gnu::visibility("default")]] annulet {

struct run_options {
  std::string input = {};  // it may leave some of it unread
  std::size_t output_limit =
      16UL << 20U;  // bytes, of output and errors each; what is beyond is read and dropped
  // From SIGTERM to SIGKILL. The hub's end waits that long too: less than hub_options::shutdown_limit.
  std::chrono::nanoseconds grace = std::chrono::seconds(1);
};

struct process_result {
  exit_status status;
  std::string output = {};  // where it was a pipe, as it is where the options say nothing of it
  std::string errors = {};
  bool cut = false;  // one of them had more than the limit
};

// Parks until the program has ended and its pipes have: who has inherited those from it may hold them open
// for longer. The status is a value, whatever it is; what process's constructor throws comes from here too.
// Its input is how.input, where the options say nothing of it; std::invalid_argument where they say something
// and there is a how.input. (No string with a zero at its end: {} for none.)
//
// deadline_passed, where the deadline came first, kills and guards: then the child has been ended, with its
// group, as by process::terminate, and its status taken. A deadline in the past starts nothing. However it
// ends, no child, zombie or descriptor is left; of a kill that comes with the child's end the result is
// returned, and it stays pending.
process_result run_process(const process_options& what, const run_options& how = {},
                           deadline until = deadline::never());

}  // namespace annulet
