#include "demo_fibers.hpp"

#include "demo_meter.hpp"
#include "demo_pattern.hpp"
#include "demo_text.hpp"
#include "demo_ticker.hpp"

#include <annulet/hub/hub.hpp>
#include <annulet/hub/io.hpp>
#include <annulet/runtime/event.hpp>
#include <annulet/runtime/fiber.hpp>

#include <netinet/tcp.h>
#include <sys/socket.h>
#include <array>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <functional>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

namespace demo {
namespace {

using namespace std::chrono_literals;

constexpr auto patience = 10s;  // for what takes no time unless something is broken

// What all fibers share. They take turns on one thread, so nothing is locked.
struct stage {
  pattern bytes_of;
  annulet::event all_accepted, curtain;
  clock::time_point end;  // known when the curtain is up
  std::uint64_t echoes = 0, bytes = 0;
};

// --- the server

std::uint64_t echo(annulet::descriptor conn) {
  std::array<char, 4096> buffer;
  std::uint64_t bytes = 0;
  while (const std::size_t n = conn.recv(buffer)) {
    conn.write_all({buffer.data(), n});
    bytes += n;
  }
  return bytes;
}

// Returns how many bytes it has served.
std::uint64_t serve(int listener, std::size_t connections, stage& all) {
  std::vector<annulet::fiber<std::uint64_t>> serving;
  while (serving.size() < connections) {
    serving.push_back(annulet::spawn({.name = "connection"}, echo, annulet::accept(listener)));
  }
  all.all_accepted.set();
  std::uint64_t bytes = 0;
  for (auto& connection : serving) {
    bytes += connection.get();
  }
  return bytes;
}

// --- the clients

annulet::descriptor connected_to(const sockaddr_in& address) {
  const int fd = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), on = 1;
  if (fd < 0) {
    fail("socket");
  }
  auto conn = annulet::descriptor::adopt(fd);
  if (::setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on) != 0) {
    fail("TCP_NODELAY");
  }
  conn.connect(annulet::socket_address(address), patience);
  return conn;
}

void talk(annulet::descriptor conn, std::size_t number, stage& all) {
  std::array<char, longest_message> answer;
  all.curtain.wait();
  std::uint64_t right = 0;  // bytes
  for (std::uint64_t echoes = 0; echoes == 0 || clock::now() < all.end; ++echoes) {
    const std::size_t size = message_size(number, echoes);
    const char* const message = all.bytes_of.at(number, right);
    conn.write_all({message, size});
    if (conn.read_exactly({answer.data(), size}) < size || std::memcmp(answer.data(), message, size) != 0) {
      throw std::runtime_error("what came back is not what was sent on connection " + std::to_string(number) +
                               ", after " + std::to_string(right) + " right bytes");
    }
    right += size;
    all.bytes += size;
    ++all.echoes;
  }
}

// --- the act

void say_how_it_goes(const stage& all, clock::time_point begin) {
  int second = 1;
  for (auto next = begin + 1s; next < all.end; next += 1s) {
    annulet::this_fiber::sleep_until(next);
    std::printf("%d s  %s echoes so far, every byte right\n", second++, grouped(all.echoes).c_str());
    std::fflush(stdout);
  }
  annulet::this_fiber::sleep_until(all.end);
}

}  // namespace

void serve_by_fibers(int listener, const sockaddr_in& address, std::size_t connections,
                     std::chrono::milliseconds time) {
  std::printf("\nNow %s connections with a fiber each, and one for each client, all on this thread\n",
              grouped(connections).c_str());
  std::fflush(stdout);
  stage all;  // outlives the hub, and with it all fibers
  timekeeping kept;
  annulet::hub hub;
  auto ticker = annulet::spawn({.name = "ticker"}, keep_time, std::ref(kept));
  auto serving = annulet::spawn({.name = "server"}, serve, listener, connections, std::ref(all));
  std::vector<annulet::fiber<void>> clients;
  while (clients.size() < connections) {
    auto conn = connected_to(address);
    clients.push_back(
        annulet::spawn({.name = "client"}, talk, std::move(conn), clients.size(), std::ref(all)));
  }
  if (!all.all_accepted.wait(patience)) {
    throw std::runtime_error("the server has not accepted all its connections within 10 s");
  }
  const std::size_t fibers = hub.fiber_count();

  const auto begin = clock::now();
  const auto cpu_before = thread_cpu();
  all.end = begin + time;
  all.curtain.set();
  say_how_it_goes(all, begin);
  for (auto& client : clients) {
    client.get(all.end + patience);
  }
  const auto cpu = thread_cpu() - cpu_before;
  const auto took = clock::now() - begin;
  const std::uint64_t served = serving.get(all.end + patience);
  ticker.kill();
  ticker.join();
  if (served != all.bytes) {
    throw std::runtime_error("the server served " + std::to_string(served) +
                             " bytes, but the clients counted " + std::to_string(all.bytes));
  }

  std::printf("\n");
  print_row("", {"fibers"});
  print_row("connections served", {grouped(connections)});
  print_row("fibers at once", {grouped(fibers)});
  print_row("echoes", {grouped(all.echoes)});
  print_row("echoes a second",
            {grouped(static_cast<std::uint64_t>(static_cast<double>(all.echoes) / seconds(took)))});
  print_row("bytes, all right", {grouped(all.bytes)});
  print_row("ticker, beats of 10 ms", {grouped(kept.beats)});
  print_row("ticker, late at worst", {with_unit(seconds(kept.latest) * 1e3, " ms")});
  print_row("CPU an echo, both sides", {per_event(seconds(cpu) * 1e6, all.echoes, " us")});
}

}  // namespace demo
