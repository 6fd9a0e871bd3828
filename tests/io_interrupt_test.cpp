// Kills, timeout guards and deadlines, wherever a call parks; what was transferred is never lost; and a call
// on a plain number that has ended leaves nothing behind in the kernel.
#include <annulet/hub/io.hpp>

#include "support/apart.hpp"
#include "support/io_calls.hpp"

#include <doctest/doctest.h>

#include <array>
#include <csignal>
#include <cstdio>
#include <functional>
#include <string>
#include <utility>
#include <vector>

#include <sys/un.h>

using namespace annulet::test;
using annulet::fiber;
using annulet::file_ref;
using annulet::hub;
using annulet::mutable_buffer;
using annulet::socket_address;
using annulet::spawn;
namespace this_fiber = annulet::this_fiber;

namespace {

std::array<char, 64> room{};

// A place where a call parks.
struct park {
  std::string name;
  std::function<std::pair<descriptor, descriptor>()> make;  // the file, and its other side
  std::function<void(file_ref, annulet::deadline)> call;
};

std::pair<descriptor, descriptor> full_pair() {
  auto [mine, peer] = make_socket_pair();
  fill(mine.get());
  return {std::move(mine), std::move(peer)};
}

std::pair<descriptor, descriptor> listener(bool blocks) {
  auto made = make_tcp_listener();
  if (blocks) {
    require_ok(::fcntl(made.socket.get(), F_SETFL, O_RDWR), "fcntl");
  }
  return {std::move(made.socket), descriptor()};
}

std::vector<park> all_parks() {
  const auto socket = [] {
    auto [mine, peer] = make_tcp_pair();
    return std::pair(std::move(mine), std::move(peer));
  };
  const auto pipe = [] {
    auto [reader, writer] = make_blocking_pipe();
    return std::pair(std::move(reader), std::move(writer));
  };
  const auto tty = [] {
    auto [master, slave] = make_pty();
    return std::pair(std::move(slave), std::move(master));
  };
  const auto read = [](file_ref f, annulet::deadline d) { (void)annulet::read(f, room, d); };
  const auto accept = [](file_ref f, annulet::deadline d) { (void)annulet::accept(f, d); };
  return {
      {"recv", socket, [](file_ref f, annulet::deadline d) { (void)annulet::recv(f, room, d); }},
      {"read_exactly", socket,
       [](file_ref f, annulet::deadline d) { (void)annulet::read_exactly(f, room, d); }},
      {"read of a pipe", pipe, read},
      {"read of a blocking tty", tty, read},
      {"send", full_pair, [](file_ref f, annulet::deadline d) { (void)annulet::send(f, "x"sv, d); }},
      {"write_all", full_pair, [](file_ref f, annulet::deadline d) { annulet::write_all(f, "x"sv, d); }},
      {"accept", [] { return listener(false); }, accept},
      {"blocking accept", [] { return listener(true); }, accept},
  };
}

// At each place, alone or behind another fiber.
template <class Body>
void at_each_park(Body&& body) {
  for (const park& at : all_parks()) {
    for (const bool in_line : {false, true}) {
      CAPTURE(at.name);
      CAPTURE(in_line);
      in_both_forms([&](form way) {
        const std::size_t before = open_descriptors();
        {
          auto [mine, peer] = at.make();
          const subject file(std::move(mine), way);
          fiber<bool> ahead;
          if (in_line) {
            ahead = spawn_parked([&] { return is_killed_in([&] { return at.call(file, limit), 0; }); });
          }
          body(at, file);
          if (in_line) {
            CHECK_FALSE(ahead.done());
            ahead.kill();
            CHECK(ahead.get());
          }
          // Nobody is left in the way.
          CHECK(passes_deadline([&] { return at.call(file, 0s), 0; }));
        }
        CHECK(open_descriptors() == before);
      });
    }
  }
}

}  // namespace

TEST_CASE("a kill ends a call wherever it is parked") {
  at_each_park([](const park& at, const subject& file) {
    for (const bool submitted : {false, true}) {
      auto call = spawn_parked(
          [&] { return is_killed_in([&] { return at.call(file, annulet::deadline::never()), 0; }); });
      if (submitted) {
        this_fiber::sleep_for(500us);
      }
      CHECK_FALSE(call.done());
      call.kill();
      REQUIRE(call.join(limit));
      CHECK(call.get());
    }
  });
}

TEST_CASE("a kill that is pending already is thrown before anything is transferred") {
  for (auto make : {+[] { return blocking(make_socket_pair()); },
                    +[] {
                      auto [master, slave] = make_pty();
                      return socket_pair{std::move(slave), std::move(master)};
                    }}) {
    in_both_forms([&](form way) {
      auto [mine, peer] = make();
      const subject file(std::move(mine), way);
      fiber<bool> call;
      call = spawn([&] {
        call.kill();
        return is_killed_in([&] { return annulet::read(file, room, limit); });
      });
      CHECK(call.get());
      send_byte(peer.get());
      CHECK(annulet::read(file, room, limit) == 1);
    });
  }
}

TEST_CASE("a timeout guard ends a call wherever it is parked, and so does its own deadline, in time") {
  at_each_park([](const park& at, const subject& file) {
    const auto begin = steady::now();
    bool guarded = false;
    try {
      annulet::timeout guard(3ms);
      try {
        at.call(file, limit);
      } catch (const annulet::timeout_expired& e) {
        guarded = e.is(guard);
      }
    } catch (...) {
      FAIL("a guard was thrown twice");
    }
    CHECK(guarded);
    CHECK(steady::now() - begin >= 3ms);
    CHECK(passes_deadline([&] { return at.call(file, 3ms), 0; }));
    CHECK(steady::now() - begin >= 6ms);
    CHECK(steady::now() - begin < limit / 2);
  });
}

TEST_CASE("after a call that was ended, the next one finds all that comes") {
  at_each_park([](const park& at, const subject& file) {
    CHECK(passes_deadline([&] { return at.call(file, 1ms), 0; }));
    auto killed = spawn_parked([&] { return is_killed_in([&] { return at.call(file, limit), 0; }); });
    killed.kill();
    CHECK(killed.get());
  });
  in_both_forms([](form way) {
    auto [master, slave] = make_pty();
    const subject file(std::move(slave), way);
    for (int round = 0; round < 20; ++round) {
      auto killed = spawn_parked([&] { return is_killed_in([&] { return annulet::read(file, room); }); });
      killed.kill();
      write_text(master.get(), "abc");
      REQUIRE(killed.join(limit));
      // What the kernel had read after all it has returned, and else nothing was taken.
      const bool ended = killed.get();
      CHECK((ended ? read_some(file, limit) : "abc") == "abc");
    }
  });
}

TEST_CASE("a request that succeeded before the kill came returns what it has, and the kill stays pending") {
  hub home;
  auto [master, slave] = make_pty();
  bool pending = false;
  auto call = spawn_parked([&] {
    const std::string got = read_some(slave.get());
    pending = is_killed_in([] { return this_fiber::sleep_for(1h), 0; });
    return got;
  });
  this_fiber::sleep_for(1ms);
  write_text(master.get(), "abc");
  // The kernel carries it out; the fiber has not run yet when it is killed.
  for (const annulet::deadline give_up = limit; revents_of(slave.get(), POLLIN) != 0 && !give_up.reached();) {
    this_fiber::yield();
  }
  call.kill();
  REQUIRE(call.join(limit));
  CHECK(call.get() == "abc");
  CHECK(pending);
}

TEST_CASE("when a call on a plain number has ended, however it did, a bare close ends the file at once") {
  for (auto make : {+[] { return make_socket_pair(); }, +[] { return blocking(make_tcp_pair()); },
                    +[] {
                      auto [reader, writer] = make_blocking_pipe();
                      return socket_pair{std::move(reader), std::move(writer)};
                    }}) {
    enum class end { data, deadline, kill, guard, tried };
    for (const end how : {end::data, end::deadline, end::kill, end::guard, end::tried}) {
      CAPTURE(static_cast<int>(how));
      hub home;
      auto [mine, peer] = make();
      const int number = mine.get();
      auto call = spawn_parked([&] {
        if (how == end::guard) {
          annulet::timeout guard(1ms);
          try {
            (void)annulet::read(number, room);
          } catch (const annulet::timeout_expired&) {
          }
        } else if (how == end::tried) {
          (void)annulet::try_read(number, room);
        } else {
          (void)failure_of([&] { return annulet::read(number, room, how == end::deadline ? 1ms : 1h); });
        }
      });
      if (how == end::data) {
        send_byte(peer.get());
      } else if (how == end::kill) {
        call.kill();
      }
      REQUIRE(call.join(limit));
      mine.close();
      // A pipe's writer is told by POLLERR, a socket by the end of the file.
      CHECK((revents_of(peer.get(), POLLIN) & (POLLIN | POLLERR)) != 0);
    }
  }
}

TEST_CASE("after a blocking accept that was killed, its port can be bound again at once") {
  for (int round = 0; round < 20; ++round) {
    hub home;
    auto made = make_tcp_listener();
    require_ok(::fcntl(made.socket.get(), F_SETFL, O_RDWR), "fcntl");
    auto call =
        spawn_parked([&] { return is_killed_in([&] { return annulet::accept(made.socket.get()); }); });
    this_fiber::sleep_for(200us);
    call.kill();
    CHECK(call.get());
    made.socket.close();
    const auto again = make_tcp_listener(made.port);
    CHECK(again.port == made.port);
  }
}

TEST_CASE("a deadline comes although every wake-up is in vain") {
  // A datagram to a queue that others keep full: each try wakes its own socket.
  in_both_forms([](form way) {
    sockaddr_un name{};
    name.sun_family = AF_UNIX;
    std::snprintf(name.sun_path + 1, sizeof(name.sun_path) - 1, "annulet-%d", ::getpid());
    const socket_address address(name);
    const auto make = [](int flags) {
      return descriptor(require_ok(::socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | flags, 0), "socket"));
    };
    const descriptor receiver = make(SOCK_NONBLOCK), other = make(SOCK_NONBLOCK);
    require_ok(::bind(receiver.get(), address.data(), address.size()), "bind");
    while (::sendto(other.get(), "x", 1, 0, address.data(), address.size()) == 1) {
    }
    const subject file(make(0), way);
    bool gave_up = false;
    auto call = spawn(
        [&] { gave_up = passes_deadline([&] { return annulet::sendto(file, "y"sv, address, {}, 20ms); }); });
    CHECK(call.join(2s));
    while (try_read(receiver.get()) > 0) {
    }
    REQUIRE(call.join(limit));
    CHECK(gave_up);
  });
}

TEST_CASE("the address that accept was to fill in is empty where the deadline came first") {
  const hub home;
  const auto listener = make_tcp_listener();
  for (const int flags : {O_NONBLOCK, 0}) {
    require_ok(::fcntl(listener.socket.get(), F_SETFL, flags), "fcntl");
    annulet::socket_address peer(loopback(1));
    CHECK(passes_deadline([&] { (void)annulet::accept(listener.socket.get(), peer, 1ms); }));
    CHECK(peer.size() == 0);
  }
}

TEST_CASE("a deadline ends a call of a program that resets its signals, or ignores them, again and again") {
  for (auto* const how : {SIG_DFL, SIG_IGN}) {
    CHECK(run_apart([&] {
            const hub home;
            auto [master, slave] = make_pty();
            for (int round = 0; round < 3; ++round) {
              for (int signal = 1; signal < NSIG; ++signal) {
                if (signal != SIGALRM && signal != SIGCHLD) {
                  ::signal(signal, how);
                }
              }
              if (!passes_deadline([&] { return annulet::read(slave.get(), room, 3ms); })) {
                return 1;
              }
            }
            return 0;
          }) == 0);
  }
}
