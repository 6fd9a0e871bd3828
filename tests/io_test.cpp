// What the fd calls return: counts, ends of files, and nothing where a try_ call would have waited; for plain
// numbers and for descriptors alike.
#include <annulet/hub/io.hpp>

#include "support/io_calls.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <array>
#include <cstddef>
#include <optional>
#include <string>
#include <vector>

using namespace annulet::test;
using annulet::const_buffer;
using annulet::hub;
using annulet::mutable_buffer;
using annulet::socket_address;
using annulet::spawn;
namespace this_fiber = annulet::this_fiber;

namespace {

iovec vector_of(std::string& text) { return {text.data(), text.size()}; }

socket_address address_of(int socket) {
  socket_address address;
  require_ok(::getsockname(socket, address.room(), address.room_size()), "getsockname");
  return address;
}

// One that has no more room in its way out than a few KiB.
socket_pair make_narrow_pair() {
  auto pair = make_socket_pair();
  const int size = 4096;
  require_ok(::setsockopt(pair.first.get(), SOL_SOCKET, SO_SNDBUF, &size, sizeof(size)), "SO_SNDBUF");
  return pair;
}

}  // namespace

TEST_CASE("buffers are anything contiguous made of bytes, but no literal with its zero") {
  static_assert(std::is_constructible_v<mutable_buffer, std::array<char, 3>&>);
  static_assert(std::is_constructible_v<mutable_buffer, std::vector<std::byte>&>);
  static_assert(std::is_constructible_v<mutable_buffer, std::string&>);
  static_assert(std::is_constructible_v<mutable_buffer, char(&)[3]>);
  static_assert(!std::is_constructible_v<mutable_buffer, const std::string&>);
  static_assert(!std::is_constructible_v<mutable_buffer, std::string_view>);
  static_assert(!std::is_constructible_v<mutable_buffer, std::vector<int>&>);
  static_assert(std::is_constructible_v<const_buffer, std::string_view>);
  static_assert(std::is_constructible_v<const_buffer, const std::vector<unsigned char>&>);
  static_assert(!std::is_constructible_v<const_buffer, const char(&)[3]>);
  static_assert(!std::is_constructible_v<const_buffer, std::vector<int>&>);
  std::string text = "abc";
  CHECK(mutable_buffer(text).size() == 3);
  CHECK(const_buffer(text).without_first(2).size() == 1);
  CHECK(*const_buffer(text).without_first(2).data() == std::byte{'c'});
  CHECK(mutable_buffer().size() == 0);
}

TEST_CASE("read returns what is there, which may be less than was asked for, and 0 at the end") {
  in_both_forms([](form way) {
    auto [reader, writer] = make_pipe();
    const subject file(std::move(reader), way);
    write_text(writer.get(), "hello");
    CHECK(read_some(file, limit, 3) == "hel");
    CHECK(read_some(file, limit, 100) == "lo");
    writer.close();
    CHECK(read_some(file, limit).empty());
    CHECK(read_some(file, limit).empty());  // it stays at its end
  });
}

TEST_CASE("write returns how much was taken, which may be less than was given") {
  in_both_forms([](form way) {
    auto [mine, peer] = make_narrow_pair();
    const subject file(std::move(mine), way);
    CHECK(annulet::write(file, "hello"sv, limit) == 5);
    CHECK(read_text(peer.get()) == "hello");
    const std::string much = pattern(1'000'000);
    const std::size_t taken = annulet::write(file, much, limit);
    CHECK(taken > 0);
    CHECK(taken < much.size());
    std::string come;
    while (come.size() < taken) {
      const std::string piece = read_text(peer.get());
      REQUIRE_FALSE(piece.empty());
      come += piece;
    }
    CHECK(come == much.substr(0, taken));
  });
}

TEST_CASE("readv fills its vectors one after the other, writev gathers them") {
  in_both_forms([](form way) {
    for (auto make : {+[] { return make_socket_pair(); }, +[] { return make_tcp_pair(); }}) {
      auto [mine, peer] = make();
      const subject file(std::move(mine), way);
      std::string a = "one", b, c = "three";
      const std::array out{vector_of(a), vector_of(b), vector_of(c)};
      CHECK(annulet::writev(file, out, limit) == 8);
      CHECK(read_text(peer.get()) == "onethree");
      write_text(peer.get(), "ABCDEFG");
      const std::array in{vector_of(a), vector_of(c)};
      CHECK(annulet::readv(file, in, limit) == 7);
      CHECK(a == "ABC");
      CHECK(c == "DEFGe");
    }
  });
}

TEST_CASE("recv and send take their flags") {
  in_both_forms([](form way) {
    auto [mine, peer] = make_tcp_pair();
    const subject file(std::move(mine), way);
    std::array<char, 16> buffer{};
    CHECK(annulet::send(file, "abc"sv, annulet::message_flags(MSG_NOSIGNAL), limit) == 3);
    CHECK(read_text(peer.get()) == "abc");
    write_text(peer.get(), "xyz");
    CHECK(annulet::recv(file, buffer, annulet::message_flags(MSG_PEEK), limit) == 3);
    CHECK(annulet::recv(file, buffer, annulet::message_flags(MSG_PEEK), limit) == 3);
    CHECK(annulet::recv(file, buffer, limit) == 3);
    CHECK_FALSE(annulet::try_recv(file, buffer, annulet::message_flags(MSG_PEEK)));
    ::shutdown(peer.get(), SHUT_WR);
    CHECK(annulet::recv(file, buffer, limit) == 0);
  });
}

TEST_CASE("datagrams keep their bounds, and an empty one is a count of 0") {
  in_both_forms([](form way) {
    auto [mine, peer] = make_udp_pair();
    const subject file(std::move(mine), way);
    std::array<char, 4> small{};
    write_text(peer.get(), "longer than that");
    write_text(peer.get(), "ab");
    CHECK(annulet::recv(file, small, annulet::message_flags(MSG_TRUNC), limit) == 16);
    CHECK(annulet::recv(file, small, limit) == 2);
    require_ok(static_cast<int>(::send(peer.get(), "", 0, 0)), "send");
    CHECK(annulet::recv(file, small, limit) == 0);
    CHECK(annulet::send(file, const_buffer(), limit) == 0);
    CHECK(try_read(peer.get()) == 0);
    CHECK(try_read(peer.get()) == -EAGAIN);
    write_text(peer.get(), "cd");  // an empty datagram is no end of the file
    CHECK(annulet::recv(file, small, limit) == 2);
  });
}

TEST_CASE("recvfrom says who sent, and sendto answers him") {
  in_both_forms([](form way) {
    auto plain = make_udp_socket(), other = make_udp_socket();
    const socket_address mine_at = address_of(plain.get()), other_at = address_of(other.get());
    const subject file(std::move(plain), way);
    std::array<char, 16> buffer{};
    socket_address sender;
    CHECK(sender.family() == AF_UNSPEC);
    auto waiting = spawn_parked([&] { return annulet::recvfrom(file, buffer, sender, {}, limit); });
    CHECK(annulet::sendto(other.get(), "hi"sv, mine_at, {}, limit) == 2);
    CHECK(waiting.get() == 2);
    REQUIRE(sender.size() == other_at.size());
    CHECK(std::memcmp(sender.data(), other_at.data(), sizeof(sockaddr_in)) == 0);
    CHECK(annulet::sendto(file, "you"sv, sender, {}, limit) == 3);
    CHECK(read_text(other.get()) == "you");
  });
}

TEST_CASE("an address that is too long for any family is refused") {
  const std::array<char, sizeof(sockaddr_storage) + 1> bytes{};
  CHECK_THROWS_AS(socket_address(reinterpret_cast<const sockaddr*>(bytes.data()), sizeof(bytes)),
                  std::invalid_argument);
}

TEST_CASE("a call with nothing to transfer parks, and other fibers run until there is") {
  in_both_forms([](form way) {
    auto [mine, peer] = make_tcp_pair();
    const subject file(std::move(mine), way);
    std::array<char, 16> buffer{};
    for (int round = 0; round < 5; ++round) {
      auto waiting = spawn_parked([&] { return annulet::recv(file, buffer, limit); });
      CHECK_FALSE(waiting.done());
      this_fiber::sleep_for(1ms);
      CHECK_FALSE(waiting.done());
      write_text(peer.get(), "ab");
      CHECK(waiting.get() == 2);
    }
    auto waiting = spawn_parked([&] { return annulet::recv(file, buffer, limit); });
    ::shutdown(peer.get(), SHUT_WR);
    CHECK(waiting.get() == 0);
  });
}

TEST_CASE("a write into what is full parks until there is room") {
  in_both_forms([](form way) {
    for (int round = 0; round < 3; ++round) {
      auto [reader, writer] = make_pipe();
      fill(writer.get());
      const subject file(std::move(writer), way);
      auto waiting = spawn_parked([&] { return annulet::write(file, "abc"sv, limit); });
      CHECK_FALSE(waiting.done());
      while (try_read(reader.get()) == 4096) {
      }
      CHECK(waiting.get() == 3);
      CHECK(read_text(reader.get()) == "abc");
    }
  });
}

TEST_CASE("read_exactly goes on until it has all, and says less only at the end") {
  in_both_forms([](form way) {
    auto [mine, peer] = make_socket_pair();
    const subject file(std::move(mine), way);
    std::string text(6, '\0');
    std::size_t done = 99;
    auto waiting = spawn_parked([&] { return annulet::read_exactly(file, text, limit, &done); });
    for (const char* piece : {"ab", "c", "def"}) {
      CHECK_FALSE(waiting.done());
      write_text(peer.get(), piece);
      this_fiber::sleep_for(1ms);
    }
    CHECK(waiting.get() == 6);
    CHECK(text == "abcdef");
    CHECK(done == 6);
    write_text(peer.get(), "xyz12");
    peer.close();
    CHECK(annulet::read_exactly(file, mutable_buffer(text.data(), 2), limit) == 2);
    CHECK(annulet::read_exactly(file, text, limit, &done) == 3);
    CHECK(done == 3);
    CHECK(text.substr(0, 3) == "z12");
    CHECK(annulet::read_exactly(file, text, limit, &done) == 0);
    CHECK(done == 0);
  });
}

TEST_CASE("what read_exactly and write_all have moved is known where they throw") {
  in_both_forms([](form way) {
    auto [mine, peer] = make_narrow_pair();
    const subject file(std::move(mine), way);
    std::string text(6, '\0');
    std::size_t done = 99;
    write_text(peer.get(), "abcd");
    CHECK(passes_deadline([&] { return annulet::read_exactly(file, text, 5ms, &done); }));
    CHECK(done == 4);
    CHECK(text.substr(0, 4) == "abcd");
    const std::string much = pattern(1'000'000);
    std::string come;
    CHECK(passes_deadline([&] { annulet::write_all(file, much, 5ms, &done); }));
    for (std::string piece = read_text(peer.get()); !piece.empty(); piece = read_text(peer.get())) {
      come += piece;
    }
    CHECK(done > 0);
    CHECK(come == much.substr(0, done));
    auto writing = spawn_parked([&] { annulet::write_all(file, much, limit, &done); });
    come = read_text(peer.get());
    this_fiber::sleep_for(1ms);
    peer.close();
    CHECK(failure_of([&] { writing.get(); }).error == EPIPE);
    CHECK(done >= come.size());
    CHECK(done < much.size());
  });
}

TEST_CASE("write_all and read_exactly carry a stream over, whole and in order") {
  const std::string much = pattern(4'000'000, 7);
  in_both_forms([&](form way) {
    for (auto make : {+[] { return make_socket_pair(); }, +[] { return make_tcp_pair(); },
                      +[] {
                        auto [reader, writer] = make_pipe();
                        return socket_pair{std::move(writer), std::move(reader)};
                      }}) {
      auto [first, second] = make();
      const subject from(std::move(first), way), to(std::move(second), way);
      auto sending = spawn([&] { annulet::write_all(from, much, limit); });
      std::string come(much.size(), '\0');
      std::size_t have = 0;
      for (std::size_t piece = 1; have < come.size(); piece = piece * 3 % 70'001) {
        const std::size_t ask = std::min(piece, come.size() - have);
        const mutable_buffer into(come.data() + have, ask);
        if (piece % 2 == 0) {
          REQUIRE(annulet::read_exactly(to, into, limit) == ask);
          have += ask;
        } else {
          const std::size_t got = annulet::read(to, into, limit);
          REQUIRE(got > 0);
          have += got;
        }
      }
      sending.get();
      CHECK(come == much);
      CHECK_FALSE(annulet::try_read(to, come));
    }
  });
}

TEST_CASE("try_ calls give a value where there is one, and nothing where the call would have waited") {
  in_both_forms([](form way) {
    auto [mine, peer] = make_socket_pair();
    const subject file(std::move(mine), way);
    std::array<char, 16> buffer{};
    for (int round = 0; round < 3; ++round) {
      CHECK_FALSE(annulet::try_read(file, buffer));
      CHECK_FALSE(annulet::try_recv(file, buffer));
      write_text(peer.get(), "abc");
      CHECK(annulet::try_read(file, mutable_buffer(buffer.data(), 1)) == 1);
      CHECK(annulet::try_recv(file, buffer) == 2);
    }
    CHECK(annulet::try_write(file, "ab"sv) == 2);
    CHECK(annulet::try_send(file, "cd"sv) == 2);
    CHECK(read_text(peer.get()) == "abcd");
    fill(file.fileno());
    CHECK_FALSE(annulet::try_write(file, "x"sv));
    CHECK_FALSE(annulet::try_send(file, "x"sv));
    drain(peer.get());
    CHECK(annulet::try_send(file, "y"sv) == 1);
    peer.close();
    CHECK(failure_of([&] { return annulet::try_send(file, "z"sv); }).error == EPIPE);
    CHECK(failure_of([&] { return annulet::try_read(file, buffer); }).error == ECONNRESET);
    CHECK(annulet::try_read(file, buffer) == 0);
  });
}

TEST_CASE("try_ calls take nothing that others have been waiting for longer") {
  in_both_forms([](form way) {
    auto [mine, peer] = make_socket_pair();
    const subject file(std::move(mine), way);
    std::array<char, 16> first{}, second{};
    auto waiting = spawn_parked([&] { return annulet::read(file, first, limit); });
    write_text(peer.get(), "abc");  // it is his, though he has not run yet
    CHECK_FALSE(annulet::try_read(file, second));
    CHECK_FALSE(annulet::try_recv(file, second));
    CHECK(waiting.get() == 3);
    write_text(peer.get(), "de");
    CHECK(annulet::try_read(file, second) == 2);
  });
}

TEST_CASE("calls on a regular file move its position, and end at its end") {
  in_both_forms([](form way) {
    const std::string much = pattern(300'000, 3);
    const subject file(make_file(), way);
    annulet::write_all(file, much, limit);
    CHECK(::lseek(file.fileno(), 0, SEEK_CUR) == static_cast<off_t>(much.size()));
    CHECK(read_some(file).empty());
    require_ok(static_cast<int>(::lseek(file.fileno(), 0, SEEK_SET)), "lseek");
    std::string come(much.size() + 5, '\0');
    CHECK(annulet::read(file, mutable_buffer(come.data(), 1000)) == 1000);
    CHECK(annulet::read_exactly(file, mutable_buffer(come).without_first(1000)) == much.size() - 1000);
    come.resize(much.size());
    CHECK(come == much);
    CHECK(annulet::try_read(file, come) == 0);
    std::string tail = "the end";
    const std::array out{vector_of(tail)};
    CHECK(annulet::writev(file, out) == tail.size());
    require_ok(static_cast<int>(::lseek(file.fileno(), -3, SEEK_END)), "lseek");
    CHECK(read_some(file) == "end");
  });
}

TEST_CASE("a call that always finds something lets the other fibers run") {
  in_both_forms([](form way) {
    const subject zero(descriptor(require_ok(::open("/dev/zero", O_RDONLY | O_CLOEXEC), "open")), way);
    unsigned turns = 0;
    auto other = spawn([&] {
      for (;;) {
        ++turns;
        this_fiber::yield();
      }
    });
    std::array<char, 8> buffer{};
    for (int i = 0; i < 10'000; ++i) {
      REQUIRE(annulet::read(zero, buffer) == buffer.size());
    }
    CHECK(turns >= 10);
    other.kill();
    other.join();
  });
}

TEST_CASE("writev of nothing transfers nothing, and write of nothing sends an empty datagram, as for Linux") {
  const hub home;
  const auto [mine, peer] = make_socket_pair(SOCK_DGRAM);
  char none = 0;
  const iovec empty{&none, 0};
  CHECK(annulet::writev(mine.get(), {&empty, 1}) == 0);
  CHECK(revents_of(peer.get(), POLLIN) == 0);
  CHECK(annulet::write(mine.get(), {&none, 0}) == 0);
  CHECK(revents_of(peer.get(), POLLIN) == POLLIN);
  const auto [stream, other] = make_tcp_pair();
  require_ok(::shutdown(stream.get(), SHUT_WR), "shutdown");
  CHECK(annulet::writev(stream.get(), {&empty, 1}) == 0);
}
