#include "c.h"

#include "hub.hpp"
#include "hub_core.hpp"

#include <annulet/runtime/errors.hpp>
#include <annulet/runtime/fiber.hpp>
#include <annulet/runtime/switching.hpp>

#include <cerrno>
#include <new>
#include <stdexcept>
#include <system_error>
#include <utility>

struct annulet_fiber final : annulet::fiber<void> {
  explicit annulet_fiber(annulet::fiber<void>&& of) noexcept : annulet::fiber<void>(std::move(of)) {}

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

int annulet_enter() {
  if (hub_core::current() != nullptr) {
    return -EEXIST;
  }
  return annulet::errno_of([] {
    annulet::entered.made = new annulet::hub;
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
    annulet::fiber<void> spawned = annulet::spawn({.place = {}}, run, argument);
    if (fiber == nullptr) {
      return 0;
    }
    *fiber = new (std::nothrow) annulet_fiber(std::move(spawned));
    if (*fiber == nullptr) {
      spawned.kill();  // it has not begun, and never will
      return -ENOMEM;
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
