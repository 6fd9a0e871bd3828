// A poll request that the kernel refuses never means silence: the file is watched another way, or the caller
// is told. The refusals are planted.
#include "support/apart.hpp"
#include "support/selecting.hpp"
#include "support/texts.hpp"

#include <annulet/hub/close.hpp>
#include <annulet/hub/hub.hpp>
#include <annulet/runtime/fiber.hpp>
#include <annulet/selector/selector.hpp>
#include <annulet_plants.hpp>

#include <doctest/doctest.h>

#include <chrono>
#include <string>
#include <system_error>

#include <sys/resource.h>

using namespace std::chrono_literals;
using namespace annulet::test;
using annulet::hub;
using annulet::io_event;
using annulet::selector;
using annulet::detail::plant;

namespace {

// The next question whether to strike is answered yes, and no other.
void strike_next(plant which) {
  constexpr unsigned far = 1'000'000'000;
  annulet::detail::plant_every.at(static_cast<std::size_t>(which)) = far;
  annulet::detail::plant_asked.at(static_cast<std::size_t>(which)) = far - 1;
}

bool has_struck(plant which) {
  const auto i = static_cast<std::size_t>(which);
  return annulet::detail::plant_asked.at(i) >= annulet::detail::plant_every.at(i);
}

// A pair whose first end is registered. The next select's poll request for it is refused as too complicated.
socket_pair to_be_refused(selector& sel) {
  socket_pair pair = make_socket_pair();
  sel.register_(pair.first.get(), io_event::read);
  strike_next(plant::refused_poll);
  return pair;
}

// The same, and it has been refused.
socket_pair refused_pair(selector& sel) {
  socket_pair pair = to_be_refused(sel);
  CHECK(look(sel).empty());
  REQUIRE(has_struck(plant::refused_poll));
  return pair;
}

event_map readable(const socket_pair& pair) { return {{pair.first.get(), io_event::read}}; }

// Select throws this errno, and names the descriptor.
template <class Call>
bool refuses(Call&& call, int fd, int error) {
  try {
    (void)call();
  } catch (const std::system_error& e) {
    return e.code().value() == error && e.code().category() == std::generic_category() &&
           std::string(e.what()).find("descriptor " + std::to_string(fd) + " ") != std::string::npos;
  }
  return false;
}

}  // namespace

TEST_CASE("a file that cannot be polled by a request is watched another way, and all is as ever") {
  hub home;
  selector sel;
  const std::size_t before = open_descriptors();
  {
    socket_pair pair = refused_pair(sel);
    const int fd = pair.first.get();
    for (int round = 0; round < 10; ++round) {
      auto fiber = park_in_select(sel);
      CHECK(!fiber.join(1ms));
      send_byte(pair.second.get());
      REQUIRE(fiber.join(limit));
      CHECK(fiber.get() == readable(pair));
      CHECK(look(sel) == readable(pair));
      drain(fd);
      CHECK(look(sel).empty());
    }
    CHECK(open_descriptors() == before + 3);
    fill(fd);
    sel.modify(fd, io_event::write);
    auto fiber = park_in_select(sel);
    send_byte(pair.second.get());
    CHECK(!fiber.join(2ms));
    drain(pair.second.get());
    CHECK(fiber.join(limit));
    CHECK(fiber.get() == event_map{{fd, io_event::write}});
    sel.modify(fd, io_event::read);
    CHECK(look(sel) == readable(pair));
    drain(fd);
    CHECK(look(sel).empty());
    fiber = park_in_select(sel);
    pair.second.close();
    CHECK(fiber.join(limit));
    CHECK(fiber.get() == readable(pair));
    sel.unregister(fd);
  }
  CHECK(open_descriptors() == before);
}

TEST_CASE("a refusal that comes while select is parked does not end it") {
  hub home;
  selector sel;
  const socket_pair pair = make_socket_pair();
  sel.register_(pair.first.get(), io_event::read);
  strike_next(plant::refused_poll);
  auto fiber = park_in_select(sel);
  CHECK(!fiber.join(5ms));
  CHECK(has_struck(plant::refused_poll));
  send_byte(pair.second.get());
  CHECK(fiber.join(limit));
  CHECK(fiber.get() == readable(pair));
}

TEST_CASE("a file that is watched another way is let go like others") {
  hub home;
  selector sel;
  const std::size_t before = open_descriptors();
  {
    socket_pair pair = refused_pair(sel);
    const int fd = pair.first.get();
    CHECK(look(sel).empty());
    SUBCASE("by unregister and close") {
      sel.unregister(fd);
      pair.first.close();
    }
    SUBCASE("by the selector's close") {
      sel.close();
      pair.first.close();
    }
    SUBCASE("by a close through the hub, under a parked select") {
      auto fiber = park_in_select(sel);
      annulet::close(pair.first.release());
      CHECK(fiber.join(limit));
      CHECK(fiber.get() == event_map{{fd, io_event::read}});
      CHECK(sel.modify(fd, io_event::write)->fd == fd);
      CHECK(look(sel) == event_map{{fd, io_event::write}});
      sel.unregister(fd);
    }
    SUBCASE("by a close behind the hub's back") {
      pair.first.close();
      sel.unregister(fd);
    }
    CHECK(at_end_of_file(pair.second.get()));
  }
  CHECK(open_descriptors() == before);
}

TEST_CASE(
    "any other refusal is thrown by select, which names the descriptor; the key stays, and is tried again") {
  hub home;
  selector sel;
  const socket_pair quiet = make_socket_pair();
  sel.register_(quiet.first.get(), io_event::read);
  CHECK(look(sel).empty());
  strike_next(plant::failed_poll);
  const socket_pair pair = to_be_refused(sel);
  const int fd = pair.first.get();
  SUBCASE("looking once") {
    CHECK(refuses([&] { return sel.select(0s); }, fd, ENOMEM));
  }
  SUBCASE("waiting") {
    CHECK(refuses([&] { return sel.select(); }, fd, ENOMEM));
  }
  SUBCASE("parked, when it is refused again") {
    CHECK(refuses([&] { return sel.select(0s); }, fd, ENOMEM));
    strike_next(plant::refused_poll);
    strike_next(plant::failed_poll);
    auto fiber = annulet::spawn([&] { return sel.select(); });
    CHECK(fiber.join(limit));
    CHECK(refuses([&] { return fiber.get(); }, fd, ENOMEM));
  }
  CHECK(sel.get_map().size() == 2);
  auto fiber = park_in_select(sel);
  CHECK(!fiber.join(2ms));
  send_byte(pair.second.get());
  CHECK(fiber.join(limit));
  CHECK(fiber.get() == readable(pair));
}

TEST_CASE("where no descriptor is to be had for the other way, select says so until there is one") {
  CHECK(run_apart([] {
          hub home;
          selector sel;
          const socket_pair pair = to_be_refused(sel);
          rlimit files{};
          require_ok(::getrlimit(RLIMIT_NOFILE, &files), "getrlimit");
          rlimit none = files;
          none.rlim_cur = 0;
          require_ok(::setrlimit(RLIMIT_NOFILE, &none), "setrlimit");
          const bool told = refuses([&] { return sel.select(0s); }, pair.first.get(), EMFILE);
          require_ok(::setrlimit(RLIMIT_NOFILE, &files), "setrlimit");
          strike_next(plant::refused_poll);
          auto fiber = park_in_select(sel);
          send_byte(pair.second.get());
          const bool found = fiber.join(limit) && fiber.get() == readable(pair);
          return (told ? 0 : 1) + (found && has_struck(plant::refused_poll) ? 0 : 2);
        }) == 0);
}
