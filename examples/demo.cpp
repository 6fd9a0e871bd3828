// Two acts. A selector in one fiber serves 1,000 TCP connections while another fiber keeps time; a plain
// epoll loop serves the same load, in turns, and the two are compared. Then a fiber for each connection does
// it in blocking style, for clients that are fibers too.
//
//   demo [--connections N] [--quick]

#include "demo_client.hpp"
#include "demo_fibers.hpp"
#include "demo_meter.hpp"
#include "demo_server.hpp"
#include "demo_text.hpp"
#include "demo_ticker.hpp"

#include <annulet/hub/hub.hpp>
#include <annulet/runtime/fiber.hpp>

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <unistd.h>
#include <algorithm>
#include <charconv>
#include <chrono>
#include <cstddef>
#include <cstdio>
#include <exception>
#include <optional>
#include <string>
#include <string_view>
#include <system_error>

namespace demo {
namespace {

using namespace std::chrono_literals;

struct options {
  std::size_t connections = 1000;
  bool quick = false;
};

// --- turns

struct side {
  const char* name;
  turn_result (*take_turn)(const assignment& a, side& s);
  turn_result timed{}, counted{};
  timekeeping ticker{};
};

turn_result selector_turn(const assignment& a, side& s) {
  annulet::hub hub;
  auto ticker = annulet::spawn({.name = "ticker"}, [&s] { keep_time(s.ticker); });
  auto serving = annulet::spawn({.name = "server"}, [&a] { return server<selector_poller>(a).run(); });
  const turn_result result = serving.get();
  ticker.kill();
  ticker.join();
  return result;
}

turn_result epoll_turn(const assignment& a, side&) { return server<epoll_poller>(a).run(); }

void add(turn_result& total, const turn_result& turn) {
  total.connections += turn.connections;
  total.echoes += turn.echoes;
  total.bytes += turn.bytes;
  total.events += turn.events;
  total.time += turn.time;
  total.cpu += turn.cpu;
  total.waited += turn.waited;
}

void take_turn(int number, side& s, const assignment& a) {
  const turn_result turn = s.take_turn(a, s);
  std::printf("turn %d of 6  %-18s %s connections, %s echoes in %.2f s, every byte right%s\n", number, s.name,
              grouped(turn.connections).c_str(), grouped(turn.echoes).c_str(), seconds(turn.time),
              turn.syscalls ? "; system calls counted" : "");
  std::fflush(stdout);
  if (a.counter == nullptr) {
    add(s.timed, turn);
  } else {
    s.counted = turn;
  }
}

// --- what it says in the end

std::string cpu_per_event(const side& s) {
  return per_event(seconds(s.timed.cpu) * 1e6, s.timed.events, " us");
}

std::string syscalls_per_event(const side& s) {
  return s.counted.syscalls ? per_event(static_cast<double>(*s.counted.syscalls), s.counted.events, "") : "-";
}

std::string share_waited(const side& s) {
  return with_unit(seconds(s.timed.waited) / seconds(s.timed.time) * 100, " %");
}

void print_table(const side& selector, const side& epoll) {
  turn_result a = selector.timed, b = epoll.timed;
  add(a, selector.counted);
  add(b, epoll.counted);
  std::printf("\n");
  print_row("", {selector.name, epoll.name});
  print_row("connections served", {grouped(a.connections), grouped(b.connections)});
  print_row("echoes", {grouped(a.echoes), grouped(b.echoes)});
  print_row("bytes, all right", {grouped(a.bytes), grouped(b.bytes)});
  print_row("ticker, beats of 10 ms", {grouped(selector.ticker.beats), "-"});
  print_row("ticker, late at worst", {with_unit(seconds(selector.ticker.latest) * 1e3, " ms"), "-"});
  print_row("CPU an event", {cpu_per_event(selector), cpu_per_event(epoll)});
  print_row("system calls an event", {syscalls_per_event(selector), syscalls_per_event(epoll)});
  print_row("others had its CPU", {share_waited(selector), share_waited(epoll)});
}

// --- all of it

struct listener {
  listener() : fd(::socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0)) {
    const int on = 1;
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    auto* const generic = reinterpret_cast<sockaddr*>(&address);
    socklen_t size = sizeof address;
    // What is accepted inherits TCP_NODELAY.
    if (fd < 0 || ::setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on) != 0 ||
        ::bind(fd, generic, size) != 0 || ::listen(fd, SOMAXCONN) != 0 ||
        ::getsockname(fd, generic, &size) != 0) {
      fail("cannot listen on 127.0.0.1");
    }
  }
  ~listener() { ::close(fd); }
  listener(const listener&) = delete;
  listener& operator=(const listener&) = delete;

  int fd;
  sockaddr_in address{};
};

// As every hub of this process will be.
void say_which_engine() {
  const annulet::hub hub;
  const annulet::engine_info& engine = hub.engine_report();
  std::printf("annulet is on %s", engine.name.c_str());
  for (const std::string& flag : engine.flags) {
    std::printf(" %s", flag.c_str());
  }
  std::printf("\n");
  for (const std::string& what : engine.refused) {
    std::printf("  was refused %s\n", what.c_str());
  }
}

// The first act.
void compare_pollers(const listener& here, const options& chosen) {
  const auto cpus = choose_cpus();
  const client peer(here.address, chosen.connections, cpus ? std::optional(cpus->client) : std::nullopt);
  pin_to(cpus ? std::optional(cpus->server) : std::nullopt);
  std::printf("%s TCP connections, every message sent on as soon as the one before is back\n",
              grouped(chosen.connections).c_str());
  if (cpus) {
    std::printf("server on CPU %d, client on CPU %d\n", cpus->server, cpus->client);
  } else {
    std::printf("server and client share the one CPU that there is\n");
  }
  std::fflush(stdout);

  side selector{"annulet::selector", selector_turn};
  side epoll{"plain epoll loop", epoll_turn};
  const auto timed = chosen.quick ? 150ms : 3000ms, counted = chosen.quick ? 50ms : 1000ms;
  assignment a{here.fd, peer, nullptr, chosen.connections, timed};
  // A B B A: what changes on the machine meanwhile meets both.
  int number = 0;
  for (side* const s : {&selector, &epoll, &epoll, &selector}) {
    take_turn(++number, *s, a);
  }
  // Turns of their own, for counting costs time.
  const syscall_counter counter;
  a.counter = &counter;
  a.time = counted;
  for (side* const s : {&selector, &epoll}) {
    take_turn(++number, *s, a);
  }
  print_table(selector, epoll);
  if (!counter.why_not().empty()) {
    std::printf("(system calls could not be counted: %s)\n", counter.why_not().c_str());
  }
}

void run(const options& chosen) {
  // Two descriptors a connection: the second act has both ends in this process.
  const std::size_t by_fibers = std::min<std::size_t>(chosen.connections, 5'000);
  need_descriptors(std::max(chosen.connections, 2 * by_fibers) + 32);
  const listener here;
  say_which_engine();
  compare_pollers(here, chosen);
  if (by_fibers < chosen.connections) {
    std::printf("\nThe second act takes only %s of the %s connections, for both ends are in this process.\n",
                grouped(by_fibers).c_str(), grouped(chosen.connections).c_str());
  }
  serve_by_fibers(here.fd, here.address, by_fibers, chosen.quick ? 150ms : 3000ms);
}

int refuse(const std::string& why) {
  std::fprintf(stderr,
               "demo: %s\nusage: demo [--connections N] [--quick]   (N from 1 to 10,000; 1,000 by default)\n",
               why.c_str());
  return 2;
}

}  // namespace
}  // namespace demo

int main(int argc, char** argv) {
  demo::options chosen;
  for (int i = 1; i < argc; ++i) {
    const std::string_view word = argv[i];
    if (word == "--quick") {
      chosen.quick = true;
    } else if (word == "--connections") {
      const std::string_view number = ++i < argc ? argv[i] : "";
      const auto [end, error] = std::from_chars(number.begin(), number.end(), chosen.connections);
      if (error != std::errc() || end != number.end() || chosen.connections < 1 ||
          chosen.connections > 10'000) {
        return demo::refuse("--connections wants a number from 1 to 10,000, not '" + std::string(number) +
                            "'");
      }
    } else {
      return demo::refuse("there is no option '" + std::string(word) + "'");
    }
  }
  try {
    demo::run(chosen);
    return 0;
  } catch (const std::exception& e) {
    std::fflush(stdout);
    std::fprintf(stderr, "demo: %s\n", e.what());
    return 1;
  }
}
