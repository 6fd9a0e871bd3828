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
  auto full = make_tcp_listener();
  require_ok(::listen(full.socket.get(), 0), "listen");
  std::vector<descriptor> queued;
  for (int i = 0; i < 3; ++i) {
    queued.emplace_back(
        require_ok(::socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0), "socket"));
    const sockaddr_in address = loopback(full.port);
    (void)::connect(queued.back().get(), reinterpret_cast<const sockaddr*>(&address), sizeof(address));
  }
  std::vector<descriptor> clients;
  for (std::size_t i = 0; i < many; ++i) {
    clients.emplace_back(require_ok(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), "socket"));
  }
  others_get_on_beside(
      [&](std::size_t i) { annulet::connect(clients[i].get(), socket_address(loopback(full.port))); });
}

TEST_CASE("200 fibers in calls that no peer answers end with their hub") {
  const std::vector<blocking_listener> silent(many);
  std::vector<pty_pair> ttys;
  for (int i = 0; i < 20; ++i) {
    ttys.push_back(make_pty());
  }
  std::size_t ended = 0;
  {
    hub home;
    for (const auto& listener : silent) {
      spawn([&] {
        ended += is_killed_in([&] { return annulet::accept(listener.fd()); }) ? 1U : 0U;
      }).detach();
    }
    for (const auto& tty : ttys) {
      spawn([&] { ended += is_killed_in([&] { return read_some(tty.slave.get()); }) ? 1U : 0U; }).detach();
    }
    this_fiber::sleep_for(5ms);
  }
  CHECK(ended == silent.size() + ttys.size());
}
