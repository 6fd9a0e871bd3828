// What is chosen about a hub, by the environment, in C++ and in C: it makes a hub that works, or is refused
// and changes nothing. A libFuzzer target.
#include "fuzz.hpp"

#include <annulet/hub/c.h>
#include <annulet/hub/hub.hpp>
#include <annulet/runtime/fiber.hpp>

#include <algorithm>
#include <array>
#include <chrono>
#include <csignal>
#include <cstring>
#include <stdexcept>
#include <string>
#include <system_error>
#include <vector>

namespace {

using fuzz::input;

void set_or_not(input& from, const char* name, const std::array<const char*, 5>& known) {
  switch (from.ConsumeIntegralInRange(0, 2)) {
    case 0:
      ::unsetenv(name);
      break;
    case 1:
      ::setenv(name, from.PickValueInArray(known), 1);
      break;
    default: {
      std::string text = from.ConsumeRandomLengthString(40);
      text.resize(std::min(text.find('\0'), text.size()));
      ::setenv(name, text.c_str(), 1);
      break;
    }
  }
}

void require(bool holds, const char* what) {
  if (!holds) {
    fuzz::give_up(what);
  }
}

// One that nobody else here has a handler for.
int some_signal(input& from) {
  return from.PickValueInArray({0, 0, 0, -1, SIGKILL, SIGSEGV, SIGRTMIN, SIGRTMAX, NSIG, 1 << 20});
}

void by_options(input& from) {
  annulet::hub_options options;
  options.engine = static_cast<annulet::engine_choice>(from.ConsumeIntegralInRange(-1, 3));
  options.sq_entries =
      from.ConsumeBool() ? from.ConsumeIntegralInRange(0U, 300U) : from.ConsumeIntegral<unsigned>();
  options.cq_entries =
      from.ConsumeBool() ? from.ConsumeIntegralInRange(0U, 9000U) : from.ConsumeIntegral<unsigned>();
  options.mode = static_cast<annulet::ring_mode>(from.ConsumeIntegralInRange(-1, 4));
  options.stack_size = from.ConsumeBool() ? annulet::default_stack_size : from.ConsumeIntegral<std::size_t>();
  options.guard = static_cast<annulet::stack_guard>(from.ConsumeIntegralInRange(0, 2));
  options.overflows = annulet::overflow_report::none;  // the sanitizer has that signal
  options.look_every = from.ConsumeIntegral<unsigned>();
  options.dump_signal = some_signal(from);
  options.slow_slice = std::chrono::nanoseconds(from.ConsumeIntegral<std::int64_t>());
  options.shutdown_limit =
      std::chrono::nanoseconds(from.ConsumeBool() ? 5'000'000'000 : -from.ConsumeIntegralInRange(0, 5));
  try {
    const annulet::hub home(options);
    require(annulet::spawn([] { return 5; }).get() == 5, "a fiber of a hub that was made");
  } catch (const std::invalid_argument&) {
  } catch (const std::system_error&) {
  }
}

void by_structure(input& from) {
  annulet_options options{};
  options.stack_size = from.ConsumeBool() ? 0 : from.ConsumeIntegral<std::size_t>();
  options.shutdown_limit = from.ConsumeIntegral<std::uint64_t>();
  options.slow_slice = from.ConsumeIntegral<std::uint64_t>();
  options.dump_signal = some_signal(from);
  options.size = from.ConsumeBool() ? sizeof(options) : from.ConsumeIntegralInRange<std::size_t>(0, 100);
  // Exactly as much memory as it says.
  std::vector<char> memory(std::max(options.size, sizeof(options.size)));
  const std::string more = from.ConsumeBytesAsString(memory.size());
  std::copy(more.begin(), more.end(), memory.begin());
  std::memcpy(memory.data(), &options, std::min(sizeof(options), memory.size()));
  if (annulet_enter_with(reinterpret_cast<const annulet_options*>(memory.data())) == 0) {
    require(annulet_yield() == 0 && annulet_leave() == 0, "a thread that has entered");
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  input from(data, size);
  set_or_not(from, "ANNULET_ENGINE", {"uring", "epoll", "", "URING", "io_uring"});
  set_or_not(from, "ANNULET_RING_MODE", {"defer_taskrun", "coop_taskrun", "submit_all", "plain", ""});
  if (from.ConsumeBool()) {
    by_options(from);
  } else {
    by_structure(from);
  }
  require(annulet_yield() == -ENOENT, "no hub is left");
  return 0;
}
