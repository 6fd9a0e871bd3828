#include "fiber_local.hpp"

#include "scheduler.hpp"

#include <atomic>

namespace annulet::detail {

std::uint64_t new_fiber_variable() noexcept {
  static constinit std::atomic<std::uint64_t> last{0};
  return last.fetch_add(1, std::memory_order_relaxed) + 1;
}

local_slot*& locals_of_running_fiber() { return scheduler::here("fiber_local").running().locals; }

}  // namespace annulet::detail
