// Many fibers on one descriptor: readers and writers each in the order in which they came, and what belongs
// together stays together.
#include <annulet/hub/io.hpp>

#include "support/io_calls.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <array>
#include <string>
#include <utility>
#include <vector>

using namespace annulet::test;
using annulet::fiber;
using annulet::hub;
using annulet::mutable_buffer;
using annulet::spawn;
namespace this_fiber = annulet::this_fiber;

namespace {

using pair_maker = socket_pair (*)();
constexpr std::array<pair_maker, 2> sockets = {+[] { return make_socket_pair(); },
                                               +[] { return blocking(make_tcp_pair()); }};

}  // namespace

TEST_CASE("fibers that receive on one descriptor are served in the order in which they came") {
  for (const pair_maker make : sockets) {
    in_both_forms([&](form way) {
      auto [mine, peer] = make();
      const subject file(std::move(mine), way);
      constexpr std::size_t count = 50;
      std::vector<std::size_t> order;
      std::vector<fiber<void>> fibers;
      for (std::size_t i = 0; i < count; ++i) {
        fibers.push_back(spawn([&, i] {
          char byte = 0;
          REQUIRE(annulet::recv(file, mutable_buffer(&byte, 1), limit) == 1);
          order.push_back(i);
          CHECK(static_cast<std::size_t>(byte) == i);
        }));
      }
      this_fiber::yield();
      std::string bytes;
      for (std::size_t i = 0; i < count; ++i) {
        bytes.push_back(static_cast<char>(i));
      }
      write_text(peer.get(), std::string_view(bytes).substr(0, 1));
      this_fiber::sleep_for(1ms);
      write_text(peer.get(), std::string_view(bytes).substr(1, 20));
      this_fiber::sleep_for(1ms);
      write_text(peer.get(), std::string_view(bytes).substr(21));
      for (auto& f : fibers) {
        f.get();
      }
      CHECK(order.size() == count);
      CHECK(std::ranges::is_sorted(order));
    });
  }
}

TEST_CASE("a tty's readers, whom the kernel serves, come in order too") {
  in_both_forms([](form way) {
    auto [master, slave] = make_pty();
    const subject file(std::move(slave), way);
    std::string come;
    std::vector<fiber<void>> fibers;
    for (int i = 0; i < 10; ++i) {
      fibers.push_back(spawn([&] {
        char byte = 0;
        REQUIRE(annulet::read(file, mutable_buffer(&byte, 1), limit) == 1);
        come.push_back(byte);
      }));
    }
    this_fiber::yield();
    write_text(master.get(), "0123456789");
    for (auto& f : fibers) {
      f.get();
    }
    CHECK(come == "0123456789");
  });
}

TEST_CASE("fibers that send on one descriptor are served in the order in which they came") {
  in_both_forms([](form way) {
    auto [mine, peer] = make_socket_pair();
    fill(mine.get());
    const subject file(std::move(mine), way);
    std::string expected;
    std::vector<fiber<void>> fibers;
    for (char name = 'A'; name <= 'Z'; ++name) {
      expected.push_back(name);
      fibers.push_back(
          spawn([&, name] { REQUIRE(annulet::send(file, std::string_view(&name, 1), limit) == 1); }));
    }
    this_fiber::yield();
    std::string come;
    while (come.size() < expected.size()) {
      std::string piece = read_some(peer.get(), limit);
      std::erase(piece, 'x');
      come += piece;
    }
    CHECK(come == expected);
  });
}

TEST_CASE("one who is killed or out of time in the queue is left out, and nobody behind him is held up") {
  in_both_forms([](form way) {
    auto [mine, peer] = make_socket_pair();
    const subject file(std::move(mine), way);
    const auto receive = [&](annulet::deadline until) {
      char byte = 0;
      (void)annulet::recv(file, mutable_buffer(&byte, 1), until);
      return byte;
    };
    auto first = spawn_parked([&] { return receive(limit); });
    auto killed = spawn_parked([&] { return is_killed_in([&] { return receive(limit); }); });
    auto late = spawn_parked([&] { return passes_deadline([&] { return receive(2ms); }); });
    auto guarded = spawn_parked([&] {
      annulet::timeout guard(2ms);
      try {
        receive(limit);
      } catch (const annulet::timeout_expired& e) {
        return e.is(guard);
      }
      return false;
    });
    auto second = spawn_parked([&] { return receive(limit); });
    auto third = spawn_parked([&] { return receive(limit); });
    killed.kill();
    CHECK(killed.get());
    CHECK(late.get());
    CHECK(guarded.get());
    first.kill();  // he has the turn, and hands it on
    first.join();
    write_text(peer.get(), "12");
    CHECK(second.get() == '1');
    CHECK(third.get() == '2');
    write_text(peer.get(), "3");
    CHECK(receive(limit) == '3');
  });
}

TEST_CASE("readers do not wait for writers, nor writers for readers") {
  in_both_forms([](form way) {
    auto [mine, peer] = make_socket_pair();
    const subject file(std::move(mine), way);
    std::array<char, 8> buffer{};
    auto reading = spawn_parked([&] { return annulet::recv(file, buffer, limit); });
    CHECK(annulet::send(file, "abc"sv, limit) == 3);
    fill(file.fileno());
    auto writing = spawn_parked([&] { return annulet::send(file, "x"sv, limit); });
    write_text(peer.get(), "de");
    CHECK(reading.get() == 2);
    CHECK_FALSE(writing.done());
    auto next = spawn_parked([&] { return annulet::recv(file, buffer, limit); });
    drain(peer.get());
    CHECK(writing.get() == 1);
    CHECK_FALSE(next.done());
    write_text(peer.get(), "fgh");
    CHECK(next.get() == 3);
  });
}

TEST_CASE("write_all of many fibers is not interleaved, nor with writes of others") {
  for (const pair_maker make : sockets) {
    in_both_forms([&](form way) {
      auto [mine, peer] = make();
      const subject file(std::move(mine), way);
      constexpr std::size_t length = 400'000;
      std::vector<fiber<void>> fibers;
      for (char name = 'A'; name < 'F'; ++name) {
        fibers.push_back(spawn([&, name] { annulet::write_all(file, std::string(length, name), limit); }));
        fibers.push_back(spawn([&] { REQUIRE(annulet::write(file, "."sv, limit) == 1); }));
      }
      std::string come(5 * (length + 1), '\0');
      REQUIRE(annulet::read_exactly(peer.get(), come, limit) == come.size());
      std::string expected;
      for (char name = 'A'; name < 'F'; ++name) {
        expected += std::string(length, name) + ".";
      }
      CHECK((come == expected));
      for (auto& f : fibers) {
        f.get();
      }
    });
  }
}

TEST_CASE("read_exactly of many fibers takes what belongs together, and reads of others come after it") {
  for (const pair_maker make : sockets) {
    in_both_forms([&](form way) {
      auto [mine, peer] = make();
      const subject file(std::move(mine), way);
      constexpr std::size_t length = 100'000;
      std::array<std::string, 4> parts;
      std::string single;
      std::vector<fiber<void>> fibers;
      for (std::string& part : parts) {
        part.resize(length);
        fibers.push_back(spawn([&] { REQUIRE(annulet::read_exactly(file, part, limit) == length); }));
        fibers.push_back(spawn([&] { single += read_some(file, limit, 1); }));
      }
      std::string expected;
      for (unsigned i = 0; i < parts.size(); ++i) {
        expected += pattern(length, i) + static_cast<char>('a' + i);
      }
      for (std::size_t at = 0; at < expected.size(); at += 7000) {
        annulet::write_all(peer.get(), std::string_view(expected).substr(at, 7000), limit);
        this_fiber::yield();
      }
      for (auto& f : fibers) {
        f.get();
      }
      CHECK(single == "abcd");
      for (unsigned i = 0; i < parts.size(); ++i) {
        CHECK((parts[i] == pattern(length, i)));
      }
    });
  }
}
