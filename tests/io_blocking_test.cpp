// Every call on descriptors that are blocking: the fiber parks, the thread does not. A ticker fiber beside it
// shows that nobody was held up, and the flags of the descriptors stay as they were.
#include <annulet/hub/io.hpp>

#include "support/blocking_files.hpp"
#include "support/io_calls.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <functional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

using namespace annulet::test;
using annulet::file_ref;
using annulet::hub;
using annulet::mutable_buffer;
using annulet::socket_address;
using annulet::spawn;
namespace this_fiber = annulet::this_fiber;

namespace {

struct reader {
  std::string name;
  std::function<std::size_t(file_ref, mutable_buffer)> make;
};

const std::vector<reader>& file_readers() {
  static const std::vector<reader> all = {
      {"read", [](file_ref f, mutable_buffer b) { return annulet::read(f, b, limit); }},
      {"readv",
       [](file_ref f, mutable_buffer b) {
         const std::array<iovec, 1> one{iovec{b.data(), b.size()}};
         return annulet::readv(f, one, limit);
       }},
  };
  return all;
}

const std::vector<reader>& socket_readers() {
  static const std::vector<reader> all = {
      {"recv", [](file_ref f, mutable_buffer b) { return annulet::recv(f, b, limit); }},
      {"recvfrom",
       [](file_ref f, mutable_buffer b) {
         socket_address sender;
         return annulet::recvfrom(f, b, sender, {}, limit);
       }},
      {"read_exactly",
       [](file_ref f, mutable_buffer b) {
         return annulet::read_exactly(f, mutable_buffer(b.data(), 1), limit);
       }},
  };
  return all;
}

}  // namespace

TEST_CASE("a read of a blocking descriptor of any kind parks its fiber and holds up no other") {
  for (const blocking_kind& k : all_kinds()) {
    for (const form way : both_forms) {
      CAPTURE(k.name);
      CAPTURE(static_cast<int>(way));
      blocking_file made = k.make();
      if (!made.provide) {
        continue;
      }
      const int flags = flags_of(made.file.get());
      REQUIRE((flags & O_NONBLOCK) == 0);
      holds_nobody_up(
          [&](ticker& beside) {
            const subject file(std::move(made.file), way);
            std::array<char, 512> buffer{};
            auto calls = file_readers();
            if (is_socket(file.fileno())) {
              calls.insert(calls.end(), socket_readers().begin(), socket_readers().end());
            }
            for (const auto& call : calls) {
              CAPTURE(call.name);
              CHECK_FALSE(annulet::try_read(file, buffer));
              CHECK(passes_deadline([&] { return annulet::read(file, buffer, 2ms); }));
              auto waiting = spawn_parked([&] { return call.make(file, buffer); });
              beside.wait_for(5);
              CHECK_FALSE(waiting.done());
              made.provide();
              REQUIRE(waiting.join(limit));
              CHECK(waiting.get() > 0);
            }
            auto killed =
                spawn_parked([&] { return is_killed_in([&] { return annulet::read(file, buffer); }); });
            beside.wait_for(2);
            killed.kill();
            REQUIRE(killed.join(limit));
            CHECK(killed.get());
            CHECK(flags_of(file.fileno()) == flags);
          },
          made.provide);
    }
  }
}

TEST_CASE(
    "a write of much more than a blocking descriptor takes holds up no other fiber, its reader neither") {
  const std::string much = pattern(300'000);
  for (const blocking_kind& k : all_kinds()) {
    for (const form way : both_forms) {
      CAPTURE(k.name);
      CAPTURE(static_cast<int>(way));
      blocking_file made = k.make();
      if (!made.consume || k.name == "pipe to read from") {
        continue;
      }
      const int flags = flags_of(made.file.get());
      const int rescuer = ::dup(made.peer.get());
      const descriptor rescue(rescuer);
      std::atomic<bool> rescued = false;
      holds_nobody_up(
          [&](ticker& beside) {
            const subject file(std::move(made.file), way);
            auto writing = spawn_parked([&] { annulet::write_all(file, much, limit); });
            beside.wait_for(5);
            CHECK_FALSE(writing.done());
            std::string come(much.size(), '\0');
            if (!rescued) {
              CHECK(annulet::read_exactly(made.peer.get(), come, limit) == much.size());
              CHECK(come == much);
            }
            REQUIRE(writing.join(limit));
            std::size_t done = 0;
            CHECK(passes_deadline([&] { annulet::write_all(file, much, 5ms, &done); }));
            CHECK(done < much.size());
            CHECK(flags_of(file.fileno()) == flags);
          },
          [&] {
            rescued = true;
            drain(rescuer);
          });
    }
  }
}

TEST_CASE("send, sendto, writev and write_all park on a full blocking socket, and hold nobody up") {
  const std::vector<std::pair<std::string, std::function<std::size_t(file_ref)>>> calls = {
      {"write", [](file_ref f) { return annulet::write(f, "x"sv, limit); }},
      {"writev",
       [](file_ref f) {
         char byte = 'x';
         const std::array<iovec, 1> one{iovec{&byte, 1}};
         return annulet::writev(f, one, limit);
       }},
      {"send", [](file_ref f) { return annulet::send(f, "x"sv, limit); }},
      {"sendto", [](file_ref f) { return annulet::sendto(f, "x"sv, socket_address(), {}, limit); }},
      {"write_all", [](file_ref f) { return annulet::write_all(f, "x"sv, limit), std::size_t{1}; }},
  };
  for (const form way : both_forms) {
    auto pair = make_socket_pair();
    fill(pair.first.get());
    pair = blocking(std::move(pair));
    require_ok(::fcntl(pair.second.get(), F_SETFL, O_NONBLOCK | O_RDWR), "fcntl");
    const int flags = flags_of(pair.first.get());
    holds_nobody_up(
        [&](ticker& beside) {
          const subject file(std::move(pair.first), way);
          for (const auto& [name, call] : calls) {
            CAPTURE(name);
            CHECK_FALSE(annulet::try_write(file, "x"sv));
            CHECK_FALSE(annulet::try_send(file, "x"sv));
            auto waiting = spawn_parked([&] { return call(file); });
            beside.wait_for(5);
            CHECK_FALSE(waiting.done());
            drain(pair.second.get());
            REQUIRE(waiting.join(limit));
            CHECK(waiting.get() == 1);
            while (annulet::try_write(file, pattern(65536))) {
            }
            while (annulet::try_write(file, "x"sv)) {
            }
          }
          CHECK(flags_of(file.fileno()) == flags);
        },
        [&] { drain(pair.second.get()); });
  }
}

TEST_CASE("accept and connect on blocking sockets hold nobody up") {
  for (const form way : both_forms) {
    auto made = make_tcp_listener();
    const int plain = made.socket.get();
    require_ok(::fcntl(plain, F_SETFL, flags_of(plain) & ~O_NONBLOCK), "fcntl");
    require_ok(::listen(plain, 0), "listen");
    const int flags = flags_of(plain);
    const socket_address there(loopback(made.port));
    const auto client = [] {
      return descriptor(require_ok(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), "socket"));
    };
    std::vector<descriptor> queued;
    holds_nobody_up(
        [&](ticker& beside) {
          const subject listener(std::move(made.socket), way);
          auto waiting = spawn_parked([&] { return annulet::accept(listener, limit); });
          beside.wait_for(5);
          CHECK_FALSE(waiting.done());
          const subject first(client(), way);
          annulet::connect(first, there, limit);
          CHECK(waiting.get());
          CHECK_FALSE(annulet::try_accept(listener));
          // A full backlog answers nobody.
          for (int i = 0; i < 3; ++i) {
            queued.push_back(client());
            require_ok(::fcntl(queued.back().get(), F_SETFL, O_NONBLOCK | O_RDWR), "fcntl");
            (void)::connect(queued.back().get(), there.data(), there.size());
          }
          const subject late(client(), way);
          auto connecting =
              spawn_parked([&] { return is_killed_in([&] { return annulet::connect(late, there), 0; }); });
          beside.wait_for(5);
          CHECK_FALSE(connecting.done());
          connecting.kill();
          REQUIRE(connecting.join(limit));
          CHECK(connecting.get());
          CHECK(flags_of(listener.fileno()) == flags);
          CHECK((flags_of(first.fileno()) & O_NONBLOCK) == 0);
          CHECK((flags_of(late.fileno()) & O_NONBLOCK) == 0);
        },
        [&] { ::shutdown(plain, SHUT_RDWR); });
  }
}

TEST_CASE("reads and writes of a large regular file hold nobody up") {
  const std::string much = pattern(8'000'000);
  for (const form way : both_forms) {
    descriptor made = make_file();
    const int flags = flags_of(made.get());
    holds_nobody_up(
        [&](ticker& beside) {
          const subject file(std::move(made), way);
          annulet::write_all(file, much);
          beside.wait_for(2);
          require_ok(::fsync(file.fileno()), "fsync");
          require_ok(::posix_fadvise(file.fileno(), 0, 0, POSIX_FADV_DONTNEED), "posix_fadvise");
          require_ok(static_cast<int>(::lseek(file.fileno(), 0, SEEK_SET)), "lseek");
          std::string come(much.size(), '\0');
          CHECK(annulet::read_exactly(file, come) == much.size());
          CHECK(come == much);
          CHECK(flags_of(file.fileno()) == flags);
        },
        [] {});
  }
}

TEST_CASE("a tty that waits for a while after the first byte holds nobody up") {
  for (const form way : both_forms) {
    auto [master, slave] = make_pty();
    termios modes{};
    require_ok(::tcgetattr(slave.get(), &modes), "tcgetattr");
    modes.c_cc[VMIN] = 5;
    modes.c_cc[VTIME] = 20;  // tenths of a second, between one byte and the next
    require_ok(::tcsetattr(slave.get(), TCSANOW, &modes), "tcsetattr");
    holds_nobody_up(
        [&](ticker& beside) {
          const subject file(std::move(slave), way);
          std::array<char, 16> buffer{};
          auto waiting = spawn_parked([&] { return annulet::read(file, buffer, limit); });
          beside.wait_for(2);
          write_text(master.get(), "ab");
          beside.wait_for(5);
          CHECK_FALSE(waiting.done());
          write_text(master.get(), "cde");
          REQUIRE(waiting.join(limit));
          CHECK(waiting.get() == 5);
        },
        [] {});
  }
}
