// Every call on descriptors that are blocking: the fiber parks, the thread does not. A ticker fiber beside it
// shows that nobody was held up, and the flags of the descriptors stay as they were.
#include <annulet/hub/io.hpp>

#include "support/blocking_files.hpp"
#include "support/io_calls.hpp"
#include "support/syscalls.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <functional>
#include <span>
#include <stdexcept>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include <sys/mman.h>
#include <sys/uio.h>

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

// In a traced child, whose end says whether all was as it should be. What the page cache has not is waited
// for, by somebody else.
template <class Mark>
void write_and_read(form way, bool in_memory, int nonblock, Mark&& mark) {
  const std::string much = pattern(4'000'000);
  std::string come(much.size() + 2, '\0');
  hub home;
  descriptor made =
      in_memory ? descriptor(require_ok(::memfd_create("", MFD_CLOEXEC), "memfd_create")) : make_file();
  require_ok(::fcntl(made.get(), F_SETFL, flags_of(made.get()) | nonblock), "fcntl");
  const int flags = flags_of(made.get());
  const subject file(std::move(made), way);
  annulet::write_all(file, "x"sv);  // what writes can be told is asked once
  mark();
  annulet::write_all(file, much);
  char last = 'z';
  const std::array<iovec, 1> one{iovec{&last, 1}};
  (void)annulet::writev(file, one);
  require_ok(::fsync(file.fileno()), "fsync");
  require_ok(::posix_fadvise(file.fileno(), 0, 0, POSIX_FADV_DONTNEED), "posix_fadvise");
  require_ok(static_cast<int>(::lseek(file.fileno(), 0, SEEK_SET)), "lseek");
  const std::size_t got = annulet::read_exactly(file, come);
  const std::size_t end = annulet::read(file, std::span(&last, 1));
  mark();
  if (got != come.size() || end != 0 || come != "x" + much + "z" || flags_of(file.fileno()) != flags) {
    throw std::runtime_error("what was written was not read, or the flags are others");
  }
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

TEST_CASE("of a regular file the thread reads and writes only what it need not wait for") {
  constexpr std::array<std::uint64_t, 8> may_wait = {SYS_read,  SYS_pread64,  SYS_readv,  SYS_preadv,
                                                     SYS_write, SYS_pwrite64, SYS_writev, SYS_pwritev};
  constexpr std::size_t flags_argument = 5;
  for (const form way : both_forms) {
    for (const bool in_memory : {false, true}) {
      for (const int nonblock : {0, O_NONBLOCK}) {  // of which such a file takes no notice
        CAPTURE(static_cast<int>(way));
        CAPTURE(in_memory);
        CAPTURE(nonblock);
        unsigned told_not_to = 0;
        const auto see = [&](std::uint64_t number, syscall_arguments arguments) {
          const bool may_be_told = number == SYS_preadv2 || number == SYS_pwritev2;
          told_not_to += may_be_told && (arguments[flags_argument] & RWF_NOWAIT) != 0 ? 1U : 0U;
        };
        auto parts = count_syscalls([&](auto mark) { write_and_read(way, in_memory, nonblock, mark); }, see);
        REQUIRE(parts.size() == 1);
        for (const std::uint64_t number : may_wait) {
          CAPTURE(number);
          CHECK(parts[0][number] == 0);
        }
        CHECK(parts[0][SYS_preadv2] >= 2);
        CHECK(parts[0][SYS_pwritev2] >= 2);
        CHECK(told_not_to == parts[0][SYS_preadv2] + parts[0][SYS_pwritev2]);
      }
    }
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
