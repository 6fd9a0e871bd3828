// What a close is for, after calls on the descriptor and under them: when it has returned the file is closed,
// for the peer, the port and the pipe. Each check looks right after it, once: no wait, and no other call of
// annulet, may help it. Let nobody list the program's /proc/PID/fd meanwhile, for that holds each file for a
// microsecond.
//
// ANNULET_CLOSE_ROUNDS says how many rounds for each way of closing and each kind of file.

#include "oracle/run.hpp"
#include "support/closing_scenes.hpp"
#include "support/engine.hpp"
#include "support/files.hpp"
#include "support/probe_watch.hpp"

#include <annulet/hub/close.hpp>
#include <annulet/hub/hub.hpp>
#include <annulet/hub/io.hpp>
#include <annulet/runtime/fiber.hpp>
#include <annulet/selector/selector.hpp>
#include <annulet_plants.hpp>

#include <doctest/doctest.h>

#include <array>
#include <cstdint>
#include <cstdio>
#include <memory>
#include <string>

using namespace annulet::test;
using namespace std::chrono_literals;
using annulet::deadline;
using annulet::deadline_passed;
using annulet::file_ref;

namespace {

// Makes calls that come to something, or to nothing, in one of the ways in which that happens.
void use(scene& file, file_ref ref, std::uint64_t round) {
  switch (round % 4) {
    case 0:
      CHECK_THROWS_AS(file.call(ref, 0ms), deadline_passed);
      break;
    case 1:
      CHECK_THROWS_AS(file.call(ref, 10us), deadline_passed);
      break;
    case 2: {
      auto waiting = annulet::spawn([&] { file.call(ref, deadline::never()); });
      annulet::this_fiber::yield();
      annulet::this_fiber::sleep_for(1us);
      waiting.kill();
      waiting.join();
      break;
    }
    default:
      if (file.let_complete()) {
        file.call(ref, 10s);
      }
  }
}

// A fiber that is parked in the call, and ends with EBADF.
annulet::fiber<int> park_in_call(scene& file, file_ref ref, std::uint64_t round) {
  auto parked = annulet::spawn([&file, ref] {
    try {
      file.call(ref, deadline::never());
    } catch (const std::system_error& e) {
      return e.code().value();
    }
    return 0;
  });
  annulet::this_fiber::yield();
  if (round % 2 == 0) {
    annulet::this_fiber::sleep_for(1us);  // the kernel has the request
  }
  return parked;
}

// The ways to close. Each closes the file, and says whether its end showed.
struct way {
  const char* name;
  bool (*close)(scene&, std::uint64_t round);
};

bool bare_close(scene& file, std::uint64_t round) {
  use(file, file.number(), round);
  ::close(file.give());
  return file.shows_the_end();
}

bool bare_close_after_a_selector(scene& file, std::uint64_t round) {
  annulet::selector watching;
  const int fd = file.give();
  watching.register_(fd, annulet::io_event::read | annulet::io_event::write);
  (void)watching.select(0ms);
  use(file, fd, round);
  watching.unregister(fd);
  ::close(fd);
  return file.shows_the_end();
}

bool close_through_the_hub(scene& file, std::uint64_t round) {
  use(file, file.number(), round);
  annulet::close(file.give());
  return file.shows_the_end();
}

bool close_under_a_call(scene& file, std::uint64_t round) {
  auto parked = park_in_call(file, file.number(), round);
  annulet::close(file.give());
  const bool shown = file.shows_the_end();
  CHECK(parked.get() == EBADF);
  return shown;
}

bool destroy(scene& file, std::uint64_t round) {
  {
    const annulet::descriptor owner = annulet::descriptor::adopt(file.give());
    use(file, owner, round);
  }
  return file.shows_the_end();
}

bool close_the_owner_under_a_call(scene& file, std::uint64_t round) {
  annulet::descriptor owner = annulet::descriptor::adopt(file.give());
  auto parked = park_in_call(file, owner, round);
  owner.close();
  const bool shown = file.shows_the_end();
  CHECK(parked.get() == EBADF);
  return shown;
}

bool release_under_a_call(scene& file, std::uint64_t round) {
  annulet::descriptor owner = annulet::descriptor::adopt(file.give());
  auto parked = park_in_call(file, owner, round);
  ::close(owner.release());
  const bool shown = file.shows_the_end();
  CHECK(parked.get() == EBADF);
  return shown;
}

// The kernel holds no request but the watch: the end shows before the fiber has run.
bool destroy_under_a_watch(scene& file, std::uint64_t round) {
  annulet::descriptor owner = annulet::descriptor::adopt(file.give());
  auto parked = park_in_call(file, owner, round);
  owner = annulet::descriptor();
  const bool shown = file.shows_the_end();
  CHECK(parked.get() == EBADF);
  return shown;
}

// The kernel carries out the call itself: the end shows when that is over.
bool destroy_under_a_request(scene& file, std::uint64_t round) {
  annulet::descriptor owner = annulet::descriptor::adopt(file.give());
  auto parked = park_in_call(file, owner, round);
  owner = annulet::descriptor();
  CHECK(parked.get() == EBADF);
  return file.shows_the_end();
}

constexpr std::array ways = {
    way{"a bare close after a call", bare_close},
    way{"a bare close after a call and unregister", bare_close_after_a_selector},
    way{"close through the hub after a call", close_through_the_hub},
    way{"close through the hub under a call", close_under_a_call},
    way{"a descriptor's destructor after a call", destroy},
    way{"a descriptor's close under a call", close_the_owner_under_a_call},
    way{"a descriptor's release under a call, and a bare close", release_under_a_call},
};
constexpr way under_a_watch{"a descriptor's destructor under a watch", destroy_under_a_watch};
constexpr way under_a_request{"a descriptor's destructor under a request", destroy_under_a_request};

// How many of the rounds did not show the end at once.
template <class Scene>
std::uint64_t late_ends(const way& w, std::uint64_t rounds) {
  std::uint64_t late = 0;
  for (std::uint64_t round = 0; round < rounds; ++round) {
    Scene file;
    late += w.close(file, round) ? 0U : 1U;
  }
  return late;
}

template <class Scene>
void check_all(const char* what, const way& destructor) {
  const std::uint64_t rounds = oracle::from_environment("ANNULET_CLOSE_ROUNDS", 1'000);
  annulet::hub hub;
  { const Scene warm_up; }
  const std::size_t descriptors = open_descriptors();
  const auto check = [&](const way& w) {
    CAPTURE(std::string(w.name));
    const std::uint64_t late = late_ends<Scene>(w, rounds);
    std::printf("note: %s, %s: %llu of %llu late\n", what, w.name, static_cast<unsigned long long>(late),
                static_cast<unsigned long long>(rounds));
    CHECK(late == 0);
  };
  for (const way& w : ways) {
    check(w);
  }
  check(destructor);
  CHECK(open_descriptors() == descriptors);
}

}  // namespace

TEST_CASE("when a socket is closed after calls or under them, its peer reads the end of file at once") {
  check_all<unix_socket<false>>("socket", under_a_watch);
  check_all<unix_socket<true>>("blocking socket", under_a_watch);
}

TEST_CASE("when a connection is closed after calls or under them, its peer has the FIN") {
  {
    connection open;
    CHECK_FALSE(open.has_sent_fin());
    const descriptor holder(require_ok(::dup(open.number()), "dup"));
    ::close(open.give());
    CHECK_FALSE(open.end_is_there());
  }
  {
    connection closed;
    ::close(closed.give());
    CHECK(closed.has_sent_fin());
  }
  check_all<connection>("connection", under_a_watch);
}

TEST_CASE("when a listener is closed after calls or under them, its port can be bound again") {
  check_all<port<false>>("port", under_a_watch);
  check_all<port<true>>("port of a blocking listener", under_a_request);
}

TEST_CASE("when an end of a pipe is closed after calls or under them, the other end shows it") {
  check_all<pipe_writer>("writing end of a pipe", under_a_watch);
  check_all<pipe_reader>("reading end of a pipe", under_a_watch);
}

TEST_CASE(
    "when a tty is closed after calls or under them, its master is hung up, after workers by the next look") {
  check_all<tty<false>>("tty", under_a_watch);
  check_all<tty<true>>("blocking tty", under_a_request);
}

TEST_CASE("a cancellation that is queued and not waited for is seen by each of these checks" *
          doctest::skip(skipped_on_epoll("a queued cancellation, as its peers see it"))) {
  annulet::hub hub;
  const auto late_with_plant = [](const way& w, auto scene) {
    auto& every =
        annulet::detail::plant_every[static_cast<std::size_t>(annulet::detail::plant::queued_cancel)];
    every = 1;
    const bool shown = w.close(*scene, 0);  // the kernel has the request
    every = 0;
    return !shown;
  };
  for (const way& w : {under_a_watch, ways[3], ways[5]}) {
    CAPTURE(std::string(w.name));
    CHECK(late_with_plant(w, std::make_unique<unix_socket<false>>()));
    CHECK(late_with_plant(w, std::make_unique<connection>()));
    CHECK(late_with_plant(w, std::make_unique<port<false>>()));
    CHECK(late_with_plant(w, std::make_unique<pipe_writer>()));
    CHECK(late_with_plant(w, std::make_unique<pipe_reader>()));
    CHECK(late_with_plant(w, std::make_unique<tty<false>>()));
  }
}
