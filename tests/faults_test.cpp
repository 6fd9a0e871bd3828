// All that a hub is for, on a kernel that refuses, cuts short and ends early what it is asked for: no byte is
// lost or changed, no event missed, no wait early, and nothing is left.
//
// ANNULET_FAULT_OPERATIONS says how many calls are made, ANNULET_FAULT_SEED repeats what the dice said.

#include "oracle/dice.hpp"
#include "oracle/run.hpp"
#include "support/child.hpp"
#include "support/faulty_kernel.hpp"
#include "support/files.hpp"
#include "support/numbered_transfers.hpp"
#include "support/planting.hpp"
#include "support/two_ends.hpp"

#include <annulet/selector/posix.h>
#include <annulet/hub/close.hpp>
#include <annulet/hub/file.hpp>
#include <annulet/hub/hub.hpp>
#include <annulet/hub/io.hpp>
#include <annulet/hub/offload.hpp>
#include <annulet/runtime/cancellation.hpp>
#include <annulet/runtime/errors.hpp>
#include <annulet/runtime/event.hpp>
#include <annulet/runtime/scope.hpp>
#include <annulet/runtime/this_fiber.hpp>
#include <annulet/selector/selector.hpp>

#include <doctest/doctest.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <functional>
#include <list>
#include <span>
#include <system_error>
#include <utility>
#include <vector>

#include <fcntl.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>

using namespace annulet::test;
using namespace std::chrono_literals;
using annulet::io_event;
namespace this_fiber = annulet::this_fiber;
using steady = std::chrono::steady_clock;

namespace {

constexpr auto patience = 60s;
constexpr std::size_t disk_size = 256 << 10;

descriptor make_disk() {
  descriptor file(require_ok(::memfd_create("disk", MFD_CLOEXEC), "memfd_create"));
  std::vector<char> bytes(disk_size);
  number_bytes(bytes, 0);
  REQUIRE(::pwrite(file.get(), bytes.data(), bytes.size(), 0) == static_cast<ssize_t>(bytes.size()));
  return file;
}

// What has to be made again where the kernel has said so.
template <class Call>
auto again_after(int error, std::uint64_t& times, Call call) {
  for (;;) {
    try {
      return call();
    } catch (const std::system_error& e) {
      if (e.code().value() != error) {
        throw;
      }
      ++times;
    }
  }
}

enum class sort : std::uint8_t { transfers, disk, selects, polls, connections, limits, kills, offloads };
constexpr std::array names = {"reads and writes", "pread and pwrite", "selects", "polls",
                              "connections",      "deadlines",        "kills",   "offloads"};

// Everything that goes on, until so many calls have been made.
class life {
 public:
  life(std::uint64_t operations, int disk, std::uint64_t seed)
      : left_(operations), disk_(disk), dice_(seed) {}

  void run() {
    annulet::scope([this](annulet::fiber_group& fibers) {
      for (const kind what : {kind::unix_stream, kind::tcp, kind::pipe}) {
        transfer<by_annulet>(fibers, what);
        transfer<by_drop_ins>(fibers, what);
      }
      fibers.spawn([this] { use_disk(); });
      fibers.spawn([this] { use_disk(); });
      select(fibers);
      poll(fibers);
      connect(fibers);
      fibers.spawn([this] { meet_deadlines(); });
      fibers.spawn([this] { kill(); });
      fibers.spawn([this] { offload(); });
    });
  }

  std::array<std::uint64_t, names.size()> done{};
  std::uint64_t wrong = 0;
  std::uint64_t transfers_cancelled = 0;  // that a call told of
  std::uint64_t watches_refused = 0;      // that a select told of

 private:
  [[nodiscard]] bool goes_on() const noexcept { return left_ > 0; }
  void count(sort what) noexcept {
    ++done[static_cast<std::size_t>(what)];
    left_ -= left_ > 0 ? 1 : 0;
  }
  void require(bool holds) noexcept { wrong += holds ? 0 : 1; }

  template <class By>
  void transfer(annulet::fiber_group& fibers, kind what) {
    ends both = make_ends(what, true);
    if (what == kind::pipe) {
      require_ok(::fcntl(both.mine.get(), F_SETPIPE_SZ, 4096), "F_SETPIPE_SZ");
    } else {
      const int small = 4096;
      require_ok(::setsockopt(both.mine.get(), SOL_SOCKET, SO_SNDBUF, &small, sizeof(small)), "SO_SNDBUF");
    }
    auto* const sent = &sent_.emplace_back();
    fibers.spawn([this, sent, to = std::move(both.mine)] {
      *sent = send_numbered<By>(to.get(), [this] {
        count(sort::transfers);
        return goes_on();
      });
    });
    fibers.spawn([this, sent, from = std::move(both.peer)] {
      const taken_bytes taken = take_numbered<By>(from.get(), [this] { count(sort::transfers); });
      require(taken.wrong_calls == 0 && taken.count == *sent);
    });
  }

  // What is written is what stands there.
  void use_disk() {
    std::array<char, 8000> bytes, expected;
    while (goes_on()) {
      const std::size_t size = 1 + dice_.below(bytes.size());
      const std::size_t place = dice_.below(disk_size - size);
      const auto piece = std::span(bytes).first(size);
      number_bytes(std::span(expected).first(size), place);
      if (dice_.one_in(2)) {
        number_bytes(piece, place);
        again_after(ECANCELED, transfers_cancelled, [&] { annulet::pwrite_all(disk_, piece, place); });
      } else {
        const std::size_t got = again_after(ECANCELED, transfers_cancelled,
                                            [&] { return annulet::pread_exactly(disk_, piece, place); });
        require(got == size && std::ranges::equal(piece, std::span(expected).first(size)));
      }
      count(sort::disk);
    }
  }

  // One fiber has descriptors fire, and another has to be told of each.
  void select(annulet::fiber_group& fibers) {
    for (auto& one : firing_) {
      one.fd = make_eventfd();
    }
    fibers.spawn([this] {
      while (goes_on()) {
        if (auto& one = dice_.pick(firing_); !std::exchange(one.fires, true)) {
          one.since = steady::now();
          add_to_eventfd(one.fd.get());
        }
        pause();
      }
      all_fired_ = true;
      wake_selecting_.set();
    });
    fibers.spawn([this] { take_all_that_fires(); });
  }

  void take_all_that_fires() {
    annulet::selector registered;
    for (firing& one : firing_) {
      registered.register_(one.fd.get(), io_event::read, &one);
    }
    while (!all_fired_ || something_fires_for(0s)) {
      if (all_fired_ || dice_.one_in(8)) {
        (void)wake_selecting_.wait(1us);  // so that some fire beside no select
      }
      const auto limit = all_fired_ ? 1s : 10s;
      const auto begun = steady::now();
      const auto ready = again_after(ENOMEM, watches_refused, [&] { return registered.select(limit); });
      require(!ready.empty() || steady::now() - begun >= limit);
      if (ready.empty() && something_fires_for(limit / 2)) {
        require(false);  // an event was lost, and no other comes
        return;
      }
      for (const auto& [key, events] : ready) {
        auto& one = *std::any_cast<firing*>(key->data);
        eventfd_t value = 0;
        require(::eventfd_read(key->fd, &value) == 0 && value == 1 && std::exchange(one.fires, false));
      }
      count(sort::selects);
    }
  }

  [[nodiscard]] bool something_fires_for(std::chrono::seconds time) const {
    return std::ranges::any_of(
        firing_, [=](const firing& one) { return one.fires && steady::now() - one.since >= time; });
  }

  // A byte goes to and fro between two fibers.
  void poll(annulet::fiber_group& fibers) {
    for (const bool begins : {true, false}) {
      fibers.spawn([this, begins, &mine = begins ? ball_.first : ball_.second] {
        if (begins) {
          send_byte(mine.get());
        }
        for (;;) {
          pollfd asked{mine.get(), POLLIN, 0};
          require(annulet_poll(&asked, 1, 60'000) == 1 && asked.revents != 0);
          count(sort::polls);
          if (try_read(mine.get()) != 1 || !goes_on()) {
            mine.close();  // the other finds the end
            return;
          }
          send_byte(mine.get());
        }
      });
    }
  }

  void connect(annulet::fiber_group& fibers) {
    fibers.spawn([this] {
      char first = 0;
      while (first != 'e') {
        const annulet::descriptor conn = annulet::accept(listener_.socket.get(), patience);
        require(annulet::read(conn, annulet::mutable_buffer(&first, 1), patience) == 1);
      }
    });
    fibers.spawn([this] {
      for (bool last = false; !last;) {
        last = !goes_on();
        const auto conn = annulet::descriptor::adopt(
            require_ok(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), "socket"));
        annulet::connect(conn, annulet::socket_address(loopback(listener_.port)), patience);
        reset_on_close(conn.fileno());
        char byte = last ? 'e' : 'x';
        annulet::write_all(conn, annulet::const_buffer(&byte, 1));
        require(annulet::read(conn, annulet::mutable_buffer(&byte, 1), patience) == 0);
        count(sort::connections);
      }
    });
  }

  void meet_deadlines() {
    annulet::event never;
    while (goes_on()) {
      const std::chrono::microseconds length(dice_.below(500));
      const auto begun = steady::now();
      bool in_time = false;
      switch (dice_.below(3)) {
        case 0:
          in_time = never.wait(annulet::deadline(length));
          break;
        case 1:
          in_time = reads_before(length);
          break;
        default: {
          pollfd asked{silence_.first.get(), POLLIN, 0};
          const timespec limit{0, std::chrono::nanoseconds(length).count()};
          in_time = annulet_ppoll(&asked, 1, &limit, nullptr) != 0;
        }
      }
      require(!in_time && steady::now() - begun >= length);
      count(sort::limits);
    }
  }
  [[nodiscard]] bool reads_before(std::chrono::microseconds length) const {
    char byte = 0;
    try {
      (void)annulet::read(silence_.first.get(), annulet::mutable_buffer(&byte, 1), length);
    } catch (const annulet::deadline_passed&) {
      return false;
    }
    return true;
  }

  void kill() {
    while (goes_on()) {
      bool was_killed = false;
      auto victim = annulet::spawn([this, &was_killed] {
        char byte = 0;
        try {
          (void)annulet::read(silence_.second.get(), annulet::mutable_buffer(&byte, 1));
        } catch (const annulet::fiber_killed&) {
          was_killed = true;
          throw;
        }
      });
      this_fiber::yield();
      pause();
      victim.kill();
      victim.join();
      require(was_killed);
      count(sort::kills);
    }
  }

  void offload() {
    while (goes_on()) {
      const std::uint64_t number = dice_.next();
      require(annulet::offload([number] { return number + 1; }) == number + 1);
      count(sort::offloads);
      pause();
    }
  }

  void pause() {
    if (dice_.one_in(4)) {
      this_fiber::sleep_for(std::chrono::microseconds(dice_.below(100)));
    } else {
      this_fiber::yield();
    }
  }

  std::uint64_t left_;
  int disk_;
  oracle::dice dice_;
  std::list<std::uint64_t> sent_;  // of each stream
  struct firing {
    descriptor fd;
    bool fires = false;
    steady::time_point since{};
  };
  std::array<firing, 16> firing_;
  bool all_fired_ = false;
  annulet::event wake_selecting_;
  socket_pair ball_ = make_socket_pair();
  socket_pair silence_ = make_socket_pair();
  tcp_listener listener_ = make_tcp_listener();
};

// The ring's and the epoll set's, on whichever the hub is.
bool all_faults_came(const faulty_kernel::counts& came, bool on_ring) {
  if (on_ring) {
    return came.enters_refused > 0 && came.polls_ended > 0 && came.polls_cancelled > 0 &&
           came.transfers_short > 0 && came.transfers_cancelled > 0 && came.not_in_memory > 0;
  }
  return came.controls_refused > 0 && came.waits_refused > 0 && came.not_in_memory > 0;
}

void say(const faulty_kernel::counts& came, unsigned every) {
  std::printf(
      "note: one of %u: %llu enters, %llu of epoll_ctl and %llu waits refused; polls: %llu ended, %llu "
      "cancelled; transfers: %llu short, %llu cancelled, %llu not in memory\n",
      every, static_cast<unsigned long long>(came.enters_refused),
      static_cast<unsigned long long>(came.controls_refused),
      static_cast<unsigned long long>(came.waits_refused), static_cast<unsigned long long>(came.polls_ended),
      static_cast<unsigned long long>(came.polls_cancelled),
      static_cast<unsigned long long>(came.transfers_short),
      static_cast<unsigned long long>(came.transfers_cancelled),
      static_cast<unsigned long long>(came.not_in_memory));
}

}  // namespace

TEST_CASE("a kernel that refuses, cuts short and ends early loses nothing") {
  const std::uint64_t operations = oracle::from_environment("ANNULET_FAULT_OPERATIONS", 500'000);
  const std::uint64_t seed = oracle::from_environment("ANNULET_FAULT_SEED", oracle::fresh_seed());
  std::printf("note: seed %llu\n", static_cast<unsigned long long>(seed));
  std::fflush(stdout);  // it may be all that is seen of this
  constexpr std::array refused_every = {2U, 3U, 7U, 50U};
  std::array<std::uint64_t, names.size()> done{};
  const std::size_t descriptors = open_descriptors();
  for (const unsigned every : refused_every) {
    const descriptor disk = make_disk();
    faulty_kernel faults(every, disk.get(), seed);
    bool on_ring = false;
    {
      // On epoll half of them are told of one event at a time.
      const annulet_test::planting narrow(annulet::detail::plant::narrow_events, every % 2);
      const annulet::hub home(annulet::hub_options{.sq_entries = 8, .cq_entries = 16});
      on_ring = home.engine_report().name == "io_uring";
      faults.begin();
      life all(operations / refused_every.size(), disk.get(), seed + every);
      all.run();
      CHECK(all.wrong == 0);
      // Each of which was told was made again, and none was told of that had not come.
      CHECK(all.transfers_cancelled == faults.so_far().transfers_cancelled);
      // A ring's enter is made again, and a set that has no memory for an entry is told of.
      CHECK(all.watches_refused <= (on_ring ? 0 : faults.so_far().short_of_memory));
      std::ranges::transform(done, all.done, done.begin(), std::plus<>());
    }
    say(faults.so_far(), every);
    CHECK(all_faults_came(faults.so_far(), on_ring));
  }
  CHECK(open_descriptors() == descriptors);
  for (std::size_t i = 0; i < names.size(); ++i) {
    std::printf("note: %s: %llu\n", names[i], static_cast<unsigned long long>(done[i]));
    CHECK(done[i] > operations / 5'000);
  }
}

// Where one wake-up in some is lost the streams stop, too: what does not end is seen as well.
TEST_CASE("a lost event is seen") {
  const auto loses_nothing = [] {
    const descriptor disk = make_disk();
    faulty_kernel faults(50, disk.get(), 1);
    const annulet::hub home;
    faults.begin();
    life all(20'000, disk.get(), 1);
    all.run();
    return all.wrong == 0;
  };
  CHECK(annulet_test::in_child(loses_nothing).exit == 0);
  const auto end = annulet_test::in_child(
      [&] {
        const annulet_test::planting lost(annulet::detail::plant::lost_event, 10);
        return loses_nothing();
      },
      5);
  CHECK(end.exit != 0);
}
