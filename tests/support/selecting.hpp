// What the tests of the selector share: results that can be compared and printed, what poll(2) says in the
// selector's terms, and fibers parked in select.
#pragma once

#include "texts.hpp"

#include <annulet/runtime/fiber.hpp>
#include <annulet/selector/selector.hpp>

#include <doctest/doctest.h>

#include <chrono>
#include <map>
#include <stdexcept>
#include <utility>
#include <vector>

#include <time.h>

namespace annulet::test {

using steady = std::chrono::steady_clock;

constexpr io_event both = io_event::read | io_event::write;
// Long enough for what has to happen on a busy machine; a test that waits so long has failed.
constexpr std::chrono::seconds limit(10);

// Descriptor -> events: what a select returned, without its order.
using event_map = std::map<int, io_event>;

template <class Ready>
event_map as_map(const std::vector<Ready>& ready) {
  event_map found;
  for (const auto& [key, events] : ready) {
    if (!found.emplace(key->fd, events).second) {
      throw std::logic_error("select returned a key twice");
    }
  }
  return found;
}

template <class Data>
event_map look(basic_selector<Data>& sel) {
  return as_map(sel.select(std::chrono::seconds(0)));
}

// The contract in terms of poll(2): any bit but OUT means read, any bit but IN means write, of those asked.
inline io_event events_by_poll(int fd, io_event interest) {
  const int asked =
      (has(interest, io_event::read) ? POLLIN : 0) | (has(interest, io_event::write) ? POLLOUT : 0);
  const int revents = revents_of(fd, asked);
  io_event events = io_event::none;
  if ((revents & ~POLLOUT) != 0) {
    events |= io_event::read;
  }
  if ((revents & ~POLLIN) != 0) {
    events |= io_event::write;
  }
  return events & interest;
}

// Spawns a fiber that runs the body, and lets it run until it parks: it yields a bounded number of times
// before that.
template <class Body>
auto spawn_parked(Body&& body) {
  auto fiber = spawn(std::forward<Body>(body));
  for (int i = 0; i < 4; ++i) {
    this_fiber::yield();
  }
  return fiber;
}

// A fiber that is parked in select when this returns, and gives what select returned.
template <class Data>
fiber<event_map> park_in_select(basic_selector<Data>& sel, deadline until = deadline::never()) {
  auto fiber = spawn_parked([&sel, until] { return as_map(sel.select(until)); });
  if (fiber.done()) {
    throw std::logic_error("a select that should park has returned");
  }
  return fiber;
}

}  // namespace annulet::test

namespace doctest {

template <>
struct StringMaker<annulet::io_event> {
  static String convert(annulet::io_event events) {
    constexpr const char* names[] = {"none", "read", "write", "read|write"};
    return names[static_cast<unsigned>(events) & 3U];
  }
};

template <>
struct StringMaker<annulet::test::event_map> {
  static String convert(const annulet::test::event_map& ready) {
    String text = "{";
    for (const auto& [fd, events] : ready) {
      text += String(" ") + toString(fd) + ":" + StringMaker<annulet::io_event>::convert(events);
    }
    return text + " }";
  }
};

}  // namespace doctest
