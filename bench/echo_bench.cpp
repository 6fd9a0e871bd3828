// echo: what a server spends on an echo over TCP.
//
//   annulet_bench echo [--quick]      all of it takes some minutes
//
// The subject is annulet with a fiber a connection, in blocking style. It is held against raw epoll, in both
// ways, raw liburing, by poll requests and by RECV and SEND requests, libuv, libevent, Boost.Asio with
// callbacks and with stackful coroutines, and a thread a connection. Annulet on its other engine is held
// against raw epoll too. The server has one processor, the client (echo_client.hpp) the other. What counts is
// the processor time of the server's process, for on two processors it is the client that is busy first.
//
// Saturated, every connection has always one message under way; paced, messages come at half the rate that
// level-triggered epoll has just reached, and the client spins; streaming, 4 connections have 32 messages of
// 512 bytes under way each. How often the client slept stands beside each figure: a server that answers in
// batches wakes a sleeping client less often, and that is dear.
#include <fcntl.h>
#include <algorithm>
#include <cerrno>
#include <cstring>
#include <initializer_list>
#include <string>

#include "benches.hpp"
#include "echo.hpp"
#include "echo_client.hpp"
#include "engines.hpp"
#include "harness.hpp"

namespace bench {
namespace {

constexpr const char* reference_name = "epoll, level-triggered";

// The server's own descriptors, for one turn.
std::vector<int> duplicates(std::span<const int> fds) {
  std::vector<int> made;
  for (const int fd : fds) {
    made.push_back(fcntl(fd, F_DUPFD_CLOEXEC, 0));
    if (made.back() < 0) {
      fail("F_DUPFD_CLOEXEC: %s", std::strerror(errno));
    }
  }
  return made;
}

void echo_turn(meter& clock, std::uint64_t operations, echo_server serve, const echo_load& load,
               echo_client& client, double interval_ns) {
  const std::uint64_t a_lap = load.connections * load.outstanding;
  operations = std::max(operations, std::max<std::uint64_t>(1000, 2 * a_lap));
  const echo_course::lengths lengths{
      .warm_up = operations / 8 + 2 * a_lap, .measured = operations, .rest = a_lap};
  echo_course course(clock, load.message, lengths);
  const std::vector<int> fds = duplicates(client.server_ends());
  client.order(lengths.total(), interval_ns);
  serve(fds, course);
  clock.client_slept(static_cast<double>(client.sleeps()) / static_cast<double>(lengths.total()));
}

class echo_contests {
 public:
  echo_contests(harness& run, const echo_load& load, int processor)
      : run_(run), load_(load), client_(load, processor) {}

  void saturated() { hold(load_.outstanding > 1 ? "streaming" : "saturated", 0); }
  void paced() { hold("paced, client spins", 2 * epoll_ns()); }

 private:
  void hold(const std::string& how, double interval_ns) {
    const auto turn_of = [&](echo_server serve) -> turn_function {
      return [=, this](meter& clock, std::uint64_t operations) {
        echo_turn(clock, operations, serve, load_, client_, interval_ns);
      };
    };
    // With few connections the single wake-ups decide, and they spread too far to ask anything of them.
    const auto asked = [&](double bound) {
      const bool judged = load_.connections >= 50 || load_.outstanding > 1;
      return judged ? std::optional(goal::at_most(bound)) : std::nullopt;
    };
    run_.hold({.bench = "echo",
               .setting = std::to_string(load_.connections) + " connections, " +
                          std::to_string(load_.message) + " B, " + how,
               .operation = "an echo",
               .subject = {"annulet, recv + write_all", turn_of(serve_annulet_write_all)},
               .baselines = {{reference_name, turn_of(serve_epoll_level), asked(1.03)},
                             {"epoll, edge-triggered", turn_of(serve_epoll_edge), asked(1.03)},
                             {.name = on_epoll_name,
                              .turn = turn_of(serve_annulet_on_epoll),
                              .own = rivalry{reference_name, asked(1.05)}},
                             {"annulet, recv + send", turn_of(serve_annulet_send)},
                             {"liburing, poll + direct", turn_of(serve_uring_poll)},
                             {"liburing, RECV + SEND", turn_of(serve_uring_requests)},
                             {"libuv", turn_of(serve_libuv), asked(1.0)},
                             {"libevent", turn_of(serve_libevent)},
                             {"Asio, callbacks", turn_of(serve_asio), asked(1.0)},
                             {"Asio, stackful", turn_of(serve_asio_stackful), asked(1.0)},
                             {"thread a connection", turn_of(serve_threads), asked(1.0)}},
               .judged_by = metric::cpu,
               .charged = accounting::process,
               .reference = 0,
               .turn_length = run_.options().quick ? 1.0 : 2.0});
  }

  // An echo's time at the reference, in the contest before.
  double epoll_ns() const {
    const std::vector<standing>& standings = run_.outcomes().back().standings;
    const auto epoll = std::ranges::find(standings, reference_name, &standing::name);
    if (epoll == standings.end()) {
      fail("echo: there are no figures of '%s' to pace by", reference_name);
    }
    return epoll->wall_ns.median;
  }

  harness& run_;
  const echo_load load_;
  echo_client client_;
};

}  // namespace

void bench_echo(harness& run) {
  const auto processor = usable_processors().other;
  if (!processor) {
    run.skip("echo", "all", "needs a second processor");
    return;
  }
  const bool quick = run.options().quick;
  for (const std::size_t count : {1, 8, 50, 300, 1000}) {
    if (quick && count < 50) {
      continue;
    }
    if (!echo_client::possible(count)) {
      run.skip("echo", std::to_string(count) + " connections", "too few open files allowed (ulimit -n)");
      continue;
    }
    echo_contests contests(run, {.connections = count}, *processor);
    contests.saturated();
    contests.paced();
  }
  for (const std::size_t message : {512, 4096}) {
    if (!quick && echo_client::possible(300)) {
      echo_contests(run, {.connections = 300, .message = message}, *processor).saturated();
    }
  }
  echo_contests(run, {.connections = 4, .message = 512, .outstanding = 32}, *processor).saturated();
}

}  // namespace bench
