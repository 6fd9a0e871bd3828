// The engine of a contender's hub. What the tables call annulet is annulet on io_uring, by name, so that
// where that is refused there are no figures instead of others; "annulet, on epoll" is the same program on
// the other engine.
#pragma once

#include <annulet/hub/hub.hpp>

#include <exception>
#include <thread>
#include <utility>

#include "harness.hpp"

namespace bench {

inline annulet::hub_options on(annulet::engine_choice engine) {
  annulet::hub_options options;
  options.engine = engine;
  return options;
}

inline constexpr const char* on_epoll_name = "annulet, on epoll";

// The turn on a thread of its own, which has a hub on epoll: this thread's hub stays, and waits meanwhile.
// The thread inherits the processor that this one is pinned to.
inline turn_function with_hub_on_epoll(turn_function turn) {
  return [turn = std::move(turn)](meter& clock, std::uint64_t operations) {
    std::exception_ptr thrown;
    std::thread([&] {
      try {
        annulet::hub hub(on(annulet::engine_choice::epoll));
        turn(clock, operations);
      } catch (...) {
        thrown = std::current_exception();
      }
    }).join();
    if (thrown != nullptr) {
      std::rethrow_exception(thrown);
    }
  };
}

// The second line of annulet, held against raw epoll itself.
inline contender annulet_on_epoll(turn_function turn, std::string raw, std::optional<goal> bound = {}) {
  return {.name = on_epoll_name,
          .turn = with_hub_on_epoll(std::move(turn)),
          .own = rivalry{std::move(raw), std::move(bound)}};
}

}  // namespace bench
