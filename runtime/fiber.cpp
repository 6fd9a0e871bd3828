#include "fiber.hpp"

#include "check.hpp"
#include "scheduler.hpp"

#include <stdexcept>
#include <string>
#include <system_error>

namespace annulet::detail {

namespace {

// Sixteen places within a KiB. Stacks lie at equal distances: without this the tops of all of them would
// share a few sets of the caches, and each switch between many fibers would miss.
std::size_t color_of(const std::byte* stack_start) noexcept {
  constexpr unsigned page_bits = 12, colors = 16, line = 64;
  // Scrambled, since the last digits alone are alike for all stacks at distances of 16 pages.
  constexpr std::uint64_t odd = 0xd6e8feb86659fd93;
  std::uint64_t page = reinterpret_cast<std::uintptr_t>(stack_start) >> page_bits;
  page = (page ^ page >> 32) * odd;
  page = (page ^ page >> 32) * odd;
  return (page ^ page >> 32) % colors * line;
}

}  // namespace

spawn_room::spawn_room(const spawn_options& options, std::size_t frame_size, std::size_t alignment)
    : here_(scheduler::here("spawn")),
      memory_(here_.claim_stack(options.stack_size.value_or(here_.stack_size()))),
      place_(nullptr) {
  std::byte* const start = memory_.memory.data();
  const std::size_t size = memory_.memory.size();
  const std::size_t taken = color_of(start) + frame_size + alignment;
  constexpr std::size_t most_taken = 4096;  // of the smallest stack, which leaves enough for a wait
  if (taken > size || size - taken < smallest_stack_size() - most_taken) {
    stack_pool::release(memory_);
    throw std::invalid_argument("annulet: spawn: a stack of " + std::to_string(size) +
                                " bytes is too small for a callable and result of " +
                                std::to_string(frame_size));
  }
  const auto top = reinterpret_cast<std::uintptr_t>(start + size - color_of(start) - frame_size);
  place_ = reinterpret_cast<void*>(top & ~(alignment - 1));  // a power of two
}

spawn_room::~spawn_room() {
  if (place_ != nullptr) {
    stack_pool::release(memory_);
  }
}

void spawn_room::start(control_block& fiber, const spawn_options& options) noexcept {
  place_ = nullptr;
  fiber.place = options.place;
  fiber.has_handle = true;
  fiber.set_name(options.name);
  here_.start(fiber, memory_);
}

control_block& fiber_handle::require(const char* call) const {
  if (block_ == nullptr) {
    throw std::logic_error(std::string("annulet: fiber::") + call + " on an empty handle");
  }
  const scheduler* const owner = block_->owner.load(std::memory_order_acquire);
  if (owner == nullptr || (owner != scheduler::current() && scheduler::is_left_to_parent(owner))) {
    throw hub_gone(std::string("annulet: fiber::") + call + ": the hub of " + block_->describe() +
                   " has ended");
  }
  if (owner != scheduler::current()) {
    throw wrong_thread(std::string("annulet: fiber::") + call + ": the fiber belongs to another thread");
  }
  return *block_;
}

bool fiber_handle::join(deadline until, const char* call) {
  control_block& block = require(call);
  scheduler& here = *scheduler::current();
  here.throw_if_overdue();
  if (block.state == fiber_state::done) {
    here.breathe_quietly(1);
    return true;
  }
  if (&block == &here.running()) {
    throw std::logic_error(std::string("annulet: fiber::") + call + ": " + block.describe() +
                           " would wait for itself");
  }
  if (until.is_past()) {
    here.breathe(1);
    return false;
  }
  waiter ended(here.running(), "fiber::join");
  block.joiners.push_back(ended);
  return here.park(ended, until, wakers::fibers) == wake_reason::ready;
}

void fiber_handle::kill() {
  control_block& block = require("kill");
  scheduler::current()->kill(block);
}

void fiber_handle::detach() {
  (void)require("detach");
  drop();
}

bool fiber_handle::done() const { return require("done").state == fiber_state::done; }

std::uint64_t fiber_handle::id() const { return require("id").id; }

std::string_view fiber_handle::name() const { return require("name").name(); }

std::size_t fiber_handle::stack_used() const { return detail::stack_used(require("stack_used").memory); }

void fiber_handle::drop() noexcept {
  if (control_block* const block = std::exchange(block_, nullptr)) {
    scheduler::abandon(*block);
  }
}

void fiber_handle::await_value(deadline until) {
  if (!join(until, "get")) {
    throw deadline_passed("annulet: fiber::get: the deadline passed");
  }
  control_block& block = require("get");  // another fiber may have detached it meanwhile
  if (block.state != fiber_state::done) {
    throw std::logic_error("annulet: fiber::get: the handle was given another fiber meanwhile");
  }
  if (block.outcome == fiber_outcome::value) {
    if (std::exchange(block.value_taken, true)) {
      throw std::logic_error("annulet: fiber::get: the value of " + block.describe() + " was taken before");
    }
    return;
  }
  block.error_collected = true;
  std::rethrow_exception(block.failure());
}

}  // namespace annulet::detail
