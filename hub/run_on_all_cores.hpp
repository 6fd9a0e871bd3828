// A hub a core: the same function as the main fiber of each of several threads.
//
//   annulet::run_on_all_cores([&](annulet::hub& hub, std::size_t core) { serve(port); });   // with
//   SO_REUSEPORT
#pragma once

#include "hub_options.hpp"

#include <cstddef>
#include <functional>

namespace [[gnu::visibility("default")]] annulet {

struct cores_options {
  std::size_t count = 0;  // threads; 0 for one on each CPU that the calling thread may run on
  bool pinned = false;    // each to one of these CPUs, in turn
  hub_options hub{};
};

class hub;

// Calls fn(hub, 0) to fn(hub, count - 1), each on a thread with that hub of its own, the first on the calling
// one, which must have none. They run at the same time, and share fn. Returns when the last has ended: a call
// that throws ends no other; the first such error, in order of time, is thrown then, and the others are
// reported on stderr. Throws std::logic_error where the thread has a hub, std::invalid_argument for more than
// 4096 threads, and std::system_error where a thread is not to be had or a CPU is refused; then fn was not
// called. Where a call forks, the child ends when that call returns there, as with a fiber that forked
// (hub.hpp).
void run_on_all_cores(const std::function<void(hub&, std::size_t)>& fn, const cores_options& options = {});

}  // namespace annulet
