#include "c.h"

#include "hub.hpp"
#include "hub_core.hpp"

#include <annulet/runtime/errors.hpp>
#include <annulet/runtime/fiber.hpp>
#include <annulet/runtime/switching.hpp>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstdint>
#include <cstring>
#include <memory>
#include <new>
#include <stdexcept>
#include <system_error>
#include <utility>

struct annulet_fiber final : annulet::fiber<void> {
  void take(annulet::fiber<void>&& of) noexcept { annulet::fiber<void>::operator=(std::move(of)); }

  // As join(), but what interrupts it stays pending. 0 or a negative errno; throws what errno_of knows.
  int join_or_tell();
};

namespace annulet {

namespace {

// Raw, for a thread that ends without annulet_leave destroys nothing: its fibers may be anywhere.
struct entrance {
  hub* made = nullptr;
  const detail::hub_core* core = nullptr;
};
thread_local entrance entered;

// What a call about a fiber throws, as an errno.
int negative_errno() noexcept {
  try {
    throw;
  } catch (const std::bad_alloc&) {
    return -ENOMEM;
  } catch (const std::system_error& e) {
    return e.code().category() == std::generic_category() ? -e.code().value() : -EIO;
  } catch (const no_hub&) {
    return -ENOENT;
  } catch (const hub_gone&) {
    return 0;  // and all its fibers with it
  } catch (const wrong_thread&) {
    return -EPERM;
  } catch (const deadlock&) {
    return -EDEADLK;
  } catch (const std::logic_error&) {
    return -EINVAL;
  } catch (...) {
    return -EIO;
  }
}

template <class Call>
int errno_of(Call&& call) noexcept {
  try {
    return call();
  } catch (...) {
    return negative_errno();
  }
}

// The caller's structure may be an older one, or a newer one as long as it asks for nothing new. Returns an
// errno.
int choose(const annulet_options& theirs, hub_options& chosen) noexcept {
  if (theirs.size < sizeof(theirs.size)) {
    return EINVAL;
  }
  constexpr std::size_t largest = 4096;  // so that a size that was never set is not read to its end
  if (theirs.size > largest) {
    return E2BIG;
  }
  annulet_options known{};
  const auto* const bytes = reinterpret_cast<const unsigned char*>(&theirs);
  std::memcpy(&known, bytes, std::min(theirs.size, sizeof(known)));
  if (theirs.size > sizeof(known) &&
      std::any_of(bytes + sizeof(known), bytes + theirs.size, [](unsigned char byte) { return byte != 0; })) {
    return E2BIG;
  }
  constexpr auto longest = static_cast<std::uint64_t>(std::chrono::nanoseconds::max().count());
  if (known.shutdown_limit > longest || known.slow_slice > longest || known.reserved != 0) {
    return EINVAL;
  }
  if (known.stack_size != 0) {
    chosen.stack_size = known.stack_size;
  }
  if (known.shutdown_limit != 0) {
    chosen.shutdown_limit = std::chrono::nanoseconds(known.shutdown_limit);
  }
  chosen.slow_slice = std::chrono::nanoseconds(known.slow_slice);
  chosen.dump_signal = known.dump_signal;
  return 0;
}

}  // namespace

}  // namespace annulet

using annulet::detail::hub_core;
using annulet::detail::scheduler;
using annulet::detail::wake_reason;

int annulet_fiber::join_or_tell() {
  annulet::detail::control_block& block = require("join");
  scheduler& here = *scheduler::current();
  annulet::detail::control_block& self = here.running();
  if (&block == &self) {
    return -EDEADLK;
  }
  if (block.state == annulet::detail::fiber_state::done) {
    here.breathe_quietly(1);
    return 0;
  }
  if (here.is_interrupted()) {
    here.breathe_quietly(1);  // its caller may try for ever
    return -ECANCELED;
  }
  if (!block.joiners.empty()) {
    return -EINVAL;
  }
  annulet::detail::waiter ended(self, "annulet_join");
  block.joiners.push_back(ended);
  const wake_reason why =
      here.park_and_tell(ended, annulet::deadline::never(), annulet::detail::wakers::fibers);
  if (why == wake_reason::interrupted && self.deadlocked) {
    here.throw_interruption();
  }
  return why == wake_reason::ready ? 0 : -ECANCELED;
}

int annulet_enter() { return annulet_enter_with(nullptr); }

int annulet_enter_with(const annulet_options* options) {
  if (hub_core::current() != nullptr) {
    return -EEXIST;
  }
  return annulet::errno_of([options] {
    annulet::hub_options chosen;
    if (options != nullptr) {
      if (const int error = annulet::choose(*options, chosen); error != 0) {
        return -error;
      }
    }
    annulet::entered.made = new annulet::hub(chosen);
    annulet::entered.core = hub_core::current();
    return 0;
  });
}

int annulet_leave() {
  if (hub_core::current() == nullptr || annulet::entered.core != hub_core::current()) {
    return -ENOENT;  // one of C++, and maybe in a child of one that had entered
  }
  if (!hub_core::current()->fibers().on_main()) {
    return -EPERM;
  }
  delete std::exchange(annulet::entered, {}).made;
  return 0;
}

int annulet_spawn(void (*run)(void*), void* argument, annulet_fiber** fiber) {
  if (run == nullptr) {
    return -EINVAL;
  }
  return annulet::errno_of([&] {
    // Before there is a fiber: none has to be called off then.
    std::unique_ptr<annulet_fiber> handle(fiber != nullptr ? new annulet_fiber : nullptr);
    annulet::fiber<void> spawned = annulet::spawn({.place = {}}, run, argument);
    if (handle != nullptr) {
      handle->take(std::move(spawned));
      *fiber = handle.release();
    }
    return 0;
  });
}

int annulet_join(annulet_fiber* fiber) {
  if (fiber == nullptr) {
    return -EINVAL;
  }
  const int joined = annulet::errno_of([&] { return fiber->join_or_tell(); });
  if (joined == 0) {
    delete fiber;
  }
  return joined;
}

int annulet_kill(annulet_fiber* fiber) {
  if (fiber == nullptr) {
    return -EINVAL;
  }
  return annulet::errno_of([&] {
    fiber->kill();
    return 0;
  });
}

int annulet_detach(annulet_fiber* fiber) {
  if (fiber == nullptr) {
    return -EINVAL;
  }
  const int detached = annulet::errno_of([&] {
    fiber->detach();
    return 0;
  });
  if (detached == 0) {
    delete fiber;
  }
  return detached;
}

int annulet_yield() {
  scheduler* const here = scheduler::current();
  if (here == nullptr) {
    return -ENOENT;
  }
  return annulet::errno_of([&] {
    here->give_way();
    return here->is_interrupted() ? -ECANCELED : 0;
  });
}

std::uint64_t annulet_fiber_self() {
  scheduler* const here = scheduler::current();
  return here == nullptr ? 0 : here->running().id;
}
