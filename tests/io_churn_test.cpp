// Connections that come, speak and go, as a server meets them: most end in order, some are reset half-way,
// some say nothing, and on both sides fibers are killed in the middle. When all have gone, nothing of them is
// left: no descriptor, no mapping, no memory, no request.
//
// ANNULET_CHURN_CONNECTIONS says how many; ANNULET_CHURN_SEED repeats what the dice said.
#include <annulet/hub/io.hpp>
#include <annulet/runtime/event.hpp>
#include <annulet/runtime/sanitizer.hpp>

#include "oracle/dice.hpp"
#include "oracle/run.hpp"
#include "support/files.hpp"
#include "support/own_memory.hpp"
#include "support/probe_watch.hpp"
#include "support/races.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <array>
#include <cstdio>
#include <span>
#include <utility>
#include <vector>

#include <malloc.h>
#include <string.h>

using namespace annulet::test;
using annulet::fiber;
using annulet::spawn;
namespace this_fiber = annulet::this_fiber;

namespace {

enum class fate : std::uint8_t { in_order, reset, silent, server_killed, client_killed };
constexpr std::array fate_names = {"ended in order", "reset by the client",
                                   "silent, and given up by the server", "the server's fiber killed",
                                   "the client's fiber killed"};

constexpr auto server_patience = 10ms;
constexpr std::size_t longest = 16 * 1024;  // bytes of one message
constexpr std::size_t at_once = 64;         // connections

class server {
 public:
  explicit server(const tcp_listener& listener)
      : serving_(spawn([this, &listener] {
          for (;;) {
            auto conn = annulet::accept(listener.socket.get());
            std::erase_if(alive_, [](const fiber<void>& f) { return f.done(); });
            alive_.push_back(spawn(&server::serve, this, std::move(conn)));
          }
        })) {}
  // Waits for all connections, which have been ended by their clients.
  void end() {
    serving_.kill();
    serving_.join();
    for (auto& f : alive_) {
      REQUIRE(f.join(annulet::deadline(patience)));
    }
  }

  // A fiber that serves some connection, if there is one.
  void kill_one(oracle::dice& dice) {
    if (!alive_.empty()) {
      dice.pick(alive_).kill();
      ++killed;
    }
  }

  std::size_t killed = 0;
  std::size_t gave_up = 0;

 private:
  void serve(annulet::descriptor conn) {
    std::array<char, longest> buffer;
    try {
      while (const std::size_t n = conn.recv(buffer, server_patience)) {
        conn.write_all({buffer.data(), n});
      }
    } catch (const annulet::deadline_passed&) {
      ++gave_up;
    } catch (const std::system_error& e) {
      CHECK((e.code().value() == ECONNRESET || e.code().value() == EPIPE));
    }
  }

  std::vector<fiber<void>> alive_;
  fiber<void> serving_;
};

struct churn {
  const tcp_listener& listener;
  server& peers;
  oracle::dice& dice;
  std::array<std::uint64_t, fate_names.size()> counts{};
  std::uint64_t cut_short = 0;  // conversations that a kill ended
};

annulet::descriptor connected(const churn& all) {
  const int kind = SOCK_STREAM | SOCK_CLOEXEC | (all.dice.one_in(2) ? SOCK_NONBLOCK : 0);
  auto conn = annulet::descriptor::adopt(require_ok(::socket(AF_INET, kind, 0), "socket"));
  reset_on_close(conn.fileno());  // or the ports run out
  conn.connect(annulet::socket_address(loopback(all.listener.port)), patience);
  return conn;
}

// Says something and hears it again. False where the server has gone.
bool converse(annulet::descriptor& conn, oracle::dice& dice) {
  // Not on the heap, whose use is for the library alone to answer for.
  std::array<char, longest> sent, received;
  const std::size_t size = 1 + dice.below(dice.one_in(8) ? longest : 200);
  const auto said = std::span(sent).first(size), heard = std::span(received).first(size);
  std::ranges::generate(said, [&] { return static_cast<char>(dice.next()); });
  try {
    conn.write_all(said, patience);
    if (conn.read_exactly(heard, patience) < heard.size()) {
      return false;
    }
  } catch (const annulet::deadline_passed&) {
    throw;
  } catch (const std::system_error&) {
    return false;
  }
  REQUIRE(std::ranges::equal(heard, said));
  return true;
}

void end_in_order(churn& all, annulet::descriptor& conn) {
  require_ok(::shutdown(conn.fileno(), SHUT_WR), "shutdown");
  char byte = 0;
  try {
    REQUIRE(conn.recv({&byte, 1}, patience) == 0);
  } catch (const annulet::deadline_passed&) {
    throw;
  } catch (const std::system_error&) {
    ++all.cut_short;  // a kill has met it
  }
}

void live(churn& all, fate how) {
  auto conn = connected(all);
  for (std::size_t left = all.dice.below(4); left > 0; --left) {
    if (!converse(conn, all.dice)) {
      ++all.cut_short;
      return;
    }
  }
  switch (how) {
    case fate::in_order:
      end_in_order(all, conn);
      break;
    case fate::reset:  // with an answer under way, and more than the server can send
      try {
        std::array<char, longest> rest;
        (void)conn.try_send({rest.data(), all.dice.below(rest.size())});
      } catch (const std::system_error&) {
        ++all.cut_short;
      }
      break;
    case fate::silent: {
      char byte = 0;
      try {
        REQUIRE(conn.recv({&byte, 1}, patience) == 0);
      } catch (const annulet::deadline_passed&) {
        throw;
      } catch (const std::system_error&) {
        ++all.cut_short;
      }
      break;
    }
    case fate::server_killed:
      all.peers.kill_one(all.dice);
      (void)converse(conn, all.dice);
      break;
    case fate::client_killed:
      while (converse(conn, all.dice)) {
      }
      break;
  }
}

// One after the other.
void live_through(churn& all, std::uint64_t connections) {
  for (; connections > 0; --connections) {
    const std::size_t roll = all.dice.below(100);
    const fate how = roll < 70   ? fate::in_order
                     : roll < 82 ? fate::reset
                     : roll < 84 ? fate::silent
                     : roll < 92 ? fate::server_killed
                                 : fate::client_killed;
    ++all.counts[static_cast<std::size_t>(how)];
    if (how != fate::client_killed) {
      live(all, how);
      continue;
    }
    auto victim = spawn([&all] { live(all, fate::client_killed); });
    this_fiber::sleep_for(std::chrono::microseconds(all.dice.below(400)));
    victim.kill();
    REQUIRE(victim.join(annulet::deadline(patience)));
  }
}

void run(churn& all, std::uint64_t connections) {
  std::vector<fiber<void>> clients;
  for (std::size_t i = 0; i < at_once; ++i) {
    const std::uint64_t its_own = connections / at_once + (i < connections % at_once ? 1 : 0);
    clients.push_back(spawn(live_through, std::ref(all), its_own));
  }
  for (auto& client : clients) {
    client.get();
  }
}

struct belongings {
  std::size_t descriptors, mappings;
  std::size_t heap;      // bytes that malloc has given out
  std::size_t resident;  // bytes
  std::size_t polls;     // that the kernel holds

  static belongings now() {
    return {open_descriptors(), annulet_test::mappings(), ::mallinfo2().uordblks,
            annulet_test::resident_bytes(), held_by_the_kernel()};
  }
};

// As many connects as there are ever at once, all of which wait: nobody takes what fills this listener's
// queue. Where each is carried out by a thread, the C library keeps the stacks of so many from then on.
void warm_up_connecting() {
  const auto listener = make_tcp_listener();
  require_ok(::listen(listener.socket.get(), 0), "listen");
  std::vector<fiber<void>> fibers;
  std::size_t waiting = 0;
  for (std::size_t i = 0; i < 2 * at_once; ++i) {
    fibers.push_back(spawn([&waiting, port = listener.port] {
      auto conn =
          annulet::descriptor::adopt(require_ok(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), "socket"));
      reset_on_close(conn.fileno());
      ++waiting;
      conn.connect(annulet::socket_address(loopback(port)));
      --waiting;
    }));
  }
  this_fiber::sleep_for(50ms);
  REQUIRE(waiting >= at_once);
  for (auto& f : fibers) {
    f.kill();
    f.join();
  }
}

// More of everything than there is ever at once, so that what is kept for the next time is there.
void warm_up() {
  warm_up_connecting();
  constexpr std::size_t many = 4 * at_once;
  std::vector<pipe_pair> pipes;
  std::vector<fiber<void>> fibers;
  for (std::size_t i = 0; i < many; ++i) {
    pipes.push_back(make_pipe());
    fibers.push_back(spawn([&pipes, i] {
      std::array<char, 4 * longest> deep;  // deeper than anybody who comes later
      ::explicit_bzero(deep.data(), deep.size());
      (void)annulet::read(pipes[i].reader.get(), deep);
    }));
  }
  this_fiber::yield();
  for (auto& f : fibers) {
    f.kill();
    f.join();
  }
}

void require_nothing_waits() {
  for (int fd = 0; fd < 4096; ++fd) {
    const auto* const file = this_hub().find_state(fd);
    if (file != nullptr) {
      CAPTURE(fd);
      REQUIRE_FALSE(file->in_use());
      REQUIRE_FALSE(file->has_requests());
      REQUIRE_FALSE(file->closing());
    }
  }
}

}  // namespace

TEST_CASE("connections that come, speak and go leave everything as it was") {
  const std::uint64_t connections = oracle::from_environment("ANNULET_CHURN_CONNECTIONS", 6'400);
  const std::uint64_t seed = oracle::from_environment("ANNULET_CHURN_SEED", oracle::fresh_seed());
  std::printf("note: churn: seed %llu\n", static_cast<unsigned long long>(seed));
  annulet::hub hub;
  oracle::dice dice(seed);
  const auto listener = make_tcp_listener();
  server peers(listener);
  churn all{listener, peers, dice};
  warm_up();
  run(all, 3'200);
  this_fiber::sleep_for(2 * server_patience);
  const belongings before = belongings::now();

  all.counts = {};
  peers.killed = peers.gave_up = 0;
  run(all, connections);
  this_fiber::sleep_for(2 * server_patience);
  const belongings after = belongings::now();

  std::uint64_t in_all = 0;
  for (std::size_t i = 0; i < fate_names.size(); ++i) {
    std::printf("note: churn: %s: %llu\n", fate_names[i], static_cast<unsigned long long>(all.counts[i]));
    in_all += all.counts[i];
    CHECK(all.counts[i] * 100 >= connections);
  }
  CHECK(in_all == connections);
  CHECK(peers.killed * 100 >= connections);
  CHECK(peers.gave_up * 200 >= connections);
  CHECK(all.cut_short < connections / 2);
  std::printf(
      "note: churn: %zu descriptors, %zu mappings, %zu requests, heap %zu -> %zu, resident %zu -> %zu\n",
      after.descriptors, after.mappings, after.polls, before.heap, after.heap, before.resident,
      after.resident);
  CHECK(after.descriptors == before.descriptors);
  CHECK(after.polls == before.polls);
  // What an allocator keeps for itself, however many connections there were.
  CHECK(after.heap <= before.heap + 4 * 1024);
  if constexpr (annulet::detail::built_in == annulet::detail::sanitizer::none) {
    CHECK(after.mappings == before.mappings);
    CHECK(after.resident <= before.resident + 256 * 1024);
  }

  peers.end();
  require_nothing_waits();
}
