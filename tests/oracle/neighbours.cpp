// Who runs beside the machine: a ticker, fibers that only yield, and a pair that talk through a selector of
// their own.

#include "machine.hpp"

#include <annulet/runtime/scope.hpp>
#include <annulet/runtime/this_fiber.hpp>

#include <chrono>
#include <system_error>
#include <utility>

#include <sys/eventfd.h>
#include <unistd.h>

namespace oracle {

using annulet::io_event;
using namespace std::chrono_literals;

machine::machine(std::uint64_t seed, annulet::hub& hub, kernel_mood mood, tally& counts)
    : seed_(seed), mood_(mood), counts_(counts), dice_(seed), handle_(hub.handle()) {
  sides_[1].number = 1;
  begin_neighbours();
}

machine::~machine() {
  end_neighbours();
  for (side& s : sides_) {
    s.select_with = nullptr;
  }
  for (const descriptor& one : open_) {
    ::close(one.fd);
  }
}

void machine::run(std::uint64_t operations) {
  const std::uint64_t until = counts_.operations + operations;
  while (counts_.operations < until) {
    if (open_.size() >= 8 && dice_.one_in(12)) {
      ++counts_.operations;
      park_step(dice_.pick(sides_));
    } else {
      operate(dice_);
    }
    if (failure_ != nullptr) {
      std::rethrow_exception(std::exchange(failure_, nullptr));
    }
  }
}

void machine::begin_neighbours() {
  neighbours_.push_back(annulet::spawn({.name = "ticker"}, [this] { tick(); }));
  for (int i = 0; i < 2; ++i) {
    neighbours_.push_back(annulet::spawn({.name = "babbler"}, [this, seed = dice_.next()] { babble(seed); }));
  }
  neighbours_.push_back(annulet::spawn({.name = "relay"}, [this] { relay(); }));
}

void machine::end_neighbours() {
  ending_ = true;
  for (auto& neighbour : neighbours_) {
    neighbour.kill();
  }
  for (auto& neighbour : neighbours_) {
    neighbour.join();
  }
}

// A select that nobody wakes must not hang the test.
void machine::tick() {
  while (!ending_) {
    annulet::this_fiber::sleep_for(1ms);
    const std::int64_t time = std::chrono::steady_clock::now().time_since_epoch() / 1ns;
    for (side& s : sides_) {
      if (s.parked_since != 0 && time - s.parked_since > 5'000'000'000) {
        s.parked_since = 0;
        make_sure(s);
      }
    }
  }
}

void machine::babble(std::uint64_t seed) {
  dice d(seed);
  while (!ending_) {
    for (std::size_t i = d.below(40); i > 0; --i) {
      annulet::this_fiber::yield();
    }
    annulet::this_fiber::sleep_for(std::chrono::microseconds(d.below(2000)));
  }
}

// Its own descriptor becomes ready again and again; nothing else may ever be reported here.
void machine::relay() {
  struct eventfd_owner {
    int fd = ::eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    ~eventfd_owner() { ::close(fd); }
  };
  const eventfd_owner own;
  selector select_with;
  select_with.register_(own.fd, io_event::read, 7);
  // The writer is there no longer than what it writes to, and than this machine.
  annulet::scope([&](annulet::fiber_group& others) {
    others.spawn({.name = "writer"}, [this, fd = own.fd] {
      while (!ending_) {
        annulet::this_fiber::sleep_for(700us);
        const std::uint64_t one = 1;
        [[maybe_unused]] const auto written = ::write(fd, &one, sizeof(one));
      }
    });
    while (!ending_) {
      std::vector<selector::ready_type> ready;
      try {
        ready = select_with.select();
      } catch (const std::system_error&) {
        if (mood_ == kernel_mood::refusing) {
          continue;
        }
        throw;
      }
      std::uint64_t count = 0;
      if (ready.size() != 1 || ready[0].key->fd != own.fd || ready[0].key->data != 7 ||
          ready[0].events != io_event::read || ::read(own.fd, &count, sizeof(count)) != sizeof(count)) {
        failure_ = std::make_exception_ptr(mismatch("another selector returned what it does not watch"));
        return;
      }
    }
  });
}

}  // namespace oracle
