// What every fiber of a thread does just now, for whoever wonders why nothing happens.
//
//   std::cerr << annulet::dump_fibers();
//
//   3 fibers, 1 of them running, 0 ready, 2 parked
//   fiber 1 "main": parked in fiber::join for 3.208 s
//   fiber 2 "server" (spawned at main.cpp:31): parked in accept, descriptor 5, for 3.208 s
//   fiber 7 "guest" (spawned at main.cpp:17): running
//
// A hub does it by itself where a deadlock, or a fiber that does not end, has to be explained, and on a
// signal where hub_options::dump_signal asks for it. Outside the process tools/annulet-gdb.py does it.
#pragma once

#include <string>

namespace [[gnu::visibility("default")]] annulet {

enum class dump_format {
  text,  // as above, a line each
  json,  // {"fibers": [{"id", "name", "state", "waits_in", "descriptor", "seconds", "file", "line"}]}
};

// The fibers of this thread's hub that have not ended, in the order in which they were spawned. Time is exact
// to some milliseconds, and "descriptor" and what else a fiber has not is left out. Does not park. Throws
// no_hub, and std::bad_alloc.
[[nodiscard]] std::string dump_fibers(dump_format how = dump_format::text);

}  // namespace annulet
