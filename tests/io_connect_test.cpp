// accept and connect: on blocking and non-blocking sockets, over TCP and unix sockets; what they make, what
// they say when it fails, and that nobody is lost from the backlog.
#include <annulet/hub/io.hpp>

#include "support/apart.hpp"
#include "support/io_calls.hpp"

#include <doctest/doctest.h>

#include <array>
#include <cstdio>
#include <optional>
#include <string>
#include <vector>

#include <sys/resource.h>
#include <sys/un.h>

using namespace annulet::test;
using annulet::hub;
using annulet::socket_address;
using annulet::spawn;
namespace this_fiber = annulet::this_fiber;

namespace {

// Where a test listens, in one family of addresses.
struct meeting_place {
  int family;
  descriptor listener;
  socket_address address;
};

// A unix address of this process alone, in no file system.
socket_address unix_address() {
  static unsigned count = 0;
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  std::snprintf(address.sun_path + 1, sizeof(address.sun_path) - 1, "annulet-%d-%u", ::getpid(), ++count);
  return socket_address(address);
}

descriptor make_socket(int family, int flags) {
  return descriptor(require_ok(::socket(family, SOCK_STREAM | SOCK_CLOEXEC | flags, 0), "socket"));
}

meeting_place make_place(int family, int flags, int backlog = 64) {
  descriptor listener = make_socket(family, flags);
  socket_address address = family == AF_UNIX ? unix_address() : socket_address(loopback(0));
  require_ok(::bind(listener.get(), address.data(), address.size()), "bind");
  require_ok(::listen(listener.get(), backlog), "listen");
  require_ok(::getsockname(listener.get(), address.room(), address.room_size()), "getsockname");
  return {family, std::move(listener), address};
}

descriptor plain_client(const meeting_place& place) {
  descriptor client = make_socket(place.family, 0);
  require_ok(::connect(client.get(), place.address.data(), place.address.size()), "connect");
  return client;
}

constexpr int nonblocking = SOCK_NONBLOCK;

// Each family, blocking and not, as a number and as a descriptor.
template <class Body>
void everywhere(Body&& body) {
  for (const int family : {AF_INET, AF_UNIX}) {
    for (const int flags : {0, nonblocking}) {
      CAPTURE(family);
      CAPTURE(flags);
      in_both_forms([&](form way) { body(family, flags, way); });
    }
  }
}

bool carries(annulet::file_ref from, annulet::file_ref to) {
  annulet::write_all(from, "hello"sv, limit);
  return read_some(to, limit) == "hello";
}

}  // namespace

TEST_CASE("accept and connect find each other, whichever comes first, and change no flag") {
  everywhere([](int family, int flags, form way) {
    auto place = make_place(family, flags);
    const subject listener(std::move(place.listener), way);
    const int listener_flags = flags_of(listener.fileno());
    for (const bool accept_first : {true, false}) {
      const subject client(make_socket(family, flags), way);
      const int client_flags = flags_of(client.fileno());
      annulet::descriptor server;
      const auto accept = [&] { server = annulet::accept(listener, limit); };
      const auto connect = [&] { annulet::connect(client, place.address, limit); };
      auto first = accept_first ? spawn_parked(accept) : spawn_parked(connect);
      auto second = accept_first ? spawn_parked(connect) : spawn_parked(accept);
      first.get();
      second.get();
      CHECK(carries(client, server));
      CHECK(carries(server, client));
      CHECK((::fcntl(server.fileno(), F_GETFD) & FD_CLOEXEC) != 0);
      CHECK((flags_of(server.fileno()) & O_NONBLOCK) == 0);  // as Linux makes it
      CHECK(flags_of(client.fileno()) == client_flags);
    }
    CHECK(flags_of(listener.fileno()) == listener_flags);
  });
}

TEST_CASE("accept says who the peer is") {
  for (const int flags : {0, nonblocking}) {
    in_both_forms([&](form way) {
      auto place = make_place(AF_INET, flags);
      const subject listener(std::move(place.listener), way);
      socket_address peer;
      auto waiting = spawn_parked([&] { return annulet::accept(listener, peer, limit); });
      const descriptor client = plain_client(place);
      const annulet::descriptor server = waiting.get();
      socket_address expected;
      require_ok(::getsockname(client.get(), expected.room(), expected.room_size()), "getsockname");
      REQUIRE(peer.size() == expected.size());
      CHECK(std::memcmp(peer.data(), expected.data(), sizeof(sockaddr_in)) == 0);
    });
  }
}

TEST_CASE("connections that came at once are accepted one by one, by many fibers, none twice and none lost") {
  everywhere([](int family, int flags, form way) {
    auto place = make_place(family, flags);
    const subject listener(std::move(place.listener), way);
    constexpr std::size_t count = 20;
    std::vector<annulet::fiber<annulet::descriptor>> waiting;
    for (std::size_t i = 0; i < count / 2; ++i) {
      waiting.push_back(spawn_parked([&] { return annulet::accept(listener, limit); }));
    }
    std::vector<descriptor> clients;
    for (std::size_t i = 0; i < count; ++i) {
      clients.push_back(plain_client(place));
      write_text(clients.back().get(), std::to_string(i) + ".");
    }
    std::vector<annulet::descriptor> servers;
    for (auto& fiber : waiting) {
      servers.push_back(fiber.get());
    }
    while (servers.size() < count) {
      servers.push_back(annulet::accept(listener, limit));
    }
    for (std::size_t i = 0; i < count; ++i) {
      CHECK(read_some(servers[i], limit) == std::to_string(i) + ".");
    }
    CHECK_FALSE(annulet::try_accept(listener));
  });
}

TEST_CASE("try_accept gives a connection that is there, and else nothing, a deadline likewise") {
  everywhere([](int family, int flags, form way) {
    auto place = make_place(family, flags);
    const subject listener(std::move(place.listener), way);
    for (int round = 0; round < 3; ++round) {
      CHECK_FALSE(annulet::try_accept(listener));
      CHECK(passes_deadline([&] { return annulet::accept(listener, 0s); }));
      CHECK(passes_deadline([&] { return annulet::accept(listener, steady::now() - 1h); }));
      CHECK(passes_deadline([&] { return annulet::accept(listener, 3ms); }));
      const descriptor first = plain_client(place), second = plain_client(place);
      const std::optional<annulet::descriptor> server = annulet::try_accept(listener);
      REQUIRE(server);
      CHECK(carries(first.get(), *server));
      const annulet::descriptor other = annulet::accept(listener, 0s);
      CHECK(carries(second.get(), other));
    }
  });
}

TEST_CASE("EMFILE in accept leaves the connection in the backlog, for when there is room again") {
  const auto runs_out = [] {
    for (const int family : {AF_INET, AF_UNIX}) {
      for (const int flags : {0, nonblocking}) {
        for (const form way : both_forms) {
          hub home;
          auto place = make_place(family, flags);
          const subject listener(std::move(place.listener), way);
          const descriptor client = plain_client(place);
          rlimit before{};
          require_ok(::getrlimit(RLIMIT_NOFILE, &before), "getrlimit");
          const auto lowest_free = static_cast<rlim_t>(unused_number());
          const rlimit none{lowest_free, before.rlim_max};
          require_ok(::setrlimit(RLIMIT_NOFILE, &none), "setrlimit");
          for (int again = 0; again < 3; ++again) {
            const failure failed = failure_of([&] { return annulet::accept(listener, limit); });
            if (failed.error != EMFILE || !failed.names("accept", listener.fileno())) {
              return 1;
            }
          }
          require_ok(::setrlimit(RLIMIT_NOFILE, &before), "setrlimit");
          const annulet::descriptor server = annulet::accept(listener, limit);
          if (!carries(client.get(), server)) {
            return 2;
          }
        }
      }
    }
    return 0;
  };
  CHECK(run_apart(runs_out) == 0);
}

TEST_CASE("where nobody listens a connect is refused, in words") {
  everywhere([](int family, int flags, form way) {
    auto place = make_place(family, flags);
    place.listener.close();
    const subject client(make_socket(family, flags), way);
    const failure failed = failure_of([&] { return annulet::connect(client, place.address, limit), 0; });
    CHECK(failed.error == ECONNREFUSED);
    CHECK(failed.names("connect", client.fileno()));
  });
}

TEST_CASE("a socket that is connected already says EISCONN, and a wrong address what Linux says") {
  everywhere([](int family, int flags, form way) {
    const auto place = make_place(family, flags);
    const subject client(make_socket(family, flags), way);
    annulet::connect(client, place.address, limit);
    const auto again = [&] {
      return failure_of([&] { return annulet::connect(client, place.address, limit), 0; }).error;
    };
    const int first = again();
    // With O_NONBLOCK Linux says once more that the connection has been made.
    CHECK((first == EISCONN || (first == 0 && flags == nonblocking)));
    CHECK(again() == EISCONN);
    const subject fresh(make_socket(family, flags), way);
    CHECK(failure_of([&] { return annulet::connect(fresh, socket_address(), limit), 0; }).error == EINVAL);
    const socket_address other = family == AF_UNIX ? socket_address(loopback(9)) : unix_address();
    const int expected = family == AF_UNIX ? EINVAL : EAFNOSUPPORT;
    CHECK(failure_of([&] { return annulet::connect(fresh, other, limit), 0; }).error == expected);
  });
}

TEST_CASE("a connect that nobody answers ends at its deadline, and when it is killed") {
  // The backlog is full: a SYN is dropped, and sent again only after a second.
  for (const int flags : {0, nonblocking}) {
    CAPTURE(flags);
    in_both_forms([&](form way) {
      const auto place = make_place(AF_INET, nonblocking, 0);
      std::vector<descriptor> queued;
      for (int i = 0; i < 3; ++i) {
        queued.push_back(make_socket(AF_INET, nonblocking));
        (void)::connect(queued.back().get(), place.address.data(), place.address.size());
      }
      const subject late(make_socket(AF_INET, flags), way), killed(make_socket(AF_INET, flags), way);
      CHECK(passes_deadline([&] { annulet::connect(late, place.address, 5ms); }));
      auto fiber = spawn_parked(
          [&] { return is_killed_in([&] { return annulet::connect(killed, place.address), 0; }); });
      CHECK_FALSE(fiber.done());
      fiber.kill();
      REQUIRE(fiber.join(limit));
      CHECK(fiber.get());
      CHECK(is_open(late.fileno()));
      CHECK(is_open(killed.fileno()));
    });
  }
}

TEST_CASE("a unix connect waits while the backlog is full, on blocking and non-blocking sockets") {
  for (const int flags : {0, nonblocking}) {
    CAPTURE(flags);
    in_both_forms([&](form way) {
      const auto place = make_place(AF_UNIX, nonblocking, 0);
      std::vector<descriptor> queued;
      do {
        REQUIRE(queued.size() < 8);
        queued.push_back(make_socket(AF_UNIX, nonblocking));
      } while (::connect(queued.back().get(), place.address.data(), place.address.size()) == 0);
      const subject client(make_socket(AF_UNIX, flags), way);
      auto waiting = spawn_parked(
          [&] { return failure_of([&] { return annulet::connect(client, place.address, limit), 0; }); });
      this_fiber::sleep_for(2ms);
      CHECK_FALSE(waiting.done());
      while (annulet::try_accept(place.listener.get())) {
      }
      CHECK(waiting.get().error == 0);
    });
  }
}

TEST_CASE("a peer that resets is ECONNRESET to a reader, at once to one that is parked") {
  for (const int flags : {0, nonblocking}) {
    in_both_forms([&](form way) {
      auto place = make_place(AF_INET, flags);
      std::array<char, 8> buffer{};
      for (const bool parked : {true, false}) {
        const subject listener(descriptor(::dup(place.listener.get())), way);
        descriptor client = plain_client(place);
        const annulet::descriptor server = annulet::accept(listener, limit);
        reset_on_close(client.get());
        const auto receive = [&] {
          return failure_of([&] { return annulet::recv(server, buffer, limit); }).error;
        };
        if (parked) {
          auto waiting = spawn_parked(receive);
          client.close();
          CHECK(waiting.get() == ECONNRESET);
        } else {
          client.close();
          CHECK(receive() == ECONNRESET);
        }
        CHECK(annulet::recv(server, buffer, limit) == 0);  // reported once
        CHECK(failure_of([&] { return annulet::send(server, "x"sv, limit); }).error == EPIPE);
      }
    });
  }
}

TEST_CASE(
    "a connection that was reset in the backlog is accepted, as Linux has it, and the next one after it") {
  for (const int flags : {0, nonblocking}) {
    in_both_forms([&](form way) {
      auto place = make_place(AF_INET, flags);
      const subject listener(std::move(place.listener), way);
      descriptor gone = plain_client(place);
      reset_on_close(gone.get());
      gone.close();
      const descriptor client = plain_client(place);
      const annulet::descriptor dead = annulet::accept(listener, limit);
      CHECK(failure_of([&] { return read_some(dead, limit); }).error == ECONNRESET);
      const annulet::descriptor server = annulet::accept(listener, limit);
      CHECK(carries(client.get(), server));
    });
  }
}

TEST_CASE("an accept that a listener's shutdown ends says EINVAL") {
  for (const int flags : {0, nonblocking}) {
    in_both_forms([&](form way) {
      auto place = make_place(AF_INET, flags);
      const subject listener(std::move(place.listener), way);
      auto waiting =
          spawn_parked([&] { return failure_of([&] { return annulet::accept(listener, limit); }).error; });
      ::shutdown(listener.fileno(), SHUT_RDWR);
      CHECK(waiting.get() == EINVAL);
    });
  }
}

TEST_CASE("a connect with a deadline in the past is made where there is nothing to wait for") {
  hub home;
  const auto place = make_place(AF_UNIX, nonblocking, 200);
  for (const int flags : {0, nonblocking}) {
    for (int round = 0; round < 50; ++round) {
      const descriptor client = make_socket(AF_UNIX, flags);
      CHECK(failure_of([&] { return annulet::connect(client.get(), place.address, 0s), 0; }).error == 0);
    }
  }
}

TEST_CASE("a blocking socket's own limit of time for sending does not end a connect") {
  hub home;
  const auto place = make_place(AF_INET, nonblocking, 0);
  std::vector<descriptor> queued;
  for (int i = 0; i < 3; ++i) {
    queued.push_back(make_socket(AF_INET, nonblocking));
    (void)::connect(queued.back().get(), place.address.data(), place.address.size());
  }
  const auto limited = [] {
    descriptor socket = make_socket(AF_INET, 0);
    const timeval little{0, 20'000};
    require_ok(::setsockopt(socket.get(), SOL_SOCKET, SO_SNDTIMEO, &little, sizeof(little)), "SO_SNDTIMEO");
    return socket;
  };
  const descriptor late = limited(), patient = limited(), killed = limited();
  CHECK(passes_deadline([&] { annulet::connect(late.get(), place.address, 100ms); }));
  auto never = spawn_parked(
      [&] { return is_killed_in([&] { return annulet::connect(killed.get(), place.address), 0; }); });
  auto waiting = spawn_parked([&] { annulet::connect(patient.get(), place.address, limit); });
  CHECK_FALSE(waiting.join(100ms));
  never.kill();
  CHECK(never.get());
  // Its SYN is sent again after a second, and then there is room.
  std::vector<annulet::descriptor> served;
  while (!waiting.done()) {
    if (auto next = annulet::try_accept(place.listener.get())) {
      served.push_back(std::move(*next));
    }
    this_fiber::sleep_for(10ms);
  }
  CHECK(failure_of([&] { return waiting.get(), 0; }).error == 0);
}
