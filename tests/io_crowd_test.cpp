// Many calls that no peer answers, on blocking descriptors: they hold up nobody who could go on, and each can
// be ended.
#include <annulet/hub/io.hpp>

#include "support/io_calls.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <functional>
#include <string>
#include <vector>

using namespace annulet::test;
using annulet::hub;
using annulet::socket_address;
using annulet::spawn;
namespace this_fiber = annulet::this_fiber;

namespace {

constexpr std::size_t many = 200;

struct blocking_listener {
  blocking_listener() : made(make_tcp_listener()) {
    require_ok(::fcntl(fd(), F_SETFL, flags_of(fd()) & ~O_NONBLOCK), "fcntl F_SETFL");
  }
  [[nodiscard]] int fd() const noexcept { return made.socket.get(); }
  [[nodiscard]] socket_address address() const { return socket_address(loopback(made.port)); }

  tcp_listener made;
};

std::vector<descriptor> blocking_sockets(std::size_t count) {
  std::vector<descriptor> made;
  while (made.size() < count) {
    made.emplace_back(require_ok(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), "socket"));
  }
  return made;
}

// Its backlog has no room: who comes next gets no answer.
struct full_listener : blocking_listener {
  full_listener() : queued(blocking_sockets(3)) {
    require_ok(::listen(fd(), 0), "listen");
    for (const descriptor& client : queued) {
      require_ok(::fcntl(client.get(), F_SETFL, O_NONBLOCK), "fcntl F_SETFL");
      (void)::connect(client.get(), address().data(), address().size());
    }
  }

  std::vector<descriptor> queued;
};

// The page cache has nothing of it: so it is somebody else who reads it.
bool a_disk_is_read() {
  const std::string text = pattern(1'000'000);
  const descriptor file = make_file(text);
  require_ok(::fsync(file.get()), "fsync");
  require_ok(::posix_fadvise(file.get(), 0, 0, POSIX_FADV_DONTNEED), "posix_fadvise");
  std::string come(text.size(), '\0');
  return annulet::read_exactly(file.get(), come, limit) == text.size() && come == text;
}

bool another_accepts() {
  const blocking_listener listener;
  auto server = spawn_parked([&] { return annulet::accept(listener.fd(), limit); });
  const descriptor client(require_ok(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), "socket"));
  annulet::connect(client.get(), listener.address(), limit);
  annulet::write_all(client.get(), "hello"sv, limit);
  return read_some(server.get(), limit) == "hello";
}

// While so many fibers wait in the call, others get on; and then all of them are killed.
void others_get_on_beside(const std::function<void(std::size_t)>& call) {
  std::vector<annulet::fiber<bool>> crowd;
  for (std::size_t i = 0; i < many; ++i) {
    crowd.push_back(spawn([&call, i] { return is_killed_in([&] { return call(i), 0; }); }));
  }
  this_fiber::sleep_for(20ms);
  CHECK(std::ranges::none_of(crowd, [](const auto& fiber) { return fiber.done(); }));
  for (int round = 0; round < 8; ++round) {
    CHECK(a_disk_is_read());
    CHECK(another_accepts());
  }
  CHECK(std::ranges::none_of(crowd, [](const auto& fiber) { return fiber.done(); }));
  for (auto& fiber : crowd) {
    fiber.kill();
  }
  for (auto& fiber : crowd) {
    REQUIRE(fiber.join(limit));
    CHECK(fiber.get());
  }
  CHECK(a_disk_is_read());
}

}  // namespace

TEST_CASE(
    "beside 200 fibers in accept on silent listeners a disk is read and another accepts; all can be killed") {
  hub home;
  const std::vector<blocking_listener> silent(many);
  others_get_on_beside([&](std::size_t i) { (void)annulet::accept(silent[i].fd()); });
  // They are as they were: whoever comes is accepted.
  for (const auto& listener : silent) {
    auto server = spawn_parked([&] { return annulet::accept(listener.fd(), limit); });
    const descriptor client(require_ok(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), "socket"));
    annulet::connect(client.get(), listener.address(), limit);
    CHECK(server.get().fileno() >= 0);
  }
}

TEST_CASE(
    "beside 200 fibers in connect that nobody answers a disk is read and another accepts; all can be "
    "killed") {
  hub home;
  const full_listener full;
  const std::vector<descriptor> clients = blocking_sockets(many);
  others_get_on_beside([&](std::size_t i) { annulet::connect(clients[i].get(), full.address()); });
}

TEST_CASE("200 fibers in calls that no peer answers end with their hub") {
  const std::vector<blocking_listener> silent(many / 2);
  const full_listener full;
  const std::vector<descriptor> clients = blocking_sockets(many / 2 - 20);
  std::vector<pty_pair> ttys(20);
  std::generate(ttys.begin(), ttys.end(), [] { return make_pty(); });
  std::size_t killed = 0;
  {
    hub home;
    const auto in_a_fiber = [&killed](auto call) {
      spawn([&killed, call] { killed += is_killed_in([&] { return call(), 0; }) ? 1U : 0U; }).detach();
    };
    for (const auto& listener : silent) {
      in_a_fiber([&listener] { (void)annulet::accept(listener.fd()); });
    }
    for (const auto& client : clients) {
      in_a_fiber([&] { annulet::connect(client.get(), full.address()); });
    }
    for (const auto& tty : ttys) {
      in_a_fiber([&tty] { (void)read_some(tty.slave.get()); });
    }
    this_fiber::sleep_for(5ms);
  }
  CHECK(killed == many);
}
