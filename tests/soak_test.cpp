// Connections without end through a network that slices, stalls and cuts: an echo server, a proxy and the
// clients, each on a hub of its own. On what was left alone no byte is lost or changed; what was cut has
// brought the right ones up to there; and when all have gone, nothing of them is left.
//
// ANNULET_SOAK_CONNECTIONS says how many there are at once, ANNULET_SOAK_SECONDS for how long in all;
// ANNULET_SOAK_SEED repeats what the dice said.

#include "oracle/run.hpp"
#include "support/descriptor_limit.hpp"
#include "support/numbered_stream.hpp"
#include "support/own_memory.hpp"
#include "support/program.hpp"
#include "support/rough_proxy.hpp"

#include <annulet/runtime/errors.hpp>
#include <annulet/runtime/sanitizer.hpp>
#include <annulet/runtime/scope.hpp>

#include <doctest/doctest.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <span>
#include <vector>

#include <sys/eventfd.h>

using namespace annulet::test;
using namespace std::chrono_literals;
using annulet::spawn;
namespace this_fiber = annulet::this_fiber;
using steady = std::chrono::steady_clock;

namespace {

constexpr auto patience = 120s;  // with each step: the machine is full
constexpr std::size_t longest = 60'000;
constexpr std::size_t longest_piece = 8'000;

// A hub keeps a record of each number that it has met. So each hub meets those that connections will have.
void meet(std::size_t numbers) {
  const descriptor file(require_ok(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK), "eventfd"));
  std::vector<annulet::descriptor> met;
  while (met.size() < numbers) {
    met.push_back(annulet::descriptor::adopt(require_ok(::dup(file.get()), "dup")));
  }
}

class echo_server {
 public:
  explicit echo_server(std::size_t numbers)
      : lives_([this, numbers] {
          meet(numbers);
          accept_all();
        }) {}

  [[nodiscard]] std::uint16_t port() const noexcept { return listener_.port; }
  [[nodiscard]] int connections() const noexcept { return connections_; }

 private:
  void accept_all() {
    for (;;) {
      ++connections_;
      spawn(&echo_server::serve, this, annulet::accept(listener_.socket.get())).detach();
    }
  }
  void serve(annulet::descriptor conn) {
    std::array<char, 16'384> buffer;
    try {
      while (const std::size_t got = conn.recv(buffer)) {
        conn.write_all(std::span(buffer).first(got));
      }
    } catch (const std::system_error&) {
      // It was cut.
    }
    conn = annulet::descriptor();
    --connections_;
  }

  const tcp_listener listener_ = make_busy_listener();
  std::atomic<int> connections_ = -1;  // one is always awaited
  hub_of_its_own lives_;
};

struct soak {
  const rough_proxy& proxy;
  oracle::dice& dice;
  std::chrono::microseconds longest_pause;
  std::uint64_t whole = 0;
  std::uint64_t cut = 0;
  std::uint64_t bytes = 0;
};

void say(soak& all, annulet::descriptor& conn, std::size_t size) {
  std::array<char, longest_piece> bytes;
  for (std::size_t place = 0; place < size;) {
    const auto piece = std::span(bytes).first(1 + all.dice.below(std::min(longest_piece, size - place)));
    number_bytes(piece, place);
    conn.write_all(piece, patience);
    place += piece.size();
    this_fiber::sleep_for(all.longest_pause * all.dice.below(1000) / 1000);
  }
  (void)::shutdown(conn.fileno(), SHUT_WR);
}

// Until the end: each byte that comes back is the right one for its place. Throws where the end is an error.
void hear(soak& all, annulet::descriptor& conn, std::size_t& place) {
  std::array<char, longest_piece> bytes, expected;
  while (const std::size_t got = conn.recv(bytes, patience)) {
    number_bytes(std::span(expected).first(got), place);
    REQUIRE(std::ranges::equal(std::span(bytes).first(got), std::span(expected).first(got)));
    place += got;
    all.bytes += got;
  }
}

using treatment = rough_proxy::treatment;

// What is cut may end in the middle; that anything takes too long is wrong all the same.
template <class Talk>
void until_cut(treatment how, Talk talk) {
  try {
    talk();
  } catch (const annulet::deadline_passed&) {
    throw;
  } catch (const std::system_error&) {
    REQUIRE(how == treatment::cut);
  }
}

void converse(soak& all) {
  const treatment how = all.dice.one_in(8) ? treatment::cut : treatment::alone;
  const std::size_t size = 1 + all.dice.below(longest);
  annulet::descriptor conn = connection_to(all.proxy.port());
  const char first = static_cast<char>(how);
  conn.write_all({&first, 1}, patience);
  std::size_t place = 0;
  annulet::scope([&](annulet::fiber_group& speaker) {
    speaker.spawn([&] { until_cut(how, [&] { say(all, conn, size); }); });
    until_cut(how, [&] { hear(all, conn, place); });
  });
  REQUIRE((how == treatment::cut || place == size));
  ++(place == size ? all.whole : all.cut);
}

// Each converses once at least, and until `end` again.
void run(soak& all, std::size_t connections, steady::time_point end) {
  annulet::scope([&](annulet::fiber_group& clients) {
    for (std::size_t i = 0; i < connections; ++i) {
      clients.spawn([&all, end] {
        do {
          converse(all);
        } while (steady::now() < end);
      });
    }
  });
}

// When stacks that nobody has used for a second or two have been given back.
std::size_t resident_at_rest() {
  std::size_t least = annulet_test::resident_bytes();
  for (int tenths_without_less = 0; tenths_without_less < 25; ++tenths_without_less) {
    this_fiber::sleep_for(100ms);
    if (const std::size_t now = annulet_test::resident_bytes(); now < least) {
      least = now;
      tenths_without_less = 0;
    }
  }
  return least;
}

struct belongings {
  std::size_t descriptors = open_descriptors();
  std::size_t polls = held_by_the_kernel();
  std::size_t mappings = annulet_test::mappings();
  std::size_t resident = resident_at_rest();
};

// What was cut may be in the server's backlog still, and its descriptor is closed behind its count.
belongings when_all_have_gone(std::size_t descriptors, const echo_server& server, const rough_proxy& proxy) {
  CHECK(becomes_true([&] { return proxy.links() == 0 && server.connections() == 0; }));
  CHECK(becomes_true([&] { return open_descriptors() == descriptors; }));
  return {};
}

}  // namespace

TEST_CASE("conversations through a network that slices, stalls and cuts lose nothing, and leave nothing") {
  const auto connections = oracle::from_environment("ANNULET_SOAK_CONNECTIONS", 200);
  const std::chrono::milliseconds length(1000 * oracle::from_environment("ANNULET_SOAK_SECONDS", 2));
  const std::uint64_t seed = oracle::from_environment("ANNULET_SOAK_SEED", oracle::fresh_seed());
  std::printf("note: soak: seed %llu\n", static_cast<unsigned long long>(seed));
  REQUIRE(allow_descriptors(20'000) > 4 * connections + 200);
  const annulet::hub home;
  oracle::dice dice(seed);
  const std::size_t numbers = 4 * connections + 100;
  meet(numbers);
  const echo_server server(numbers);
  REQUIRE(becomes_true([&] { return server.connections() == 0; }));
  const rough_proxy proxy(server.port(), seed + 1, [numbers] { meet(numbers); });
  REQUIRE(becomes_true([&] { return proxy.links() == 0; }));
  soak all{proxy, dice, std::chrono::microseconds(200) * connections};
  const std::size_t descriptors = open_descriptors();
  run(all, connections, steady::now() + length / 2);
  const belongings before = when_all_have_gone(descriptors, server, proxy);
  run(all, connections, steady::now() + length / 2);
  const belongings after = when_all_have_gone(descriptors, server, proxy);

  std::printf("note: soak: %llu conversations whole, %llu cut, %llu bytes\n",
              static_cast<unsigned long long>(all.whole), static_cast<unsigned long long>(all.cut),
              static_cast<unsigned long long>(all.bytes));
  std::printf("note: soak: %zu descriptors, %zu requests, %zu -> %zu mappings, %zu -> %zu bytes resident\n",
              after.descriptors, after.polls, before.mappings, after.mappings, before.resident,
              after.resident);
  CHECK(all.whole > all.cut);
  CHECK(all.cut > 0);
  CHECK(becomes_true([&] { return held_by_the_kernel() == before.polls; }));
  if constexpr (annulet::detail::built_in == annulet::detail::sanitizer::none) {
    // The allocator's heaps of three threads, and what was touched for the first time.
    CHECK(after.mappings <= before.mappings + 32);
    CHECK(after.resident <= before.resident + 1'000'000);
  }
}
