// What happens to a fiber parked in select while others register, modify, unregister, close and kill: it
// takes effect at once, and the selector stays whole.
#include "support/engine.hpp"
#include "support/selecting.hpp"
#include "support/texts.hpp"

#include <annulet/hub/close.hpp>
#include <annulet/hub/hub.hpp>
#include <annulet/runtime/cancellation.hpp>
#include <annulet/runtime/errors.hpp>
#include <annulet/runtime/fiber.hpp>
#include <annulet/selector/selector.hpp>

#include <doctest/doctest.h>

#include <array>
#include <chrono>
#include <memory>
#include <optional>
#include <thread>
#include <vector>

using namespace std::chrono_literals;
using namespace annulet::test;
using annulet::hub;
using annulet::io_event;
using annulet::selector;

namespace {

// Registered for reading, and looked at once, so that its request is armed and it is no candidate.
socket_pair watched_pair(selector& sel, int type = SOCK_STREAM) {
  socket_pair pair = make_socket_pair(type);
  sel.register_(pair.first.get(), io_event::read);
  REQUIRE(look(sel).empty());
  return pair;
}

// The selector does all it should: what is registered stays, and events come.
void require_whole(selector& sel, const socket_pair& registered) {
  REQUIRE(sel.get_map().contains(registered.first.get()));
  REQUIRE(look(sel).empty());
  auto fiber = park_in_select(sel);
  write_text(registered.second.get(), "x");
  REQUIRE(fiber.join(limit));
  REQUIRE(fiber.get() == event_map{{registered.first.get(), io_event::read}});
  drain(registered.first.get());
  REQUIRE(look(sel).empty());
}

template <class Fiber>
bool ends_closed(Fiber& fiber) {
  if (!fiber.join(limit)) {
    return false;
  }
  try {
    (void)fiber.get();
    return false;
  } catch (const std::runtime_error& e) {
    return std::string(e.what()).find("selector is closed") != std::string::npos;
  }
}

}  // namespace

TEST_CASE("a ready descriptor that is registered wakes a parked select") {
  hub home;
  selector sel;
  const socket_pair pair = watched_pair(sel), other = make_socket_pair();
  auto fiber = park_in_select(sel);
  sel.register_(other.first.get(), io_event::write);
  CHECK(fiber.join(limit));
  CHECK(fiber.get() == event_map{{other.first.get(), io_event::write}});
}

TEST_CASE("a descriptor registered while select is parked is reported when it becomes ready") {
  hub home;
  selector sel;
  const socket_pair other = make_socket_pair();
  auto fiber = park_in_select(sel);  // with nothing registered
  sel.register_(other.first.get(), io_event::read);
  CHECK(!fiber.join(20ms));
  write_text(other.second.get(), "x");
  CHECK(fiber.join(limit));
  CHECK(fiber.get() == event_map{{other.first.get(), io_event::read}});
}

TEST_CASE("a modify takes effect in a parked select") {
  hub home;
  annulet::basic_selector<int> sel;
  const socket_pair pair = make_socket_pair();
  sel.register_(pair.first.get(), io_event::read, 1);
  auto fiber = spawn_parked([&] { return sel.select(); });
  const auto key = sel.modify(pair.first.get(), both, 2);
  REQUIRE(fiber.join(limit));
  const auto ready = fiber.get();
  REQUIRE(ready.size() == 1);
  CHECK(ready[0].key == key);
  CHECK(ready[0].events == io_event::write);
}

TEST_CASE("what a modify takes out of the interest is not reported, and what it leaves is") {
  hub home;
  selector sel;
  const socket_pair pair = watched_pair(sel);
  fill(pair.first.get());
  auto fiber = park_in_select(sel);
  sel.modify(pair.first.get(), io_event::write);
  write_text(pair.second.get(), "x");
  CHECK(!fiber.join(20ms));
  drain(pair.second.get());
  CHECK(fiber.join(limit));
  CHECK(fiber.get() == event_map{{pair.first.get(), io_event::write}});
}

TEST_CASE("a modify of the data alone lets a parked select be, and its result has the new data") {
  hub home;
  annulet::basic_selector<int> sel;
  const socket_pair pair = make_socket_pair();
  sel.register_(pair.first.get(), io_event::read, 1);
  auto fiber = spawn_parked([&] { return sel.select(); });
  sel.modify(pair.first.get(), io_event::read, 2);
  CHECK(!fiber.join(5ms));
  write_text(pair.second.get(), "x");
  REQUIRE(fiber.join(limit));
  CHECK(fiber.get().at(0).key->data == 2);
}

TEST_CASE("a key that is unregistered while select is parked is not reported") {
  hub home;
  selector sel;
  const socket_pair gone = watched_pair(sel), stays = watched_pair(sel);
  auto fiber = park_in_select(sel);
  SUBCASE("before it is ready") {
    sel.unregister(gone.first.get());
    write_text(gone.second.get(), "x");
  }
  SUBCASE("after it became ready, in the same breath") {
    write_text(gone.second.get(), "x");
    sel.unregister(gone.first.get());
  }
  SUBCASE("after it has woken the select, which has not run yet") {
    sel.modify(gone.first.get(), io_event::write);  // ready at once
    sel.unregister(gone.first.get());
  }
  SUBCASE("in a batch") {
    write_text(gone.second.get(), "x");
    sel.unregister_all(std::array{gone.first.get()});
  }
  CHECK(!fiber.join(20ms));
  write_text(stays.second.get(), "x");
  CHECK(fiber.join(limit));
  CHECK(fiber.get() == event_map{{stays.first.get(), io_event::read}});
}

TEST_CASE("a select whose last key goes waits for its deadline, and returns nothing") {
  hub home;
  selector sel;
  const socket_pair pair = watched_pair(sel);
  const auto until = steady::now() + 50ms;
  auto fiber = park_in_select(sel, until);
  sel.unregister(pair.first.get());
  write_text(pair.second.get(), "x");
  CHECK(fiber.join(limit));
  CHECK(steady::now() >= until);
  CHECK(fiber.get().empty());
}

TEST_CASE("a descriptor closed through the hub is reported to a parked select, for all that was asked") {
  hub home;
  selector sel;
  for (const io_event asked : {io_event::read, io_event::write, both}) {
    for (const bool by_dup2 : {false, true}) {
      CAPTURE(asked);
      CAPTURE(by_dup2);
      socket_pair pair = make_socket_pair();
      const socket_pair source = make_socket_pair();
      fill(pair.first.get());
      fill(source.first.get());
      const int fd = pair.first.release();
      sel.register_(fd, asked);
      auto fiber = park_in_select(sel);
      if (by_dup2) {
        CHECK(annulet::dup2(source.first.get(), fd) == fd);
      } else {
        annulet::close(fd);
      }
      CHECK(!drain(pair.second.get()));  // it is followed by the end of file
      CHECK(fiber.join(limit));
      CHECK(fiber.get() == event_map{{fd, asked}});
      CHECK(look(sel) == event_map{{fd, asked}});
      // Whoever gets the number now changes nothing about that.
      REQUIRE(::dup2(source.first.get(), fd) == fd);
      const descriptor reused(fd);
      CHECK(look(sel) == event_map{{fd, asked}});
      sel.unregister(fd);
      CHECK(look(sel).empty());
    }
  }
}

TEST_CASE("a close behind the hub's back neither crashes nor wakes another key, and unregister cures it") {
  hub home;
  selector sel;
  socket_pair gone = watched_pair(sel);
  const socket_pair stays = watched_pair(sel), fresh = make_socket_pair();
  const int fd = gone.first.get();
  auto fiber = park_in_select(sel);
  // A request in the ring holds the file; for an epoll set it takes a duplicate.
  descriptor duplicate(on_epoll() ? require_ok(::dup(fd), "dup") : -1);
  ::close(gone.first.release());
  SUBCASE("the number stays closed") {}
  SUBCASE("the number has a new owner") { REQUIRE(::dup2(fresh.first.get(), fd) == fd); }
  SUBCASE("the old file is still heard of") { write_text(gone.second.get(), "x"); }
  if (fiber.join(20ms)) {
    CHECK(fiber.get() == event_map{{fd, io_event::read}});
    sel.unregister(fd);
    fiber = park_in_select(sel);
  } else {
    sel.unregister(fd);
  }
  write_text(stays.second.get(), "x");
  CHECK(fiber.join(limit));
  CHECK(fiber.get() == event_map{{stays.first.get(), io_event::read}});
  duplicate.close();
  CHECK((revents_of(gone.second.get(), POLLIN) & POLLHUP) != 0);
  if (is_open(fd)) {
    sel.register_(fd, io_event::read);
    drain(stays.first.get());
    CHECK(look(sel).empty());
    write_text(fresh.second.get(), "x");
    CHECK(look(sel) == event_map{{fd, io_event::read}});
    ::close(fd);
  }
}

TEST_CASE("close wakes a parked select with the closed error") {
  hub home;
  auto sel = std::make_unique<selector>();
  const socket_pair pair = watched_pair(*sel);
  auto fiber = park_in_select(*sel);
  SUBCASE("by close") { sel->close(); }
  SUBCASE("by the selector's end") { sel.reset(); }
  SUBCASE("from another thread, through a handle of the hub") {
    std::thread([&, handle = home.handle()] { handle.post([&] { sel->close(); }); }).join();
  }
  SUBCASE("though an event has woken it, before it ran") {
    sel->modify(pair.first.get(), io_event::write);
    sel->close();
  }
  SUBCASE("though an event has woken it, before the selector's end") {
    sel->modify(pair.first.get(), io_event::write);
    sel.reset();
  }
  CHECK(ends_closed(fiber));
  fiber.kill();
}

TEST_CASE("a select that lets others run before it looks notices that one of them closed the selector") {
  hub home;
  selector sel;
  auto fiber = annulet::spawn([&] { return sel.select(0s).size(); });
  auto closer = annulet::spawn([&] { sel.close(); });
  CHECK(ends_closed(fiber));
  CHECK(closer.done());
}

TEST_CASE("a parked select can be killed, and leaves the selector whole") {
  hub home;
  selector sel;
  const socket_pair pair = watched_pair(sel);
  auto fiber = park_in_select(sel);
  fiber.kill();
  CHECK(fiber.join(limit));
  CHECK_THROWS_AS(fiber.get(), annulet::fiber_failed);
  require_whole(sel, pair);
}

TEST_CASE("a kill that comes after the event lets select return, and strikes at the next park") {
  hub home;
  selector sel;
  const socket_pair pair = watched_pair(sel);
  event_map seen;
  auto fiber = spawn_parked([&] {
    seen = as_map(sel.select());
    (void)sel.select(-1s);
    FAIL_CHECK("the kill was forgotten");
  });
  sel.modify(pair.first.get(), io_event::write);
  fiber.kill();
  CHECK(fiber.join(limit));
  CHECK(seen == event_map{{pair.first.get(), io_event::write}});
  sel.modify(pair.first.get(), io_event::read);
  require_whole(sel, pair);
}

TEST_CASE("a parked select that times out returns nothing, never early, and leaves the selector whole") {
  hub home;
  selector sel;
  const socket_pair pair = watched_pair(sel);
  for (int i = 0; i < 20; ++i) {
    const auto wait = std::chrono::microseconds(100 + 97 * i);
    const auto begin = steady::now();
    CHECK(sel.select(wait).empty());
    CHECK(steady::now() - begin >= wait);
  }
  require_whole(sel, pair);
}

TEST_CASE("a timeout guard ends a parked select, nested guards apart, and leaves the selector whole") {
  hub home;
  selector sel;
  const socket_pair pair = watched_pair(sel);
  annulet::timeout outer(40ms);
  int ended_by = 0;
  try {
    annulet::timeout inner(5ms);
    try {
      (void)sel.select();
    } catch (const annulet::timeout_expired& e) {
      ended_by = e.is(inner) && !e.is(outer) ? 1 : -1;
      annulet::timeout late(10s);
      (void)sel.select();
    }
  } catch (const annulet::timeout_expired& e) {
    ended_by += e.is(outer) ? 10 : -10;
  }
  CHECK(ended_by == 11);
  require_whole(sel, pair);
}

TEST_CASE(
    "a second select on the same selector is refused, and other selectors may watch the same descriptors") {
  hub home;
  selector sel, other;
  const socket_pair pair = watched_pair(sel);
  other.register_(pair.first.get(), io_event::read);
  auto fiber = park_in_select(sel);
  auto elsewhere = park_in_select(other);
  CHECK_THROWS_AS((void)sel.select(0s), std::logic_error);
  CHECK_THROWS_AS((void)sel.select(), std::logic_error);
  CHECK_THROWS_AS((void)sel.select(10ms), std::logic_error);
  write_text(pair.second.get(), "x");
  CHECK(fiber.join(limit));
  CHECK(elsewhere.join(limit));
  CHECK(fiber.get() == elsewhere.get());
  CHECK(look(sel) == event_map{{pair.first.get(), io_event::read}});
}

TEST_CASE("an echo fiber that selects in the background serves until its selector closes") {
  hub home;
  selector sel;
  const socket_pair pair = watched_pair(sel);
  auto echo = annulet::spawn([&] {
    for (;;) {
      for (const auto& [key, events] : sel.select()) {
        write_text(key->fd, read_text(key->fd));
      }
    }
  });
  selector mine;
  mine.register_(pair.second.get(), io_event::read);
  for (int i = 0; i < 100; ++i) {
    write_text(pair.second.get(), std::to_string(i));
    REQUIRE(mine.select(limit).size() == 1);
    REQUIRE(read_text(pair.second.get()) == std::to_string(i));
  }
  sel.close();
  CHECK(ends_closed(echo));
}

TEST_CASE("an event made by another thread wakes a parked select") {
  hub home;
  selector sel;
  const socket_pair pair = watched_pair(sel);
  for (int i = 0; i < 200; ++i) {
    std::thread writer([&] { write_text(pair.second.get(), "x"); });
    const auto ready = as_map(sel.select(limit));
    writer.join();
    REQUIRE(ready == event_map{{pair.first.get(), io_event::read}});
    drain(pair.first.get());
  }
}

TEST_CASE("the hub's end kills a parked select, and the selector then says that its hub has gone") {
  std::optional<selector> sel;
  socket_pair pair;
  {
    hub home;
    sel.emplace();
    pair = watched_pair(*sel);
    park_in_select(*sel).detach();
  }
  CHECK_THROWS_AS((void)sel->select(0s), annulet::hub_gone);
  pair.first.close();
  CHECK(at_end_of_file(pair.second.get()));
}
