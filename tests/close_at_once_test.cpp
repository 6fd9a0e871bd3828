// What a close is for: when the call has returned the file is closed, for the peer, the port and the pipe.
// Each check looks right after the call, once: no wait, and no other call of annulet, may help it.
#include "oracle/run.hpp"
#include "support/engine.hpp"
#include "support/files.hpp"
#include "support/probe_watch.hpp"

#include <annulet/hub/close.hpp>
#include <annulet/hub/hub.hpp>
#include <annulet/runtime/fiber.hpp>
#include <annulet/selector/selector.hpp>
#include <annulet_plants.hpp>

#include <doctest/doctest.h>

#include <array>
#include <chrono>
#include <functional>
#include <string>
#include <vector>

using namespace annulet;
using namespace annulet::test;
using namespace std::chrono_literals;

namespace {

// The ways to let a file go that a selector watches. Each takes the selector and the number, and closes it.
struct way {
  const char* name;
  void (*close)(selector&, int);
};

void close_through_the_hub(selector& watching, int fd) {
  annulet::close(fd);
  watching.unregister(fd);
}

void unregister_and_close(selector& watching, int fd) {
  watching.unregister(fd);
  ::close(fd);
}

void close_and_unregister(selector& watching, int fd) {
  ::close(fd);
  watching.unregister(fd);
}

void dup2_over_it(selector& watching, int fd) {
  static const int null = require_ok(::open("/dev/null", O_RDWR | O_CLOEXEC), "open");
  annulet::dup2(null, fd);
  watching.unregister(fd);
  ::close(fd);
}

void unregister_all_and_close(selector& watching, int fd) {
  watching.unregister_all(std::array{fd});
  ::close(fd);
}

void close_the_selector(selector& watching, int fd) {
  watching.close();
  ::close(fd);
}

constexpr std::array ways = {
    way{"close through the hub", close_through_the_hub},
    way{"unregister, then a bare close", unregister_and_close},
    way{"a bare close, then unregister", close_and_unregister},
    way{"dup2 over it", dup2_over_it},
    way{"unregister_all, then a bare close", unregister_all_and_close},
    way{"close of the selector, then a bare close", close_the_selector},
};

// Has the kernel hold a request on it, armed in one of the ways in which that happens.
void arm(selector& watching, int fd, int round) {
  watching.register_(fd, io_event::read);
  switch (round % 4) {
    case 0:  // registered only: the kernel knows of nothing
      break;
    case 1:
      CHECK(watching.select(0ms).empty());
      break;
    case 2:
      CHECK(watching.select(10us).empty());
      break;
    default: {  // parked in
      auto waiting = spawn([&] { (void)watching.select(); });
      this_fiber::yield();
      this_fiber::sleep_for(1us);
      waiting.kill();
      waiting.join();
    }
  }
}

// How many of the rounds did not show the end at once.
std::size_t late_ends(int rounds, const way& w,
                      const std::function<bool(selector&, const way&, int)>& shows) {
  std::size_t late = 0;
  selector shared;
  for (int round = 0; round < rounds; ++round) {
    if (w.close == close_the_selector) {
      selector own;
      late += shows(own, w, round) ? 0U : 1U;
    } else {
      late += shows(shared, w, round) ? 0U : 1U;
    }
  }
  return late;
}

// Where nothing of ours holds a file (epoll), or holds it until a call of annulet (a ring that defers its
// work).
bool held_until_called = false;
int came_by_itself = 0;

// Looked for once. But an end that comes within a millisecond without any call of annulet, where a file of
// ours could not, is counted apart: Linux gives a file's memory to the next at once, and a lookup by another
// process that still means the one before holds the new one for an instant. (The plant below comes by itself
// never.)
bool is_there(const std::function<bool()>& look) {
  if (look()) {
    return true;
  }
  const auto begin = std::chrono::steady_clock::now();
  while (std::chrono::steady_clock::now() - begin < 1ms) {
    if (look()) {
      const std::chrono::nanoseconds late = std::chrono::steady_clock::now() - begin;
      MESSAGE("an end came by itself ", late.count(), " ns late");
      came_by_itself += held_until_called ? 1 : 0;
      return held_until_called;
    }
  }
  return false;
}

bool socket_shows(selector& watching, const way& w, int round) {
  auto pair = make_socket_pair();
  arm(watching, pair.first.get(), round);
  w.close(watching, pair.first.release());
  return is_there([&] { return try_read(pair.second.get()) == 0; });
}

bool pipe_shows(selector& watching, const way& w, int round) {
  auto [reader, writer] = make_pipe();
  // A pipe is watched for its reading end to hang up: fill it, or it is ready at once.
  const std::string much(1U << 16U, 'x');
  require_ok(static_cast<int>(::write(writer.get(), much.data(), much.size())), "write");
  watching.register_(writer.get(), io_event::write);
  if (round % 2 == 0) {
    CHECK(watching.select(0ms).empty());
  }
  w.close(watching, writer.release());
  drain(reader.get());
  return is_there([&] { return try_read(reader.get()) == 0; });
}

bool connection_shows(const tcp_listener& listener, selector& watching, const way& w, int round) {
  auto connection = connect_to(listener);
  reset_on_close(connection.first.get());
  arm(watching, connection.second.get(), round);
  w.close(watching, connection.second.release());
  return is_there([&] { return try_read(connection.first.get()) == 0; });
}

bool port_shows(selector& watching, const way& w, int round) {
  auto listener = make_tcp_listener();
  arm(watching, listener.socket.get(), round);
  w.close(watching, listener.socket.release());
  return is_there([&] {
    try {
      return make_tcp_listener(listener.port).port == listener.port;
    } catch (const std::system_error&) {
      return false;
    }
  });
}

// 20,000 rounds on the default ring for the two ways that users are told of, fewer for the others.
void count_late_ends(const std::function<bool(selector&, const way&, int)>& shows) {
  came_by_itself = 0;
  const auto most = static_cast<int>(oracle::from_environment("ANNULET_CLOSE_AT_ONCE_ROUNDS", 20'000));
  for (const ring_mode mode : all_modes) {
    hub hub(options_for(mode));
    held_until_called = on_epoll() || mode == ring_mode::defer_taskrun;
    for (const way& w : ways) {
      CAPTURE(std::string(w.name));
      CAPTURE(static_cast<int>(mode));
      const bool often = mode == ring_mode::defer_taskrun &&
                         (w.close == close_through_the_hub || w.close == unregister_and_close);
      CHECK(late_ends(often ? most : most / 20, w, shows) == 0);
    }
  }
  CHECK(came_by_itself <= 2);
}

}  // namespace

TEST_CASE("when a socket has been let go and closed, its peer reads the end of file at once") {
  count_late_ends(socket_shows);
}

TEST_CASE("when the writing end of a pipe has been let go and closed, its reader has the end of file") {
  count_late_ends(pipe_shows);
}

TEST_CASE("when a connection has been let go and closed, its peer has the FIN") {
  const auto listener = make_tcp_listener();
  count_late_ends([&](selector& watching, const way& w, int round) {
    return connection_shows(listener, watching, w, round);
  });
}

TEST_CASE("when a listener has been let go and closed, its port can be bound again") {
  count_late_ends(port_shows);
}

TEST_CASE("a cancellation that is queued and not waited for is seen by each of these checks" *
          doctest::skip(skipped_on_epoll("a queued cancellation, as its peers see it"))) {
  hub hub;
  held_until_called = true;
  const way& through_the_hub = ways[0];
  const auto listener = make_tcp_listener();
  const auto late_with_plant = [&](const std::function<bool(selector&, const way&, int)>& shows) {
    // The key of a descriptor whose request was not reaped cannot be taken off while the plant is there.
    const way plant_and_close{
        "planted", [](selector&, int fd) {
          detail::plant_every[static_cast<std::size_t>(detail::plant::queued_cancel)] = 1;
          annulet::close(fd);
          detail::plant_every[static_cast<std::size_t>(detail::plant::queued_cancel)] = 0;
        }};
    selector watching;
    const bool shown = shows(watching, plant_and_close, 2);
    watching.close();
    return !shown;
  };
  CHECK(late_with_plant(socket_shows));
  CHECK(late_with_plant(pipe_shows));
  CHECK(late_with_plant(port_shows));
  CHECK(late_with_plant([&](selector& watching, const way& w, int round) {
    return connection_shows(listener, watching, w, round);
  }));
  CHECK(late_ends(10, through_the_hub, socket_shows) == 0);
}
