// What a network does to a connection: pieces of any size, pauses, and, to some, an end in the middle.
// Between a client and a server, on a thread and a hub of its own.
#pragma once

#include "../oracle/dice.hpp"
#include "files.hpp"
#include "hub_of_its_own.hpp"

#include <annulet/hub/descriptor.hpp>
#include <annulet/hub/io.hpp>
#include <annulet/runtime/fiber.hpp>
#include <annulet/runtime/scope.hpp>
#include <annulet/runtime/this_fiber.hpp>

#include <array>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <system_error>
#include <utility>

#include <netinet/tcp.h>
#include <sys/socket.h>

namespace annulet::test {

inline tcp_listener make_busy_listener() {
  tcp_listener made = make_tcp_listener();
  require_ok(::listen(made.socket.get(), 4096), "listen");
  return made;
}

inline annulet::descriptor connection_to(std::uint16_t port) {
  const int socket = ::socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  auto made = annulet::descriptor::adopt(require_ok(socket, "socket"));
  made.connect(annulet::socket_address(loopback(port)));
  return made;
}

class rough_proxy {
 public:
  // The first byte of a client is for the proxy: whether it leaves the connection alone, or cuts it some
  // time.
  enum class treatment : char { alone, cut };

  // `first` is called on its hub, before any connection is accepted.
  rough_proxy(std::uint16_t server, std::uint64_t seed, const std::function<void()>& first)
      : server_(server), dice_(seed), lives_([this, first] {
          first();
          accept_all();
        }) {}

  [[nodiscard]] std::uint16_t port() const noexcept { return listener_.port; }
  [[nodiscard]] int links() const noexcept { return links_; }

 private:
  static constexpr std::size_t most_before_cut = 40'000;

  void accept_all() {
    for (;;) {
      ++links_;
      spawn(&rough_proxy::serve, this, annulet::accept(listener_.socket.get())).detach();
    }
  }

  void serve(annulet::descriptor client) {
    try {
      char how = 0;
      if (client.read_exactly({&how, 1}) == 1) {
        annulet::descriptor server = connection_to(server_);
        std::optional<std::size_t> left;
        if (static_cast<treatment>(how) == treatment::cut) {
          left = dice_.below(most_before_cut);
        }
        scope([&](fiber_group& back) {
          back.spawn([&] { forward(server, client, left); });
          forward(client, server, left);
        });
      }
    } catch (const std::system_error&) {
      // The client, or the server, has gone.
    }
    --links_;
  }

  // Until the end of one side, which the other then hears of, or until it is cut.
  void forward(annulet::descriptor& from, annulet::descriptor& to, std::optional<std::size_t>& left) {
    std::array<char, 16'384> buffer;
    try {
      while (const std::size_t got = from.recv(std::span(buffer).first(1 + dice_.below(buffer.size())))) {
        if (left && *left <= got) {
          cut(from, to);
          return;
        }
        if (left) {
          *left -= got;
        }
        if (dice_.one_in(20)) {
          this_fiber::sleep_for(std::chrono::milliseconds(dice_.below(100)));
        }
        write_in_pieces(to, std::span(buffer).first(got));
      }
      (void)::shutdown(to.fileno(), SHUT_WR);
    } catch (const std::system_error&) {
      cut(from, to);
    }
  }
  void write_in_pieces(annulet::descriptor& to, std::span<const char> bytes) {
    while (!bytes.empty()) {
      const std::size_t piece = dice_.one_in(3) ? 1 + dice_.below(bytes.size()) : bytes.size();
      to.write_all(bytes.first(piece));
      bytes = bytes.subspan(piece);
    }
  }
  // Both ends hear of a reset. What the other fiber does with them ends.
  static void cut(annulet::descriptor& one, annulet::descriptor& other) {
    for (annulet::descriptor* const each : {&one, &other}) {
      if (each->fileno() >= 0) {
        reset_on_close(each->fileno());
        each->close();
      }
    }
  }

  const std::uint16_t server_;
  oracle::dice dice_;
  const tcp_listener listener_ = make_busy_listener();
  std::atomic<int> links_ = -1;  // one is always awaited
  hub_of_its_own lives_;
};

}  // namespace annulet::test
