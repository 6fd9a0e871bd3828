// What select returns is true when it returns, no more and no less: where selectors built on notifications go
// wrong, and this one must not.
#include "support/cpu_time.hpp"
#include "support/selecting.hpp"
#include "support/texts.hpp"

#include <annulet/hub/hub.hpp>
#include <annulet/runtime/fiber.hpp>
#include <annulet/selector/selector.hpp>

#include <doctest/doctest.h>

#include <array>
#include <atomic>
#include <chrono>
#include <cstdio>
#include <fstream>
#include <sstream>
#include <thread>
#include <vector>

#include <netinet/udp.h>
#include <sys/eventfd.h>
#include <sys/socket.h>

using namespace std::chrono_literals;
using namespace annulet::test;
using annulet::hub;
using annulet::io_event;
using annulet::selector;

namespace {

event_map readable(int fd) { return {{fd, io_event::read}}; }
event_map writable(int fd) { return {{fd, io_event::write}}; }

}  // namespace

TEST_CASE("data consumed between two selects is not reported") {
  hub home;
  selector sel;
  const socket_pair pair = make_socket_pair();
  sel.register_(pair.first.get(), io_event::read);
  for (int i = 0; i < 100; ++i) {
    write_text(pair.second.get(), "x");
    if (i % 3 != 0) {
      REQUIRE(look(sel) == readable(pair.first.get()));
    }
    if (i % 5 == 0) {
      annulet::this_fiber::sleep_for(100us);  // the hub hears of it, and nobody asks
    }
    drain(pair.first.get());
    REQUIRE(look(sel).empty());
  }
}

TEST_CASE("data that another fiber consumes before the select runs keeps it parked") {
  hub home;
  selector sel;
  const socket_pair pair = make_socket_pair();
  const int fd = pair.first.get();
  sel.register_(fd, io_event::read);
  auto fiber = park_in_select(sel);
  for (int i = 0; i < 20; ++i) {
    write_text(pair.second.get(), "x");
    if (i % 2 == 0) {
      sel.modify(fd, both), sel.modify(fd, io_event::read);  // wakes it without a word from the kernel
    }
    drain(fd);
    REQUIRE(!fiber.join(1ms));
  }
  write_text(pair.second.get(), "x");
  CHECK(fiber.join(limit));
  CHECK(fiber.get() == readable(fd));
}

TEST_CASE("what is ready is returned again until it is consumed, all of it") {
  hub home;
  selector sel;
  const socket_pair pair = make_socket_pair();
  const int fd = pair.first.get();
  sel.register_(fd, io_event::read);
  CHECK(look(sel).empty());
  write_text(pair.second.get(), "0123456789");
  for (int i = 0; i < 10; ++i) {
    REQUIRE(as_map(sel.select()) == readable(fd));
    REQUIRE(look(sel) == readable(fd));
    REQUIRE(as_map(sel.select(1s)) == readable(fd));
    REQUIRE(read_text(fd, 1) == std::to_string(i));
  }
  CHECK(look(sel).empty());
}

TEST_CASE("an end of file that came with data is reported after the data was read") {
  hub home;
  selector sel;
  socket_pair pair = make_tcp_pair();
  const int fd = pair.first.get();
  sel.register_(fd, io_event::read);
  CHECK(look(sel).empty());
  auto fiber = park_in_select(sel);
  write_text(pair.second.get(), "last words");
  pair.second.close();
  CHECK(fiber.join(limit));
  CHECK(read_text(fd) == "last words");
  CHECK(as_map(sel.select(limit)) == readable(fd));
  CHECK(look(sel) == readable(fd));
  CHECK(at_end_of_file(fd));
}

TEST_CASE("10 pairs that were primed while nobody selected are all served by one select") {
  hub home;
  selector sel;
  std::array<socket_pair, 10> pairs;
  event_map all;
  for (auto& pair : pairs) {
    pair = make_socket_pair();
    sel.register_(pair.first.get(), io_event::read);
    all.emplace(pair.first.get(), io_event::read);
  }
  CHECK(look(sel).empty());
  for (const auto& pair : pairs) {
    write_text(pair.second.get(), "x");
  }
  annulet::this_fiber::sleep_for(10ms);
  CHECK(as_map(sel.select(-1s)) == all);
  for (const auto& pair : pairs) {
    drain(pair.first.get());
  }
  CHECK(look(sel).empty());
}

TEST_CASE("a select that looks once sees what was written a moment ago, and what was read a moment ago") {
  annulet::hub_options options;
  SUBCASE("as the hub is by default") {}
  SUBCASE("coop_taskrun") { options.mode = annulet::ring_mode::coop_taskrun; }
  SUBCASE("submit_all") { options.mode = annulet::ring_mode::submit_all; }
  hub home(options);
  selector sel;
  const socket_pair pair = make_socket_pair();
  sel.register_(pair.first.get(), io_event::read);
  for (int i = 0; i < 3000; ++i) {
    REQUIRE(look(sel).empty());
    write_text(pair.second.get(), "x");
    REQUIRE(look(sel) == readable(pair.first.get()));
    drain(pair.first.get());
  }
}

TEST_CASE("a select that looks once sees what another thread wrote a moment ago") {
  hub home;
  selector sel;
  const socket_pair pair = make_socket_pair();
  sel.register_(pair.first.get(), io_event::read);
  std::atomic<int> turn{0};  // odd: the writer's
  constexpr int rounds = 1000;
  std::thread writer([&] {
    for (int round = 0; round < rounds; ++round) {
      while (turn.load() != 2 * round + 1) {
        std::this_thread::yield();
      }
      send_byte(pair.second.get());
      ++turn;
    }
  });
  int seen = 0;
  for (int round = 0; round < rounds; ++round) {
    if (look(sel).empty()) {
      ++turn;
      while (turn.load() != 2 * round + 2) {
        std::this_thread::yield();
      }
      seen += look(sel) == readable(pair.first.get()) ? 1 : 0;
    }
    drain(pair.first.get());
  }
  writer.join();
  CHECK(seen == rounds);
}

TEST_CASE("a select that looks once lets other fibers run, and so does one that always finds something") {
  hub home;
  selector sel;
  const socket_pair pair = make_socket_pair();
  sel.register_(pair.first.get(), io_event::write);
  annulet::deadline until = 0s;
  SUBCASE("looking once") {}
  SUBCASE("waiting") { until = annulet::deadline::never(); }
  int ticks = 0;
  auto ticker = annulet::spawn([&] {
    for (; ticks < 10; ++ticks) {
      annulet::this_fiber::yield();
    }
    annulet::this_fiber::sleep_for(1ms);
    ++ticks;
  });
  const auto give_up = steady::now() + limit;
  while (!ticker.done() && steady::now() < give_up) {
    REQUIRE(sel.select(until).size() == 1);
  }
  CHECK(ticks == 11);
}

TEST_CASE("a key that was busy while nobody selected is heard again") {
  hub home;
  selector sel;
  const socket_pair pair = make_socket_pair();
  sel.register_(pair.first.get(), io_event::read);
  CHECK(look(sel).empty());
  for (const int events : {1, 3, 4, 5, 50}) {
    CAPTURE(events);
    for (int i = 0; i < events; ++i) {
      write_text(pair.second.get(), "x");
      annulet::this_fiber::sleep_for(100us);
      drain(pair.first.get());
    }
    auto fiber = park_in_select(sel);
    REQUIRE(!fiber.join(2ms));
    write_text(pair.second.get(), "x");
    REQUIRE(fiber.join(limit));
    REQUIRE(fiber.get() == readable(pair.first.get()));
    drain(pair.first.get());
  }
}

namespace {

// From a raw socket: a whole datagram, with a checksum that cannot be right.
bool send_broken_datagram(int raw, std::uint16_t to) {
  std::array<unsigned char, 1200> packet{};  // long enough that its checksum is looked at late
  udphdr header{};
  header.uh_sport = htons(9);
  header.uh_dport = htons(to);
  header.uh_ulen = htons(static_cast<std::uint16_t>(packet.size()));
  header.uh_sum = htons(0x1234);
  std::copy_n(reinterpret_cast<const unsigned char*>(&header), sizeof(header), packet.begin());
  const sockaddr_in address = loopback(0);
  return ::sendto(raw, packet.data(), packet.size(), 0, reinterpret_cast<const sockaddr*>(&address),
                  sizeof(address)) == static_cast<ssize_t>(packet.size());
}

// Datagrams that this machine has thrown away for their checksum.
std::uint64_t checksum_errors() {
  std::ifstream file("/proc/net/snmp");
  std::vector<std::string> names;
  for (std::string line; std::getline(file, line);) {
    std::istringstream words(line);
    std::string word;
    words >> word;
    if (word != "Udp:") {
      continue;
    }
    std::vector<std::string> values;
    while (words >> word) {
      values.push_back(word);
    }
    for (std::size_t i = 0; !names.empty() && i < values.size(); ++i) {
      if (names.at(i) == "InCsumErrors") {
        return std::stoull(values[i]);
      }
    }
    names = values;
  }
  throw std::runtime_error("/proc/net/snmp does not count bad checksums");
}

}  // namespace

TEST_CASE("a datagram with a bad checksum is not reported as readable") {
  const descriptor raw(::socket(AF_INET, SOCK_RAW | SOCK_CLOEXEC, IPPROTO_UDP));
  if (raw.get() < 0) {
    std::puts("note: skipped: no raw socket for this user, so no datagram with a bad checksum was sent");
    return;
  }
  hub home;
  selector sel;
  const descriptor socket = make_udp_socket();
  // On a non-blocking one the kernel leaves it to the receiver to find out, and poll(2) says IN.
  require_ok(::fcntl(socket.get(), F_SETFL, 0), "fcntl");
  const std::uint16_t port = port_of(socket.get());
  sel.register_(socket.get(), io_event::read);
  const auto errors = checksum_errors();
  CHECK(look(sel).empty());
  REQUIRE(send_broken_datagram(raw.get(), port));
  CHECK(look(sel).empty());
  auto fiber = park_in_select(sel);
  REQUIRE(send_broken_datagram(raw.get(), port));
  CHECK(!fiber.join(20ms));
  CHECK(checksum_errors() >= errors + 2);
  const descriptor sender = make_udp_socket();
  connect_socket(sender.get(), port);
  write_text(sender.get(), "sound");
  CHECK(fiber.join(limit));
  CHECK(fiber.get() == readable(socket.get()));
  CHECK(read_text(socket.get()) == "sound");
}

TEST_CASE("a full socket whose peer has half closed is not writable, and costs nothing until it is") {
  hub home;
  selector sel;
  socket_pair pair;
  SUBCASE("TCP") {
    pair = make_tcp_pair();
    fill_for_good(pair.first.get(), pair.second.get());
  }
  SUBCASE("UNIX") {
    pair = make_socket_pair();
    fill(pair.first.get());
  }
  const int fd = pair.first.get();
  REQUIRE(::shutdown(pair.second.get(), SHUT_WR) == 0);
  sel.register_(fd, io_event::write);
  CHECK(look(sel).empty());
  CHECK(least_cpu(1ms, thread_cpu, [&] { CHECK(sel.select(50ms).empty()); }) < 1ms);
  REQUIRE((revents_of(fd, POLLOUT) & POLLOUT) == 0);
  auto fiber = park_in_select(sel);
  drain(pair.second.get());
  CHECK(fiber.join(limit));
  CHECK(fiber.get() == writable(fd));
}

TEST_CASE("an error on a descriptor is reported as the bits that were asked for") {
  hub home;
  selector sel;
  const tcp_listener listener = make_tcp_listener();
  for (const io_event asked : {io_event::read, io_event::write, both}) {
    CAPTURE(asked);
    socket_pair pair = connect_to(listener);
    fill(pair.first.get());
    sel.register_(pair.first.get(), asked);
    auto fiber = park_in_select(sel);
    const linger at_once{1, 0};
    require_ok(::setsockopt(pair.second.get(), SOL_SOCKET, SO_LINGER, &at_once, sizeof(at_once)),
               "SO_LINGER");
    pair.second.close();  // a reset
    CHECK(fiber.join(limit));
    CHECK(fiber.get() == event_map{{pair.first.get(), asked}});
    CHECK((revents_of(pair.first.get(), POLLIN) & POLLERR) != 0);
    CHECK(look(sel) == event_map{{pair.first.get(), asked}});
    sel.unregister(pair.first.get());
  }
}

TEST_CASE("a connection refused is reported as the bits that were asked for") {
  hub home;
  selector sel;
  const std::uint16_t port = make_tcp_listener().port;  // nobody listens there any more
  for (const io_event asked : {io_event::read, io_event::write, both}) {
    CAPTURE(asked);
    const descriptor socket(
        require_ok(::socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0), "socket"));
    const sockaddr_in address = loopback(port);
    CHECK(::connect(socket.get(), reinterpret_cast<const sockaddr*>(&address), sizeof(address)) == -1);
    sel.register_(socket.get(), asked);
    CHECK(as_map(sel.select(limit)) == event_map{{socket.get(), asked}});
    int error = 0;
    socklen_t size = sizeof(error);
    require_ok(::getsockopt(socket.get(), SOL_SOCKET, SO_ERROR, &error, &size), "SO_ERROR");
    CHECK(error == ECONNREFUSED);
    sel.unregister(socket.get());
  }
}
