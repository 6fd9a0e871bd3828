// The selectors API, case by case: what Python's own tests hold its selectors to.
#include "support/selecting.hpp"
#include "support/texts.hpp"

#include <annulet/hub/hub.hpp>
#include <annulet/runtime/fiber.hpp>
#include <annulet/selector/selector.hpp>

#include <doctest/doctest.h>

#include <any>
#include <array>
#include <chrono>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include <signal.h>
#include <sys/time.h>

using namespace std::chrono_literals;
using namespace annulet::test;
using annulet::io_event;
using annulet::key_error;
using annulet::selector;

TEST_CASE("register returns a key with the descriptor, the events and the data") {
  annulet::hub hub;
  selector sel;
  const socket_pair pair = make_socket_pair();
  const int fd = pair.first.get();
  const selector::key_type key = sel.register_(fd, io_event::read, std::string("abc"));
  REQUIRE(key);
  CHECK(key->fd == fd);
  CHECK(key->events == io_event::read);
  CHECK(std::any_cast<std::string>(key->data) == "abc");
  CHECK(key->get<descriptor>() == nullptr);
}

TEST_CASE("a selector is made on the hub that it is given") {
  annulet::hub hub;
  selector sel(hub);
  const socket_pair pair = make_socket_pair();
  sel.register_(pair.first, io_event::write);
  CHECK(look(sel) == event_map{{pair.first.get(), io_event::write}});
}

TEST_CASE("register of an object returns a key that knows the object") {
  annulet::hub hub;
  selector sel;
  socket_pair pair = make_socket_pair();
  const auto key = sel.register_(pair.first, both);
  CHECK(key->fd == pair.first.get());
  CHECK(key->get<descriptor>() == &pair.first);
  CHECK(!key->data.has_value());
}

TEST_CASE("events without a bit or with an unknown one are refused") {
  annulet::hub hub;
  selector sel;
  const socket_pair pair = make_socket_pair();
  for (const unsigned bits : {0U, 4U, 5U, 8U, 0x8000'0000U, 999'999U}) {
    CHECK_THROWS_AS(sel.register_(pair.first, static_cast<io_event>(bits)), std::invalid_argument);
  }
  CHECK(sel.get_map().empty());
}

TEST_CASE("a negative descriptor is refused") {
  annulet::hub hub;
  selector sel;
  CHECK_THROWS_AS(sel.register_(-10, io_event::read), std::invalid_argument);
  CHECK_THROWS_AS(sel.register_(-1, io_event::read), std::invalid_argument);
  descriptor closed;
  CHECK_THROWS_AS(sel.register_(closed, io_event::read), std::invalid_argument);
  CHECK(sel.get_map().empty());
}

TEST_CASE("the same object cannot be registered twice") {
  annulet::hub hub;
  selector sel;
  socket_pair pair = make_socket_pair();
  const auto key = sel.register_(pair.first, io_event::read);
  CHECK_THROWS_AS(sel.register_(pair.first, io_event::read), key_error);
  CHECK_THROWS_AS(sel.register_(pair.first, io_event::write), std::out_of_range);
  CHECK(sel.get_map().size() == 1);
  CHECK(sel.get_key(pair.first) == key);
}

TEST_CASE("another object with the same descriptor cannot be registered") {
  annulet::hub hub;
  selector sel;
  socket_pair pair = make_socket_pair();
  const auto key = sel.register_(pair.first, io_event::read);
  descriptor other(pair.first.get());
  CHECK_THROWS_AS(sel.register_(other, io_event::read), key_error);
  CHECK_THROWS_AS(sel.register_(other.release(), io_event::read), key_error);
  CHECK(sel.get_key(pair.first) == key);
}

TEST_CASE("unregister returns the key, and a second one says that it is not registered") {
  annulet::hub hub;
  selector sel;
  const socket_pair pair = make_socket_pair();
  const auto key = sel.register_(pair.first, io_event::read, 7);
  CHECK(sel.unregister(pair.first) == key);
  CHECK(std::any_cast<int>(key->data) == 7);
  CHECK_THROWS_AS(sel.unregister(pair.first), key_error);
  CHECK_THROWS_AS(sel.unregister(999'999'999), key_error);
  CHECK(sel.get_map().empty());
  CHECK(look(sel).empty());
}

TEST_CASE("unregister works after the descriptor was closed") {
  annulet::hub hub;
  selector sel;
  socket_pair pair = make_socket_pair();
  const int first = pair.first.get();
  const int second = pair.second.get();
  const auto first_key = sel.register_(first, io_event::read);
  const auto second_key = sel.register_(second, io_event::read);
  pair.first.close();
  pair.second.close();
  CHECK(sel.unregister(first) == first_key);
  CHECK(sel.unregister(second) == second_key);
  CHECK(sel.get_map().empty());
}

TEST_CASE("an object is unregistered by identity after it was closed") {
  annulet::hub hub;
  selector sel;
  socket_pair pair = make_socket_pair();
  const auto key = sel.register_(pair.first, io_event::read);
  const auto other = sel.register_(pair.second, io_event::write);
  pair.first.close();
  REQUIRE(pair.first.get() == -1);
  CHECK(sel.get_key(pair.first) == key);
  CHECK(sel.unregister(pair.first) == key);
  CHECK(sel.get_key(pair.second) == other);
  CHECK_THROWS_AS(sel.unregister(pair.first), std::invalid_argument);
}

TEST_CASE("unregister works after the number was closed and given to another file") {
  annulet::hub hub;
  selector sel;
  socket_pair old = make_socket_pair();
  const socket_pair fresh = make_socket_pair();
  const int fd = old.first.get();
  const auto key = sel.register_(fd, io_event::read);
  CHECK(look(sel).empty());
  old.first.close();
  REQUIRE(::dup2(fresh.first.get(), fd) == fd);
  const descriptor reused(fd);
  CHECK(sel.unregister(fd) == key);
  CHECK_THROWS_AS(sel.unregister(fd), key_error);
  sel.register_(fd, io_event::read);
  CHECK(look(sel).empty());
  write_text(fresh.second.get(), "x");
  CHECK(look(sel) == event_map{{fd, io_event::read}});
}

TEST_CASE("modify changes the events, and leaves the old key as it was") {
  annulet::hub hub;
  selector sel;
  socket_pair pair = make_socket_pair();
  const int fd = pair.first.get();
  const auto before = sel.register_(pair.first, io_event::read);
  CHECK(look(sel).empty());
  const auto after = sel.modify(pair.first, io_event::write);
  CHECK(after != before);
  CHECK(before->events == io_event::read);
  CHECK(after->events == io_event::write);
  CHECK(after->fd == fd);
  CHECK(sel.get_key(pair.first) == after);
  CHECK(look(sel) == event_map{{fd, io_event::write}});
  sel.modify(pair.first, io_event::read);
  CHECK(look(sel).empty());
  CHECK(sel.get_map().size() == 1);
}

TEST_CASE("modify changes the data only, and what is watched stays") {
  annulet::hub hub;
  selector sel;
  socket_pair pair = make_socket_pair();
  const int fd = pair.first.get();
  const auto before = sel.register_(pair.first, io_event::read, 1);
  CHECK(look(sel).empty());
  const auto after = sel.modify(pair.first, io_event::read, 2);
  CHECK(std::any_cast<int>(before->data) == 1);
  CHECK(std::any_cast<int>(after->data) == 2);
  CHECK(sel.get_key(fd) == after);
  write_text(pair.second.get(), "x");
  const auto ready = sel.select(limit);
  REQUIRE(ready.size() == 1);
  CHECK(ready[0].key == after);
  CHECK(std::any_cast<int>(ready[0].key->data) == 2);
}

TEST_CASE("modify of what is not registered says so") {
  annulet::hub hub;
  selector sel;
  const socket_pair pair = make_socket_pair();
  CHECK_THROWS_AS(sel.modify(pair.first, io_event::read), key_error);
  CHECK_THROWS_AS(sel.modify(999'999'999, io_event::read), key_error);
  CHECK_THROWS_AS(sel.modify(-1, io_event::read), std::invalid_argument);
}

TEST_CASE("a modify with bad events leaves the key and the interest as they were") {
  annulet::hub hub;
  selector sel;
  const socket_pair pair = make_socket_pair();
  const int fd = pair.first.get();
  const auto key = sel.register_(fd, io_event::read, 1);
  for (const unsigned bits : {0U, 4U, 6U, 999'999U}) {
    CHECK_THROWS_AS(sel.modify(fd, static_cast<io_event>(bits), 2), std::invalid_argument);
  }
  CHECK(sel.get_key(fd) == key);
  CHECK(key->events == io_event::read);
  CHECK(std::any_cast<int>(key->data) == 1);
  CHECK(look(sel).empty());
  write_text(pair.second.get(), "x");
  CHECK(look(sel) == event_map{{fd, io_event::read}});
}

TEST_CASE("after close every call but close and get_map throws the closed error") {
  annulet::hub hub;
  selector sel;
  const socket_pair pair = make_socket_pair();
  const auto before = sel.get_map();
  sel.register_(pair.first, io_event::read);
  sel.register_(pair.second, io_event::read);
  CHECK(before.size() == 2);
  sel.close();
  sel.close();
  const std::vector<int> none;
  CHECK_THROWS_WITH_AS((void)sel.get_key(pair.first), doctest::Contains("selector is closed"),
                       std::runtime_error);
  CHECK_THROWS_AS(sel.register_(pair.first, io_event::read), std::runtime_error);
  CHECK_THROWS_AS(sel.modify(pair.first, io_event::read), std::runtime_error);
  CHECK_THROWS_AS(sel.unregister(pair.first), std::runtime_error);
  CHECK_THROWS_AS(sel.unregister_all(none), std::runtime_error);
  CHECK_THROWS_AS((void)sel.select(0s), std::runtime_error);
  CHECK_THROWS_AS((void)sel.select(), std::runtime_error);
  CHECK(before.size() == 0);
  CHECK_THROWS_AS((void)before[pair.first], key_error);
  CHECK(sel.get_map().empty());
  CHECK(sel.get_map().begin() == sel.get_map().end());
}

TEST_CASE("get_key finds what is registered and nothing else") {
  annulet::hub hub;
  selector sel;
  const socket_pair pair = make_socket_pair();
  const auto key = sel.register_(pair.first, io_event::read, 1);
  CHECK(sel.get_key(pair.first) == key);
  CHECK(sel.get_key(pair.first.get()) == key);
  CHECK_THROWS_AS((void)sel.get_key(pair.second), key_error);
  CHECK_THROWS_AS((void)sel.get_key(999'999'999), key_error);
  CHECK_THROWS_AS((void)sel.get_key(-1), std::invalid_argument);
}

TEST_CASE("select gives exactly the one descriptor that can be written") {
  annulet::hub hub;
  selector sel;
  const socket_pair pair = make_socket_pair();
  sel.register_(pair.first, io_event::read);
  const auto writable = sel.register_(pair.second, io_event::write);
  const auto ready = sel.select();
  REQUIRE(ready.size() == 1);
  CHECK(ready[0].key == writable);
  CHECK(ready[0].events == io_event::write);
}

TEST_CASE("one descriptor that can be read and written gives both bits, and one bit where one was asked") {
  annulet::hub hub;
  selector sel;
  const socket_pair pair = make_socket_pair();
  const int fd = pair.first.get();
  write_text(pair.second.get(), "x");
  sel.register_(fd, both);
  CHECK(as_map(sel.select()) == event_map{{fd, both}});
  sel.modify(fd, io_event::read);
  CHECK(as_map(sel.select()) == event_map{{fd, io_event::read}});
  sel.modify(fd, io_event::write);
  CHECK(as_map(sel.select()) == event_map{{fd, io_event::write}});
}

TEST_CASE("the end of the scope closes the selector") {
  annulet::hub hub;
  socket_pair pair = make_socket_pair();
  const auto map = [&] {
    selector sel;
    sel.register_(pair.first, io_event::read);
    CHECK(look(sel).empty());
    return sel.get_map();
  }();
  CHECK(map.empty());
  CHECK_THROWS_AS((void)map[pair.first], key_error);
  pair.first.close();
  CHECK(at_end_of_file(pair.second.get()));
}

TEST_CASE("12 pairs exchange messages through one selector, and the right reader is ready each time") {
  annulet::hub_options options;
  SUBCASE("as the hub is by default") {}
  SUBCASE("on a ring that completes at every entry to the kernel") {
    options.mode = annulet::ring_mode::coop_taskrun;
  }
  SUBCASE("on a ring of Linux 5.18") { options.mode = annulet::ring_mode::submit_all; }
  SUBCASE("on a ring without flags") { options.mode = annulet::ring_mode::plain; }
  annulet::hub hub(options);
  annulet::basic_selector<int> sel;
  constexpr int pairs = 12;
  std::array<socket_pair, pairs> sockets;
  for (int i = 0; i < pairs; ++i) {
    sockets[static_cast<std::size_t>(i)] = make_socket_pair();
    sel.register_(sockets[static_cast<std::size_t>(i)].first, io_event::read, i);
    sel.register_(sockets[static_cast<std::size_t>(i)].second, io_event::write, pairs + i);
  }
  std::mt19937 random(1);
  for (int round = 0; round < 200; ++round) {
    const auto all = sel.select();
    REQUIRE(all.size() == pairs);
    const auto& [key, events] = all[random() % pairs];
    REQUIRE(events == io_event::write);
    write_text(key->fd, " This is a test.");
    const int writer = key->data;
    int readers = 0;
    for (const auto& [ready, what] : sel.select(0s)) {
      if (what == io_event::read) {
        ++readers;
        CHECK(ready->data == writer - pairs);
        CHECK(read_text(ready->fd) == " This is a test.");
      }
    }
    REQUIRE(readers == 1);
  }
}

TEST_CASE("with nothing registered a select lasts as long as it was told") {
  annulet::hub hub;
  selector sel;
  const auto lasts = [&](annulet::deadline until) {
    const auto begin = steady::now();
    CHECK(sel.select(until).empty());
    return steady::now() - begin;
  };
  CHECK(lasts(0s) < 500ms);
  CHECK(lasts(-1s) < 500ms);
  CHECK(lasts(steady::now() - 1s) < 500ms);
  const auto second = steady::now() + 1s;
  CHECK(lasts(second) < 2s);
  CHECK(steady::now() >= second);
}

namespace {

volatile sig_atomic_t alarms = 0;

}  // namespace

TEST_CASE("a signal whose handler returns does not cut a select short") {
  annulet::hub hub;
  selector sel;
  const socket_pair pair = make_socket_pair();
  sel.register_(pair.first, io_event::read);
  struct sigaction quiet {};
  quiet.sa_handler = [](int) { alarms = alarms + 1; };
  struct sigaction before {};
  REQUIRE(::sigaction(SIGALRM, &quiet, &before) == 0);
  alarms = 0;
  const itimerval often{{0, 20'000}, {0, 20'000}};
  REQUIRE(::setitimer(ITIMER_REAL, &often, nullptr) == 0);
  const auto begin = steady::now();
  CHECK(sel.select(300ms).empty());
  CHECK(steady::now() - begin >= 300ms);
  CHECK(alarms >= 3);
  write_text(pair.second.get(), "x");
  CHECK(as_map(sel.select()) == event_map{{pair.first.get(), io_event::read}});
  const itimerval off{};
  REQUIRE(::setitimer(ITIMER_REAL, &off, nullptr) == 0);
  REQUIRE(::sigaction(SIGALRM, &before, nullptr) == 0);
}
