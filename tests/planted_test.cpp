// Bugs switched on in the shipped code paths, to show that the tests that look for such bugs see them; and
// refusals of the kernel's, which the selector has to live with.

#include "oracle/run.hpp"
#include "support/engine.hpp"
#include "support/planting.hpp"

#include <annulet/hub/close.hpp>
#include <annulet/hub/hub.hpp>
#include <annulet/runtime/fiber.hpp>
#include <annulet/runtime/this_fiber.hpp>
#include <annulet/selector/selector.hpp>
#include <annulet_plants.hpp>

#include <doctest/doctest.h>

#include <array>
#include <cerrno>
#include <chrono>
#include <iostream>
#include <string>
#include <system_error>

#include <fcntl.h>
#include <sys/socket.h>
#include <unistd.h>

using namespace std::chrono_literals;
using annulet::io_event;
using annulet::detail::plant;
using annulet_test::planting;

namespace {

// Two connected sockets; each is closed here unless the test has done it.
struct pair_of_sockets {
  pair_of_sockets() {
    REQUIRE(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, ends.data()) == 0);
  }
  ~pair_of_sockets() {
    for (const int fd : ends) {
      if (fd >= 0) {
        ::close(fd);
      }
    }
  }
  pair_of_sockets(const pair_of_sockets&) = delete;
  pair_of_sockets& operator=(const pair_of_sockets&) = delete;

  [[nodiscard]] int near() const noexcept { return ends[0]; }
  [[nodiscard]] int far() const noexcept { return ends[1]; }
  void near_is_closed() noexcept { ends[0] = -1; }
  void say(char c) const { REQUIRE(::send(far(), &c, 1, MSG_NOSIGNAL) == 1); }
  void hear() const {
    char c = 0;
    REQUIRE(::recv(near(), &c, 1, 0) == 1);
  }
  // Whether the far end sees the end of the stream at this moment.
  [[nodiscard]] bool far_sees_end() const {
    char c = 0;
    const auto got = ::recv(far(), &c, 1, MSG_DONTWAIT);
    REQUIRE((got == 0 || (got < 0 && errno == EAGAIN)));
    return got == 0;
  }

  std::array<int, 2> ends{};
};

using ready_keys = std::vector<annulet::selector::ready_type>;

bool only(const ready_keys& ready, int fd, io_event events) {
  return ready.size() == 1 && ready[0].key->fd == fd && ready[0].events == events;
}

// Takes operations until the bug shows, at most so many.
std::string caught(std::uint64_t most, oracle::kernel_mood mood = oracle::kernel_mood::willing) {
  const std::uint64_t seed = oracle::from_environment("ANNULET_ORACLE_SEED", oracle::fresh_seed());
  const oracle::verdict result = oracle::run(seed, most, mood);
  std::cout << "note: seed " << seed << ", " << result.counts.operations << " operations, "
            << result.counts.selects << " selects" << std::endl;
  return result.mismatch;
}

bool peer_sees_end_after_unregister_and_close() {
  pair_of_sockets sockets;
  annulet::selector sel;
  sel.register_(sockets.near(), io_event::read);
  (void)sel.select(0ms);  // armed
  sel.unregister(sockets.near());
  ::close(sockets.near());
  sockets.near_is_closed();
  return sockets.far_sees_end();
}

bool peer_sees_end_after_close_through_the_hub() {
  pair_of_sockets sockets;
  annulet::selector sel;
  sel.register_(sockets.near(), io_event::read);
  (void)sel.select(0ms);
  annulet::close(sockets.near());
  sockets.near_is_closed();
  const bool sees = sockets.far_sees_end();
  annulet::this_fiber::sleep_for(1ms);  // by when a cancellation that was only queued has come back
  return sees;
}

}  // namespace

TEST_CASE("without a planted bug the oracle finds nothing") { CHECK(caught(100'000) == ""); }

TEST_CASE("the oracle sees that one event in ten thousand is dropped") {
  const planting drops(plant::lost_event, 10'000);
  const std::string mismatch = caught(12'000'000);
  CHECK(mismatch != "");
  CHECK_MESSAGE(drops.asked() >= 10'000, mismatch);
}

TEST_CASE("the oracle sees that one key in ten thousand is reported without being ready") {
  const planting keeps(plant::stale_candidate, 10'000);
  const std::string mismatch = caught(12'000'000);
  CHECK(mismatch != "");
  CHECK_MESSAGE(keeps.asked() >= 10'000, mismatch);
}

TEST_CASE("a cancellation that is only queued shows at the peer as soon as the close has returned" *
          doctest::skip(annulet::test::skipped_on_epoll("a queued cancellation, as its peers see it"))) {
  annulet::hub hub;
  CHECK(peer_sees_end_after_unregister_and_close());
  CHECK(peer_sees_end_after_close_through_the_hub());
  {
    const planting queues(plant::queued_cancel, 1);
    CHECK_FALSE(peer_sees_end_after_unregister_and_close());
    CHECK_FALSE(peer_sees_end_after_close_through_the_hub());
  }
  CHECK(peer_sees_end_after_unregister_and_close());
  CHECK(peer_sees_end_after_close_through_the_hub());
}

TEST_CASE("the oracle sees a cancellation that is only queued" *
          doctest::skip(annulet::test::skipped_on_epoll("a queued cancellation, as its peers see it"))) {
  const planting queues(plant::queued_cancel, 100);
  CHECK(caught(1'000'000) != "");
}

TEST_CASE("a file that io_uring will not poll is selected level-triggered all the same") {
  annulet::hub hub;
  const pair_of_sockets sockets;
  annulet::selector sel;
  sel.register_(sockets.near(), io_event::read);
  {
    const planting refuses(plant::refused_poll, 1000, 1);  // the file's own; not that of what stands for it
    CHECK(sel.select(0ms).empty());
    CHECK(sel.select(0ms).empty());
    CHECK(refuses.asked() > 1000);
  }
  for (int round = 0; round < 3; ++round) {
    sockets.say('a');
    CHECK(only(sel.select(0ms), sockets.near(), io_event::read));
    CHECK(only(sel.select(annulet::deadline::never()), sockets.near(), io_event::read));
    sockets.hear();
    CHECK(sel.select(0ms).empty());
    auto speaker = annulet::spawn([&] {
      annulet::this_fiber::sleep_for(1ms);
      sockets.say('b');
    });
    CHECK(only(sel.select(10s), sockets.near(), io_event::read));
    sockets.hear();
    CHECK(sel.select(1ms).empty());
    speaker.join();
  }
}

TEST_CASE("a file that io_uring will not poll can be modified") {
  annulet::hub hub;
  const pair_of_sockets sockets;
  annulet::selector sel;
  sel.register_(sockets.near(), io_event::read);
  {
    const planting refuses(plant::refused_poll, 1000, 1);
    CHECK(sel.select(0ms).empty());
    CHECK(sel.select(0ms).empty());
  }
  sel.modify(sockets.near(), io_event::read | io_event::write);
  CHECK(only(sel.select(0ms), sockets.near(), io_event::write));
  sel.modify(sockets.near(), io_event::read);
  CHECK(sel.select(1ms).empty());
  sockets.say('a');
  CHECK(only(sel.select(10s), sockets.near(), io_event::read));
  // While a select is parked, too.
  sockets.hear();
  auto modifier = annulet::spawn([&] {
    annulet::this_fiber::sleep_for(1ms);
    sel.modify(sockets.near(), io_event::write);
  });
  CHECK(only(sel.select(10s), sockets.near(), io_event::write));
  modifier.join();
}

TEST_CASE("a file that io_uring will not poll is let go by unregister and by close") {
  annulet::hub hub;
  for (const bool through_the_hub : {false, true}) {
    pair_of_sockets sockets;
    annulet::selector sel;
    sel.register_(sockets.near(), io_event::read);
    {
      const planting refuses(plant::refused_poll, 1000, 1);
      CHECK(sel.select(0ms).empty());
      CHECK(sel.select(0ms).empty());
    }
    CHECK(sel.select(1ms).empty());
    const int fd = sockets.near();
    if (through_the_hub) {
      annulet::close(fd);
      sockets.near_is_closed();
      CHECK(sockets.far_sees_end());
      CHECK(only(sel.select(10s), fd, io_event::read));
      sel.unregister(fd);
    } else {
      sel.unregister(fd);
      ::close(fd);
      sockets.near_is_closed();
      CHECK(sockets.far_sees_end());
    }
    CHECK(sel.get_map().empty());
  }
}

TEST_CASE(
    "a file that io_uring will not poll, closed behind the back and its number reused, disturbs nobody") {
  annulet::hub hub;
  const pair_of_sockets sockets;
  const pair_of_sockets other;
  annulet::selector sel;
  sel.register_(sockets.near(), io_event::read);
  sel.register_(other.near(), io_event::read);
  {
    const planting refuses(plant::refused_poll, 1000, 1);
    CHECK(sel.select(0ms).empty());
    CHECK(sel.select(0ms).empty());
  }
  const pair_of_sockets newcomer;
  REQUIRE(::dup2(newcomer.near(), sockets.near()) == sockets.near());
  other.say('a');
  SUBCASE("as it is") {}
  SUBCASE("and modified") { sel.modify(sockets.near(), io_event::read | io_event::write); }
  bool told = false;
  for (const auto& [key, events] : sel.select(0ms)) {
    told = told || key->fd == other.near();
  }
  CHECK(told);
  sel.unregister(sockets.near());
  CHECK(only(sel.select(0ms), other.near(), io_event::read));
}

TEST_CASE(
    "a file that io_uring will not poll may become one that epoll will not watch, for it is always ready") {
  annulet::hub hub;
  const pair_of_sockets sockets;
  annulet::selector sel;
  sel.register_(sockets.near(), io_event::read);
  const int directory = ::open("/", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  REQUIRE(::dup2(directory, sockets.near()) == sockets.near());
  ::close(directory);
  const planting refuses(plant::refused_poll, 1000, 1);
  CHECK(only(sel.select(0ms), sockets.near(), io_event::read));
  CHECK(only(sel.select(0ms), sockets.near(), io_event::read));
  sel.unregister(sockets.near());
}

TEST_CASE("a refused poll request keeps none of those behind it from being armed, on any ring") {
  for (const auto mode : {annulet::ring_mode::defer_taskrun, annulet::ring_mode::coop_taskrun,
                          annulet::ring_mode::submit_all, annulet::ring_mode::plain}) {
    annulet::hub_options options;
    options.mode = mode;
    annulet::hub hub(options);
    const std::array<pair_of_sockets, 6> sockets;
    annulet::selector sel;
    for (const auto& pair : sockets) {
      sel.register_(pair.near(), io_event::read);
    }
    {
      const planting refuses(plant::refused_poll, 4, 1);  // the first and the fifth
      CHECK(sel.select(0ms).empty());
    }
    for (const auto& pair : sockets) {
      pair.say('a');
    }
    CHECK(sel.select(0ms).size() == sockets.size());
  }
}

TEST_CASE("the oracle finds nothing where every second poll request is refused") {
  const planting refuses(plant::refused_poll, 2);
  CHECK(caught(100'000, oracle::kernel_mood::refusing) == "");
  CHECK(refuses.asked() >= 10'000);
}

TEST_CASE("a poll request that fails is an error of the next select, which names the descriptor") {
  annulet::hub hub;
  const pair_of_sockets sockets;
  annulet::selector sel;
  sel.register_(sockets.near(), io_event::read);
  {
    const planting refuses(plant::refused_poll, 1);
    const planting fails(plant::failed_poll, 1);
    std::string said;
    int number = 0;
    try {
      (void)sel.select(0ms);
    } catch (const std::system_error& e) {
      said = e.what();
      number = e.code().value();
    }
    CHECK(number == ENOMEM);
    CHECK(said.find("descriptor " + std::to_string(sockets.near())) != std::string::npos);
    // A parked one gets it, too.
    CHECK_THROWS_AS((void)sel.select(10s), std::system_error);
  }
  CHECK(sel.get_map().contains(sockets.near()));
  CHECK(sel.select(0ms).empty());
  sockets.say('a');
  CHECK(only(sel.select(10s), sockets.near(), io_event::read));
}
