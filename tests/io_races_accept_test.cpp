// accept and connect, and what may end them at nearly the same time. Each has one outcome, and no connection
// is lost, given out twice or left open.
//
// ANNULET_RACE_ROUNDS says how many rounds for each call and each way of ending it.

#include "support/io_races.hpp"
#include "support/texts.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include <poll.h>
#include <sys/un.h>

using namespace annulet::test;
using annulet::deadline;
using annulet::socket_address;

namespace {

// A listening socket, and what is known of those that connect to it.
class listening {
 public:
  listening(int family, bool blocking, int backlog) : family_(family), blocking_(blocking) {
    socket_ = make_socket(true);
    if (family == AF_INET) {
      const sockaddr_in any_port = loopback(0);
      bind(socket_address(any_port));
    } else {
      sockaddr_un unnamed{};
      unnamed.sun_family = AF_UNIX;  // alone, the kernel chooses an abstract name
      bind(socket_address(reinterpret_cast<const sockaddr*>(&unnamed), sizeof(unnamed.sun_family)));
    }
    require_ok(::listen(socket_.get(), backlog), "listen");
    require_ok(::getsockname(socket_.get(), address_.room(), address_.room_size()), "getsockname");
    set_blocking(blocking);
  }

  [[nodiscard]] std::string name() const {
    return std::string(blocking_ ? "blocking " : "non-blocking ") + (family_ == AF_INET ? "TCP" : "unix");
  }
  [[nodiscard]] const socket_address& address() const noexcept { return address_; }
  [[nodiscard]] int duplicate() const {
    return require_ok(::fcntl(socket_.get(), F_DUPFD_CLOEXEC, 0), "fcntl F_DUPFD_CLOEXEC");
  }
  [[nodiscard]] descriptor make_socket(bool blocking) const {
    const int type = SOCK_STREAM | SOCK_CLOEXEC | (blocking ? 0 : SOCK_NONBLOCK);
    descriptor made(require_ok(::socket(family_, type, 0), "socket"));
    if (family_ == AF_INET) {
      reset_on_close(made.get());
    }
    return made;
  }

  // Connects, and says a number of its own. There must be room in the backlog. On any thread.
  void connect_one() {
    descriptor made = make_socket(true);
    require_ok(::connect(made.get(), address_.data(), address_.size()), "connect");
    const std::lock_guard<std::mutex> one_by_one(clients_lock_);
    const std::uint64_t serial = next_serial_++;
    say(made.get(), serial);
    clients_.emplace(serial, std::move(made));
  }
  static void say(int socket, std::uint64_t serial) {
    if (::write(socket, &serial, sizeof(serial)) != sizeof(serial)) {
      throw std::runtime_error("a new connection takes no bytes");
    }
  }
  // The number that the other end of a connection says, or nothing where it is closed.
  static std::optional<std::uint64_t> heard(int socket) {
    pollfd one{socket, POLLIN, 0};
    if (::poll(&one, 1, 10'000) != 1) {
      throw std::runtime_error("a connection says nothing, and is not closed");
    }
    std::uint64_t serial = 0;
    return ::recv(socket, &serial, sizeof(serial), MSG_DONTWAIT) == sizeof(serial) ? std::optional(serial)
                                                                                   : std::nullopt;
  }
  // This connection is one of those that were made, and none before was the same.
  void came(int socket) {
    const auto serial = heard(socket);
    REQUIRE(serial);
    forget(*serial);
  }
  void forget(std::uint64_t serial) { REQUIRE(clients_.erase(serial) == 1); }
  [[nodiscard]] std::size_t outstanding() const noexcept { return clients_.size(); }

  // A connection that nobody has taken yet; empty where there is none.
  descriptor take() {
    set_blocking(false);
    descriptor taken(::accept4(socket_.get(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
    set_blocking(blocking_);
    if (taken.get() >= 0 && family_ == AF_INET) {
      reset_on_close(taken.get());
    }
    return taken;
  }

 private:
  void bind(const socket_address& to) const {
    require_ok(::bind(socket_.get(), to.data(), to.size()), "bind");
  }
  void set_blocking(bool yes) const {
    require_ok(::fcntl(socket_.get(), F_SETFL, yes ? 0 : O_NONBLOCK), "fcntl");
  }

  int family_;
  bool blocking_;
  descriptor socket_;
  socket_address address_;
  std::mutex clients_lock_;
  std::map<std::uint64_t, descriptor> clients_;
  std::uint64_t next_serial_ = 1;
};

end accept_round(contest& c, listening& listener, ending how) {
  subject on(listener.duplicate(), how == ending::destructor || c.dice.one_in(2));
  annulet::descriptor accepted;
  std::vector<racer> peers(1 + c.dice.below(2),
                           {[&listener] { listener.connect_one(); }, racer::place::anywhere});
  const bool asks = c.dice.one_in(2);
  const call_record record = c.run(
      how, on,
      [&](deadline until, call_record&) {
        if (asks) {
          socket_address peer;
          accepted = annulet::accept(on.ref(), peer, until);
          REQUIRE(peer.family() == listener.address().family());
        } else {
          accepted = annulet::accept(on.ref(), until);
        }
      },
      std::move(peers), [] {});
  REQUIRE((record.what == end::done) == static_cast<bool>(accepted));
  if (accepted) {
    REQUIRE((::fcntl(accepted.fileno(), F_GETFD) & FD_CLOEXEC) != 0);
    listener.came(accepted.fileno());
    if (listener.address().family() == AF_INET) {
      reset_on_close(accepted.fileno());
    }
  }
  while (listener.outstanding() != 0) {
    const descriptor left = listener.take();
    REQUIRE(left.get() >= 0);
    listener.came(left.get());
  }
  REQUIRE(listener.take().get() < 0);
  return record.what;
}

// Where connections go, and whether it has room for them. Without room a unix socket waits for the next
// accept; a TCP one for longer than any round, and only an error ends it early.
struct gate {
  gate(int family, bool blocks, bool is_full)
      : listener(family, true, is_full ? 0 : 64), blocking(blocks), full(is_full) {}

  [[nodiscard]] std::string name() const {
    return std::string(blocking ? "blocking " : "non-blocking ") + (tcp() ? "TCP" : "unix") +
           (full ? ", no room" : ", room");
  }
  [[nodiscard]] bool tcp() const { return listener.address().family() == AF_INET; }

  listening listener;
  bool blocking;
  bool full;
};

end connect_round(contest& c, gate& to, ending how) {
  if (to.full) {
    to.listener.connect_one();
  }
  const descriptor socket = to.listener.make_socket(to.blocking);
  const int number = require_ok(::fcntl(socket.get(), F_DUPFD_CLOEXEC, 0), "fcntl F_DUPFD_CLOEXEC");
  subject on(number, how == ending::destructor || c.dice.one_in(2));
  std::vector<descriptor> taken;
  std::vector<racer> peers;
  const auto fail = [&] { ::shutdown(socket.get(), SHUT_RDWR); };
  const auto make_room = [&] {
    descriptor first = to.listener.take();
    if (first.get() >= 0) {
      taken.push_back(std::move(first));
    }
  };
  const bool fails = to.full && to.tcp();
  // Room that comes at once is nearly always first, before a worker of the kernel's: so in every other round
  // there is none.
  if (fails || how == ending::completion || c.dice.one_in(2)) {
    peers.push_back({fails ? std::function<void()>(fail) : make_room, racer::place::anywhere});
  }
  constexpr std::uint64_t ours = 0;
  const call_record record = c.run(
      how, on,
      [&](deadline until, call_record&) {
        annulet::connect(on.ref(), to.listener.address(), until);
        listening::say(socket.get(), ours);
      },
      std::move(peers), [&] { fails ? fail() : void(); });
  if (record.what == end::failed) {
    CAPTURE(record.error);
    // The last: the kernel tries again where the shutdown meets its request half-way.
    REQUIRE((record.error == ECONNRESET || record.error == ECONNABORTED || record.error == EALREADY));
    REQUIRE(fails);
  }
  // Where it was not done, the attempt ends with the socket.
  ::shutdown(socket.get(), record.what == end::done ? SHUT_WR : SHUT_RDWR);
  for (descriptor more = to.listener.take(); more.get() >= 0; more = to.listener.take()) {
    taken.push_back(std::move(more));
  }
  std::size_t heard = 0;
  for (const descriptor& one : taken) {
    const auto serial = listening::heard(one.get());
    heard += serial == ours ? 1U : 0U;
    if (serial && *serial != ours) {
      to.listener.forget(*serial);
    }
  }
  REQUIRE(heard == (record.what == end::done ? 1U : 0U));
  REQUIRE(to.listener.outstanding() == 0);
  return record.what;
}

bool may_wait(const listening&) noexcept { return true; }
bool may_wait(const gate& g) noexcept { return g.full; }

template <class Place, class Round>
void races(const char* call, std::vector<std::unique_ptr<Place>> places, bool may_fail, Round round_of) {
  contest c(call);
  ends_by_file by_place;
  do {
    for (const ending how : endings) {
      outcomes counts(std::string(call) + " against " + ending_names[static_cast<std::size_t>(how)]);
      for (std::uint64_t round = 0; round < c.rounds; ++round) {
        Place& place = *places[round % places.size()];
        CAPTURE(place.name());
        CAPTURE(round);
        const end e = round_of(c, place, how);
        c.require_nothing_left(false);
        counts.count(name_of(e));
        by_place.count(place.name(), may_wait(place), e == end::failed ? end::done : e);
      }
      auto possible = possible_ends(how);
      if (may_fail) {
        possible.push_back(name_of(end::failed));
      }
      counts.check(c.rounds, possible);
    }
  } while (by_place.too_few_to_tell());
  by_place.check();
  c.check_ticker();
}

}  // namespace

TEST_CASE("an accept has one outcome, and each connection is accepted once") {
  const std::size_t descriptors = open_descriptors();
  {
    std::vector<std::unique_ptr<listening>> listeners;
    for (const int family : {AF_INET, AF_UNIX}) {
      for (const bool blocking : {true, false}) {
        listeners.push_back(std::make_unique<listening>(family, blocking, 64));
      }
    }
    races("accept", std::move(listeners), false, accept_round);
  }
  CHECK(open_descriptors() == descriptors);
}

TEST_CASE("a connect has one outcome, and is connected where it says so") {
  const std::size_t descriptors = open_descriptors();
  {
    std::vector<std::unique_ptr<gate>> gates;
    for (const int family : {AF_INET, AF_UNIX}) {
      for (const bool blocking : {true, false}) {
        gates.push_back(std::make_unique<gate>(family, blocking, false));
        // More of those where something is to be waited for. A non-blocking unix socket does not: EAGAIN.
        for (int more = 3; more > 0 && (blocking || family == AF_INET); --more) {
          gates.push_back(std::make_unique<gate>(family, blocking, true));
        }
      }
    }
    races("connect", std::move(gates), true, connect_round);
  }
  CHECK(open_descriptors() == descriptors);
}
