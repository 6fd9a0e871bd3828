// An echo server of the examples, started as a user starts it, and what can be seen of it from outside.
#pragma once

#include "program.hpp"

#include <cstdint>
#include <stdexcept>
#include <string_view>

namespace annulet::test {

// Listening.
struct echo_program : program {
  explicit echo_program(
      const std::string& name, const std::string& port = "0", const std::function<void()>& prepare = [] {})
      : program(built("examples", name), {port}, prepare) {
    constexpr std::string_view before = "listening on 127.0.0.1:";
    const auto first = line();
    if (!first || !first->starts_with(before)) {
      throw std::runtime_error(name + " does not listen: " + wait().err);
    }
    port_number = static_cast<std::uint16_t>(std::stoul(first->substr(before.size())));
  }

  std::uint16_t port_number = 0;
};

inline std::size_t descriptors_of(const program& p) {
  const auto folder = "/proc/" + std::to_string(p.pid()) + "/fd";
  return static_cast<std::size_t>(std::distance(std::filesystem::directory_iterator(folder), {}));
}

// How often its main thread went to sleep while it had nothing to do for 100 ms. That tells exactly what a
// server does where there is nothing to do, provided that it sleeps at all: see cpu().
inline std::uint64_t sleeps_while_idle(const program& p) {
  const auto sleeps = [&] {
    return proc_value("/proc/" + std::to_string(p.pid()) + "/status", "voluntary_ctxt_switches");
  };
  const std::uint64_t before = sleeps();
  ::usleep(100'000);
  return sleeps() - before;
}

}  // namespace annulet::test
