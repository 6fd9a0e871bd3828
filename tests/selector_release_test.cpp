// What was let go: its readiness is not reported, its results stay valid, and its file is as closed as a file
// can be.
#include "support/selecting.hpp"
#include "support/texts.hpp"

#include <annulet/hub/close.hpp>
#include <annulet/hub/hub.hpp>
#include <annulet/runtime/fiber.hpp>
#include <annulet/selector/selector.hpp>

#include <doctest/doctest.h>

#include <array>
#include <chrono>
#include <memory>
#include <ranges>
#include <vector>

using namespace std::chrono_literals;
using namespace annulet::test;
using annulet::hub;
using annulet::io_event;
using annulet::key_error;
using annulet::selector;

namespace {

event_map readable(int fd) { return {{fd, io_event::read}}; }
event_map writable(int fd) { return {{fd, io_event::write}}; }

}  // namespace

TEST_CASE("unregister of a ready descriptor takes its readiness along") {
  hub home;
  selector sel;
  const socket_pair ready = make_socket_pair(), other = make_socket_pair();
  sel.register_(ready.first.get(), io_event::read);
  sel.register_(other.first.get(), io_event::read);
  CHECK(look(sel).empty());
  write_text(ready.second.get(), "x");
  SUBCASE("not asked about yet") {}
  SUBCASE("reported") { CHECK(look(sel) == readable(ready.first.get())); }
  SUBCASE("heard of by the hub") { annulet::this_fiber::sleep_for(1ms); }
  sel.unregister(ready.first.get());
  CHECK(look(sel).empty());
  auto fiber = park_in_select(sel);
  CHECK(!fiber.join(20ms));
  write_text(other.second.get(), "x");
  CHECK(fiber.join(limit));
  CHECK(fiber.get() == readable(other.first.get()));
}

TEST_CASE("results stay valid while a handler unregisters and closes what is in them") {
  hub home;
  annulet::basic_selector<std::unique_ptr<int>> sel;
  std::array<socket_pair, 6> pairs;
  for (auto& pair : pairs) {
    pair = make_socket_pair();
    sel.register_(pair.first, io_event::write, std::make_unique<int>(pair.first.get()));
  }
  int handled = 0;
  for (const auto& [key, events] : sel.select()) {
    if (handled == 0) {
      sel.unregister_all(std::array{pairs[1].first.get(), pairs[2].first.get()});
      pairs[1].first.close();
      annulet::close(pairs[3].first.get());
      CHECK(sel.select(0s).size() == 4);
    }
    if (handled == 3) {
      sel.close();
    }
    CHECK(*key->data == key->fd);
    CHECK(events == io_event::write);
    CHECK(key->get<descriptor>() != nullptr);
    ++handled;
  }
  CHECK(handled == 6);
  (void)pairs[3].first.release();
}

TEST_CASE("after unregister, or the selector's end, a bare close is a close, at once") {
  hub home;
  auto sel = std::make_unique<selector>();
  const pipe_pair bystander = make_pipe();
  sel->register_(bystander.reader.get(), io_event::read);
  for (int i = 0; i < 7; ++i) {
    CAPTURE(i);
    socket_pair pair = make_tcp_pair();
    pipe_pair pipe = make_pipe();
    tcp_listener listener = make_tcp_listener();
    const std::array fds{pair.first.get(), pipe.writer.get(), listener.socket.get()};
    sel->register_(fds[0], io_event::read);
    sel->register_(fds[1], io_event::write);
    sel->register_(fds[2], io_event::read);
    CHECK(look(*sel) == writable(fds[1]));
    if (i == 1) {
      sel->modify(fds[0], io_event::write);
    }
    if (i < 2) {
      for (const int fd : fds) {
        sel->unregister(fd);
      }
    } else if (i < 4) {
      sel->unregister_all(fds);
    } else if (i == 4) {
      annulet::close(pair.first.release());
      annulet::close(pipe.writer.release());
      annulet::close(listener.socket.release());
    } else if (i == 5) {
      sel->close();
      sel = std::make_unique<selector>();
    } else {
      sel.reset();
    }
    pair.first.close();
    pipe.writer.close();
    listener.socket.close();
    CHECK(at_end_of_file(pair.second.get()));
    CHECK(try_read(pipe.reader.get()) == 0);
    CHECK_NOTHROW(make_tcp_listener(listener.port));
    if (i == 4) {
      sel->unregister_all(fds);
    }
  }
}

TEST_CASE("a close through the hub is told to every selector that watches, and to none that came later") {
  hub home;
  selector first, second, later;
  socket_pair pair = make_socket_pair();
  const int fd = pair.first.get();
  first.register_(fd, io_event::read);
  second.register_(fd, both);
  CHECK(look(first).empty());
  auto parked = park_in_select(first);
  fill(fd);
  auto parked_too = park_in_select(second);
  annulet::close(pair.first.release());
  const event_map told{{fd, io_event::read}}, told_both{{fd, both}};
  CHECK(parked.join(limit));
  CHECK(parked_too.join(limit));
  CHECK(parked.get() == told);
  CHECK(parked_too.get() == told_both);
  const socket_pair fresh = make_socket_pair();
  REQUIRE(::dup2(fresh.first.get(), fd) == fd);
  descriptor reused(fd);
  later.register_(fd, io_event::read);
  CHECK(look(later).empty());
  CHECK(look(first) == told);
  annulet::close(reused.release());
  CHECK(look(later) == told);
  first.unregister(fd);
  CHECK(look(first).empty());
  CHECK(look(second) == told_both);
  CHECK(look(later) == told);
  CHECK_THROWS_AS(annulet::close(fd), std::system_error);
  CHECK(look(later) == told);
}

TEST_CASE("unregister_all lets all go, or throws and lets none go") {
  hub home;
  selector sel;
  std::array<socket_pair, 40> pairs;
  std::vector<int> fds;
  for (auto& pair : pairs) {
    pair = make_socket_pair();
    sel.register_(pair.first, io_event::read);
    fds.push_back(pair.first.get());
  }
  const auto stays_whole = [&](const std::vector<int>& named) {
    CHECK_THROWS_AS(sel.unregister_all(named), key_error);
    CHECK(sel.get_map().size() == fds.size());
  };
  stays_whole({fds[0], fds[1], pairs[0].second.get()});
  stays_whole({fds[0], fds[1], 999'999});
  stays_whole({fds[0], fds[1], fds[0]});
  CHECK_THROWS_AS(sel.unregister_all(std::vector<int>{fds[0], -1}), std::invalid_argument);
  CHECK(sel.get_map().size() == fds.size());
  sel.unregister_all(std::vector<int>());
  write_text(pairs[0].second.get(), "x");
  CHECK(look(sel) == readable(fds[0]));
  pairs[1].first.close();  // known by identity from here on
  sel.unregister_all(pairs | std::views::take(2) |
                     std::views::transform([](socket_pair& pair) -> descriptor& { return pair.first; }));
  CHECK(sel.get_map().size() == fds.size() - 2);
  CHECK_THROWS_AS(sel.unregister_all(fds), key_error);
  sel.unregister_all(std::vector<int>(fds.begin() + 2, fds.end()));
  CHECK(sel.get_map().empty());
  for (auto& pair : pairs) {
    pair.first.close();
  }
  for (const auto& pair : pairs) {
    CHECK((revents_of(pair.second.get(), POLLIN) & POLLHUP) != 0);
  }
}

TEST_CASE("a number that was unregistered, closed and reused brings nothing of its old file") {
  hub home;
  selector sel;
  for (int i = 0; i < 300; ++i) {
    socket_pair old = make_socket_pair();
    const int fd = old.first.get();
    sel.register_(fd, io_event::read);
    if (i % 2 == 0) {
      REQUIRE(look(sel).empty());
    }
    write_text(old.second.get(), "x");
    if (i % 3 == 0) {
      REQUIRE(look(sel) == readable(fd));
    }
    sel.unregister(fd);
    old.first.close();
    const socket_pair fresh = make_socket_pair();
    descriptor reused;
    if (fresh.first.get() != fd) {
      REQUIRE(::dup2(fresh.first.get(), fd) == fd);
      reused = descriptor(fd);
    }
    sel.register_(fd, io_event::read);
    REQUIRE(look(sel).empty());
    write_text(fresh.second.get(), "x");
    REQUIRE(look(sel) == readable(fd));
    sel.unregister(fd);
  }
}

TEST_CASE("a selector serves any number of registrations, one after the other and together") {
  hub home;
  selector sel;
  const socket_pair pair = make_socket_pair();
  write_text(pair.second.get(), "x");
  for (int i = 0; i < 5000; ++i) {
    sel.register_(pair.first.get(), i % 2 == 0 ? io_event::read : io_event::write);
    if (i % 7 == 0) {
      REQUIRE(look(sel).size() == 1);
    }
    sel.unregister(pair.first.get());
  }
  CHECK(look(sel).empty());
  CHECK(home.fiber_count() == 0);
}
