// What the engine takes for granted about the kernel, asked of the kernel itself. Where one of these fails on
// a newer kernel, read what relies on it: hub/uring_engine.cpp, and the selector's use of poll(2).
#include "support/files.hpp"

#include <doctest/doctest.h>

#include <array>
#include <cstdint>
#include <thread>
#include <vector>

#include <liburing.h>
#include <poll.h>

using namespace annulet::test;

namespace {

struct completion {
  std::uint64_t data;
  int result;
  bool more;
};

constexpr std::array set_ups = {
    unsigned{IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN | IORING_SETUP_TASKRUN_FLAG},
    unsigned{IORING_SETUP_COOP_TASKRUN | IORING_SETUP_TASKRUN_FLAG}, 0U};

class raw_ring {
 public:
  explicit raw_ring(unsigned flags, unsigned completions = 64) {
    io_uring_params params{};
    params.flags = flags | IORING_SETUP_CQSIZE;
    params.cq_entries = completions;
    errno = -io_uring_queue_init_params(completions / 2, &ring_, &params);
    require_ok(errno == 0 ? 0 : -1, "io_uring_queue_init_params");
  }
  ~raw_ring() { io_uring_queue_exit(&ring_); }
  raw_ring(const raw_ring&) = delete;
  raw_ring& operator=(const raw_ring&) = delete;

  void poll(int fd, unsigned mask, std::uint64_t data, unsigned flags = 0) {
    io_uring_sqe* const entry = io_uring_get_sqe(&ring_);
    io_uring_prep_poll_add(entry, fd, mask);
    entry->len = flags;
    io_uring_sqe_set_data64(entry, data);
  }
  void poll_multishot(int fd, unsigned mask, std::uint64_t data) {
    poll(fd, mask, data, IORING_POLL_ADD_MULTI);
  }
  void update(std::uint64_t target, unsigned mask, std::uint64_t data) {
    io_uring_sqe* const entry = io_uring_get_sqe(&ring_);
    io_uring_prep_poll_update(entry, target, 0, mask, IORING_POLL_UPDATE_EVENTS | IORING_POLL_ADD_MULTI);
    io_uring_sqe_set_data64(entry, data);
  }
  void cancel(std::uint64_t target, std::uint64_t data) {
    io_uring_sqe* const entry = io_uring_get_sqe(&ring_);
    io_uring_prep_cancel64(entry, target, 0);
    io_uring_sqe_set_data64(entry, data);
  }
  void submit() { require_ok(io_uring_submit(&ring_), "io_uring_submit"); }

  // Submits, and gives all that there is after so long without a further completion.
  std::vector<completion> all(std::int64_t quiet_ns = 2'000'000) {
    std::vector<completion> found;
    for (;;) {
      io_uring_cqe* entry = nullptr;
      __kernel_timespec limit{0, quiet_ns};
      if (io_uring_submit_and_wait_timeout(&ring_, &entry, 1, &limit, nullptr) < 0 && entry == nullptr) {
        return found;
      }
      while (io_uring_peek_cqe(&ring_, &entry) == 0) {
        found.push_back({entry->user_data, entry->res, (entry->flags & IORING_CQE_F_MORE) != 0});
        io_uring_cqe_seen(&ring_, entry);
      }
    }
  }

 private:
  io_uring ring_{};
};

template <class Body>
void in_each_set_up(Body&& body) {
  for (const unsigned flags : set_ups) {
    CAPTURE(flags);
    raw_ring ring(flags);
    body(ring);
  }
}

}  // namespace

TEST_CASE("a level-triggered multishot poll is refused") {
  in_each_set_up([](raw_ring& ring) {
    auto pipe = make_pipe();
    ring.poll(pipe.reader.get(), POLLIN, 1, IORING_POLL_ADD_MULTI | IORING_POLL_ADD_LEVEL);
    const auto got = ring.all();
    REQUIRE(got.size() == 1);
    CHECK(got[0].result == -EINVAL);
    CHECK_FALSE(got[0].more);
  });
}

TEST_CASE("a multishot poll checks the level when it is armed, and is silent after a partial read") {
  in_each_set_up([](raw_ring& ring) {
    auto pipe = make_pipe();
    send_byte(pipe.writer.get());
    send_byte(pipe.writer.get());
    ring.poll_multishot(pipe.reader.get(), POLLIN, 1);
    auto got = ring.all();
    REQUIRE(got.size() == 1);
    CHECK(got[0].result == POLLIN);
    CHECK(got[0].more);
    char byte = 0;
    REQUIRE(::read(pipe.reader.get(), &byte, 1) == 1);
    CHECK(ring.all().empty());
    send_byte(pipe.writer.get());
    got = ring.all();
    REQUIRE(got.size() == 1);
    CHECK(got[0].more);
  });
}

TEST_CASE("data that is read before the enter is reported all the same: a mask is a hint") {
  raw_ring ring(set_ups[0]);
  auto pipe = make_pipe();
  ring.poll_multishot(pipe.reader.get(), POLLIN, 1);
  CHECK(ring.all().empty());
  send_byte(pipe.writer.get());
  drain(pipe.reader.get());
  const auto got = ring.all();
  REQUIRE(got.size() == 1);
  CHECK(got[0].result == POLLIN);
}

TEST_CASE("an armed poll pins the open file until its cancellation was reaped") {
  for (const bool multishot : {false, true}) {
    raw_ring ring(set_ups[0]);
    auto pair = make_socket_pair();
    ring.poll(pair.first.get(), POLLIN, 1, multishot ? IORING_POLL_ADD_MULTI : 0);
    CHECK(ring.all().empty());
    pair.first.close();
    CHECK(try_read(pair.second.get()) == -EAGAIN);
    ring.cancel(1, 2);
    ring.submit();
    CHECK(try_read(pair.second.get()) == -EAGAIN);  // submitted is not enough where task work is deferred
    const auto got = ring.all();
    CHECK(got.size() == 2);
    CHECK(try_read(pair.second.get()) == 0);
  }
}

TEST_CASE(
    "a cancelled poll ends with one last completion without MORE, and the cancellation finds it by data") {
  in_each_set_up([](raw_ring& ring) {
    auto pipe = make_pipe();
    ring.poll_multishot(pipe.reader.get(), POLLIN, 1);
    CHECK(ring.all().empty());
    ring.cancel(1, 2);
    auto got = ring.all();
    REQUIRE(got.size() == 2);
    for (const completion& c : got) {
      CHECK(c.result == (c.data == 1 ? -ECANCELED : 0));
      CHECK_FALSE(c.more);
    }
    ring.cancel(1, 2);
    got = ring.all();
    REQUIRE(got.size() == 1);
    CHECK(got[0].result == -ENOENT);
  });
}

TEST_CASE("a poll of a closed or O_PATH descriptor ends with EBADF, not with POLLNVAL") {
  in_each_set_up([](raw_ring& ring) {
    auto closed = make_eventfd();
    const int number = closed.get();
    closed.close();
    const descriptor path(require_ok(::open("/", O_PATH | O_CLOEXEC), "open"));
    ring.poll_multishot(number, POLLIN, 1);
    ring.poll_multishot(path.get(), POLLIN, 2);
    const auto got = ring.all();
    REQUIRE(got.size() == 2);
    for (const completion& c : got) {
      CHECK(c.result == -EBADF);
      CHECK_FALSE(c.more);
    }
  });
}

TEST_CASE("after a number's reuse the old request fires for the old file") {
  in_each_set_up([](raw_ring& ring) {
    auto old = make_socket_pair();
    auto fresh = make_socket_pair();
    ring.poll_multishot(old.first.get(), POLLIN, 1);
    CHECK(ring.all().empty());
    require_ok(::dup2(fresh.first.get(), old.first.get()), "dup2");
    send_byte(fresh.second.get());
    CHECK(ring.all().empty());
    send_byte(old.second.get());
    const auto got = ring.all();
    REQUIRE(got.size() == 1);
    CHECK(got[0].data == 1);
    CHECK(got[0].more);
  });
}

TEST_CASE("a change of the mask checks the level anew and keeps the request armed") {
  in_each_set_up([](raw_ring& ring) {
    auto pair = make_socket_pair();
    ring.poll_multishot(pair.first.get(), POLLIN, 1);
    CHECK(ring.all().empty());
    ring.update(1, POLLOUT, 2);
    auto got = ring.all();
    REQUIRE(got.size() == 2);
    for (const completion& c : got) {
      CHECK(c.result == (c.data == 1 ? POLLOUT : 0));
      CHECK(c.more == (c.data == 1));
    }
    ring.update(1, POLLIN, 2);
    CHECK(ring.all().size() == 1);
    send_byte(pair.second.get());
    got = ring.all();
    REQUIRE(got.size() == 1);
    CHECK(got[0].result == POLLIN);
  });
}

TEST_CASE("a change of the mask of a request that is being woken is refused with EALREADY") {
  raw_ring ring(set_ups[0]);
  auto pair = make_socket_pair();
  ring.poll_multishot(pair.first.get(), POLLIN, 1);
  CHECK(ring.all().empty());
  send_byte(pair.second.get());
  ring.update(1, POLLIN | POLLOUT, 2);
  const auto got = ring.all();
  REQUIRE(got.size() == 2);
  for (const completion& c : got) {
    CHECK(c.result == (c.data == 1 ? POLLIN : -EALREADY));
    CHECK(c.more == (c.data == 1));
  }
}

TEST_CASE("the completion that finds the queue full ends its multishot poll, and is kept") {
  for (const unsigned flags : set_ups) {
    CAPTURE(flags);
    raw_ring ring(flags, 2);
    std::vector<descriptor> files;
    for (std::uint64_t i = 0; i < 8; ++i) {
      files.push_back(make_eventfd());
      ring.poll_multishot(files.back().get(), POLLIN, i);
      ring.submit();
    }
    CHECK(ring.all().empty());
    for (const descriptor& file : files) {
      add_to_eventfd(file.get());
    }
    std::vector<bool> told(files.size());
    std::size_t ended = 0;
    for (const completion& c : ring.all()) {
      CHECK(c.result == POLLIN);
      told[c.data] = true;
      ended += c.more ? 0U : 1U;
    }
    CHECK(told == std::vector<bool>(files.size(), true));
    CHECK(ended > 0);
  }
}

TEST_CASE(
    "a one-shot poll for writing fires at once on a full socket with a half-closed peer, poll(2) does not") {
  raw_ring ring(set_ups[0]);
  auto pair = make_tcp_pair();
  const std::vector<char> much(1U << 16U);
  while (::write(pair.first.get(), much.data(), much.size()) > 0) {
  }
  REQUIRE(::shutdown(pair.second.get(), SHUT_WR) == 0);
  pollfd asked{pair.first.get(), POLLOUT, 0};
  for (int round = 0; round < 20; ++round) {
    ring.poll(pair.first.get(), POLLOUT, 1);
    const auto got = ring.all(200'000);
    REQUIRE(got.size() == 1);
    REQUIRE((got[0].result & POLLOUT) == 0);
    REQUIRE(::poll(&asked, 1, 0) == 0);
  }
}
