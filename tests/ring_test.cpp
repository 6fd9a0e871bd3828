// The ring as a hub sets it up: what it carries out, and what it refuses, whoever asks.
#include "support/probe_watch.hpp"

#include <annulet/hub/ring.hpp>

#include <doctest/doctest.h>

#include <array>
#include <cerrno>
#include <cstdint>
#include <optional>
#include <set>

#include <sys/syscall.h>
#include <unistd.h>

using annulet::engine_info;
using annulet::detail::ring;

namespace {

const std::set<int> asked_for = {
    IORING_OP_NOP,    IORING_OP_POLL_ADD, IORING_OP_POLL_REMOVE, IORING_OP_READV, IORING_OP_WRITEV,
    IORING_OP_ACCEPT, IORING_OP_CONNECT,  IORING_OP_FSYNC,       IORING_OP_STATX, IORING_OP_ASYNC_CANCEL};

// What a request of that kind comes to that says nothing else: no file, no memory.
int result_of(ring& of, int operation, unsigned flags) {
  io_uring_sqe& entry = *of.next_sqe();
  entry = {};
  entry.opcode = static_cast<std::uint8_t>(operation);
  entry.flags = static_cast<std::uint8_t>(flags);
  entry.fd = -1;
  entry.user_data = 7;
  int found = 1;
  const auto take = [&found](std::uint64_t data, int result, unsigned) {
    REQUIRE(data == 7);
    found = result;
  };
  const auto look_ahead = [](std::uint64_t) {};
  do {
    REQUIRE(of.wait(std::nullopt, nullptr) == 0);
  } while (of.reap(take, look_ahead, look_ahead) == 0);
  return found;
}

template <class Body>
void in_each_mode(Body&& body) {
  for (const auto mode : {annulet::ring_mode::defer_taskrun, annulet::ring_mode::coop_taskrun,
                          annulet::ring_mode::submit_all, annulet::ring_mode::plain}) {
    CAPTURE(static_cast<int>(mode));
    engine_info info;
    ring made(annulet::test::options_for(mode), info);
    body(made);
  }
}

}  // namespace

TEST_CASE("a ring carries out what a hub asks for, and nothing else") {
  in_each_mode([](ring& made) {
    for (int operation = 0; operation < IORING_OP_LAST; ++operation) {
      CAPTURE(operation);
      const int found = result_of(made, operation, 0);
      const bool refused =
          found == -EACCES || (found == -EINVAL && operation > IORING_OP_LINKAT);  // newer than the kernel
      CHECK(refused != asked_for.contains(operation));
    }
  });
}

TEST_CASE("a ring takes no requests of registered files, and none that hang together") {
  in_each_mode([](ring& made) {
    CHECK(result_of(made, IORING_OP_NOP, IOSQE_ASYNC) == 0);
    for (const unsigned flag :
         {IOSQE_FIXED_FILE, IOSQE_IO_DRAIN, IOSQE_IO_LINK, IOSQE_IO_HARDLINK, IOSQE_BUFFER_SELECT}) {
      CAPTURE(flag);
      CHECK(result_of(made, IORING_OP_READV, flag) == -EACCES);  // which might have each of them
    }
  });
}

TEST_CASE("a ring takes no more registrations") {
  in_each_mode([](ring& made) {
    std::array<char, 64> memory{};
    const iovec buffer{memory.data(), memory.size()};
    const int fd = made.fileno();
    const auto registered = [&](unsigned operation, const void* what, unsigned count) {
      return ::syscall(SYS_io_uring_register, fd, operation, what, count) == 0 ? 0 : errno;
    };
    CHECK(registered(IORING_REGISTER_BUFFERS, &buffer, 1) == EACCES);
    CHECK(registered(IORING_REGISTER_FILES, &fd, 1) == EACCES);
    CHECK(registered(IORING_REGISTER_EVENTFD, &fd, 1) == EACCES);
    CHECK(registered(IORING_REGISTER_PERSONALITY, nullptr, 0) == EACCES);
  });
}
