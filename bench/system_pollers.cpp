// The kernel's own: epoll level- and edge-triggered, poll and select; and the round that all pollers run.
#include <poll.h>
#include <sys/select.h>
#include <algorithm>

#include "pollers.hpp"
#include "raw_epoll.hpp"

namespace bench {
namespace {

class epoll_poller final : public poller {
 public:
  epoll_poller(std::span<const int> readers, std::uint32_t events) {
    for (std::size_t i = 0; i < readers.size(); ++i) {
      epoll_.add(readers[i], events, i);
    }
  }

  void wait(traffic& sink) override {
    for (const epoll_event& event : epoll_.wait(-1)) {
      sink.on_ready(event.data.u64);
    }
  }

 private:
  raw_epoll epoll_;
};

class poll_poller final : public poller {
 public:
  explicit poll_poller(std::span<const int> readers) {
    for (const int fd : readers) {
      entries_.push_back({fd, POLLIN, 0});
    }
  }

  void wait(traffic& sink) override {
    int left = ::poll(entries_.data(), entries_.size(), -1);
    if (left < 0) {
      fail("poll: %s", std::strerror(errno));
    }
    for (std::size_t i = 0; left > 0; ++i) {
      if (entries_[i].revents == 0) {
        continue;
      }
      sink.on_ready(i);
      --left;
    }
  }

 private:
  std::vector<pollfd> entries_;
};

class select_poller final : public poller {
 public:
  explicit select_poller(std::span<const int> readers) : readers_(readers.begin(), readers.end()) {
    FD_ZERO(&interest_);
    for (const int fd : readers) {
      if (fd >= FD_SETSIZE) {
        fail("descriptor %d is beyond what select(2) takes", fd);
      }
      FD_SET(fd, &interest_);
      beyond_ = std::max(beyond_, fd + 1);
    }
  }

  void wait(traffic& sink) override {
    fd_set ready = interest_;
    int left = ::select(beyond_, &ready, nullptr, nullptr, nullptr);
    if (left < 0) {
      fail("select: %s", std::strerror(errno));
    }
    for (std::size_t i = 0; left > 0; ++i) {
      if (!FD_ISSET(readers_[i], &ready)) {
        continue;
      }
      sink.on_ready(i);
      --left;
    }
  }

 private:
  std::vector<int> readers_;
  fd_set interest_;
  int beyond_ = 0;
};

}  // namespace

std::unique_ptr<poller> make_epoll_level_poller(std::span<const int> readers) {
  return std::make_unique<epoll_poller>(readers, EPOLLIN);
}

std::unique_ptr<poller> make_epoll_edge_poller(std::span<const int> readers) {
  return std::make_unique<epoll_poller>(readers, EPOLLIN | EPOLLET);
}

std::unique_ptr<poller> make_poll_poller(std::span<const int> readers) {
  return std::make_unique<poll_poller>(readers);
}

std::unique_ptr<poller> make_select_poller(std::span<const int> readers) {
  return std::make_unique<select_poller>(readers);
}

void run_rounds(meter& clock, poller& by, traffic& load, std::uint64_t events) {
  const std::uint64_t rounds = std::max<std::uint64_t>(events / load.active(), 1);
  const auto run = [&](std::uint64_t count) {
    for (std::uint64_t i = 0; i < count; ++i) {
      load.begin_round();
      load.send_round();
      while (!load.complete()) {
        by.wait(load);
      }
    }
  };
  run(rounds / 8 + 3);
  clock.start();
  run(rounds);
  clock.stop(rounds * load.active());
}

}  // namespace bench
