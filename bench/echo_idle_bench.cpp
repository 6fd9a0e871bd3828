// echo_idle: what a connection costs an annulet server while it says nothing.
//
//   annulet_bench echo_idle
//
// Another process opens 18,000 connections, or as many as this process may hold, and each gets a fiber that
// accepts what comes and waits in recv. When all are there the memory is read, then each says something and
// has to get it back. The fiber is that of examples/fiber_echo.cpp, with its buffer of 64 KiB on the stack,
// so what stands here is what a connection costs there.
#include <annulet/hub/descriptor.hpp>
#include <annulet/hub/io.hpp>
#include <annulet/runtime/fiber.hpp>

#include <fcntl.h>
#include <sys/socket.h>
#include <unistd.h>
#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <fstream>
#include <string>
#include <vector>

#include "benches.hpp"
#include "child_process.hpp"
#include "engines.hpp"
#include "harness.hpp"
#include "tcp.hpp"

namespace bench {
namespace {

constexpr std::size_t wanted_connections = 18'000;
constexpr std::size_t message_size = 64;

std::uint64_t resident_bytes() {
  std::ifstream file("/proc/self/statm");
  std::uint64_t total = 0, resident = 0;
  file >> total >> resident;
  return resident * static_cast<std::uint64_t>(sysconf(_SC_PAGESIZE));
}

// Each word on this socket is one byte: the client says that all are connected, is told to speak, says that
// all was echoed, and is told to end.
class control_sockets {
 public:
  control_sockets() {
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends_.data()) != 0) {
      fail("socketpair: %s", std::strerror(errno));
    }
  }
  ~control_sockets() {
    ::close(ends_[0]);
    ::close(ends_[1]);
  }
  control_sockets(const control_sockets&) = delete;
  control_sockets& operator=(const control_sockets&) = delete;

  int server() const { return ends_[0]; }
  int client() const { return ends_[1]; }

 private:
  std::array<int, 2> ends_;
};

void say(int control) {
  if (::write(control, "!", 1) != 1) {
    fail("echo_idle: a word to the other process: %s", std::strerror(errno));
  }
}

void hear(int control) {
  char word = 0;
  if (::read(control, &word, 1) != 1) {
    fail("echo_idle: no word from the other process");
  }
}

// In blocking calls, one connection after the other.
void speak_once(int fd, std::size_t number) {
  std::array<char, message_size> sent, received;
  std::fill(sent.begin(), sent.end(), static_cast<char>(number % 251));
  std::memcpy(sent.data(), &number, sizeof number);
  const bool echoed = ::send(fd, sent.data(), sent.size(), MSG_NOSIGNAL) == message_size &&
                      ::recv(fd, received.data(), received.size(), MSG_WAITALL) == message_size;
  if (!echoed || sent != received) {
    fail("echo_idle: connection %zu did not get back what it sent", number);
  }
}

void connect_and_speak(std::uint16_t port, std::size_t count, int control) {
  std::vector<int> connections;
  for (std::size_t i = 0; i < count; ++i) {
    connections.push_back(connect_to(port));
  }
  say(control);
  hear(control);
  for (std::size_t i = 0; i < count; ++i) {
    speak_once(connections[i], i);
  }
  say(control);
  hear(control);
}

void serve(annulet::descriptor connection) {
  std::array<char, 64 * 1024> buffer;  // as in the example; of it only touched pages cost memory
  while (const std::size_t count = connection.recv(buffer)) {
    connection.write_all({buffer.data(), count});
  }
}

struct findings {
  double parked_bytes = 0, spoken_bytes = 0;  // a connection
};

findings hold_connections(const tcp_listener& listener, std::size_t count, int control) {
  annulet::hub hub(on(annulet::engine_choice::uring));
  std::vector<annulet::fiber<void>> fibers;
  fibers.reserve(count);
  const std::uint64_t before = resident_bytes();
  const auto each = [&] {
    return (static_cast<double>(resident_bytes()) - static_cast<double>(before)) / static_cast<double>(count);
  };
  while (fibers.size() < count) {
    auto connection = annulet::accept(listener.fd());
    set_no_delay(connection.fileno());
    fibers.push_back(annulet::spawn({.name = "connection"}, serve, std::move(connection)));
  }
  const auto hear_parked = [control] {
    char word = 0;
    if (annulet::read(control, {&word, 1}) != 1) {
      fail("echo_idle: no word from the other process");
    }
  };
  hear_parked();
  annulet::this_fiber::yield();  // the last ones get to their recv
  findings found;
  found.parked_bytes = each();
  say(control);
  hear_parked();
  found.spoken_bytes = each();
  for (auto& fiber : fibers) {
    fiber.kill();
  }
  for (auto& fiber : fibers) {
    fiber.join();
  }
  return found;
}

}  // namespace

void bench_echo_idle(harness& run) {
  constexpr std::size_t others = 200;  // descriptors that are not connections
  const auto processor = usable_processors().other;
  const std::size_t limit = open_file_limit();
  if (!processor || limit < 2 * others) {
    run.skip("echo_idle", "18,000 connections",
             processor ? "too few open files allowed (ulimit -n)" : "needs a second processor");
    return;
  }
  const std::size_t count = std::min(wanted_connections, limit - others);
  const tcp_listener listener;
  const control_sockets control;
  child_process client(*processor, [&] { connect_and_speak(listener.port(), count, control.client()); });
  const findings found = hold_connections(listener, count, control.server());
  client.expect_end();
  say(control.server());

  char figures[160];
  std::snprintf(figures, sizeof figures,
                "%.1f KiB resident a connection while it waits for its first byte, %.1f KiB after an echo",
                found.parked_bytes / 1024, found.spoken_bytes / 1024);
  run.note({.bench = "echo_idle",
            .setting = std::to_string(count) + " idle connections",
            .operation = "a connection",
            .verdicts = {{.asked = std::to_string(wanted_connections) + " connections held, each echoes",
                          .found = figures,
                          .met = count == wanted_connections}}});
}

}  // namespace bench
