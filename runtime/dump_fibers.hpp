// What every fiber of a thread does just now, for whoever wonders why nothing happens.
//
//   std::cerr << annulet::dump_fibers();
//
//   3 fibers, 1 of them running, 0 ready, 2 parked
//   fiber 1 "main": parked in fiber::join for 3.208 s
//   fiber 2 "server" (spawned at main.cpp:31): parked in mutex::lock for 3.208 s; stack used: 8 of 256 KiB
//   fiber 7 "guest" (spawned at main.cpp:17): running; stack used: 12 of 256 KiB
//
// A hub does it by itself where a deadlock, or a fiber that does not end, has to be explained, and on a
// signal where hub_options::dump_signal asks for it. Outside the process tools/annulet-gdb.py does it.
#pragma once

#include <string>

namespace [[gnu::visibility("default")]] annulet {

enum class dump_format {
  text,  // as above, a line each
  // {"fibers": [{"id", "name", "state", "waits_in", "descriptor", "seconds", "file", "line", "stack_used",
  // "stack_size"}]}; always UTF-8: each byte of a name that is no part of a character is U+FFFD.
  json,
};

// The fibers of this thread's hub that have not ended, in the order in which they were spawned. How long they
// wait is exact to some milliseconds, but counts from the first park, theirs or another's, since the hub last
// waited or looked outside: too long by what the thread has computed in between. Stacks are in bytes, in text
// in KiB, and used as in fiber<T>::stack_used(); of main's nothing is known. "descriptor" and what else a
// fiber has not is left out. Takes some 2 us a fiber, more where stacks are larger than 2 MiB. Does not park.
// Throws no_hub, and std::bad_alloc.
[[nodiscard]] std::string dump_fibers(dump_format how = dump_format::text);

}  // namespace annulet
