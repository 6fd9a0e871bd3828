#include "support/files.hpp"
#include "support/probe_watch.hpp"

#include <annulet/hub/hub.hpp>
#include <annulet/runtime/fiber.hpp>

#include <doctest/doctest.h>

#include <array>
#include <atomic>
#include <memory>
#include <thread>
#include <vector>

using namespace annulet;
using namespace annulet::test;
using namespace std::chrono_literals;

namespace {

// Each behaviour in each way in which a ring can be set up.
template <class Body>
void in_each_mode(Body&& body) {
  for (const ring_mode mode : all_modes) {
    CAPTURE(static_cast<int>(mode));
    hub hub(options_for(mode));
    body();
  }
}

// Long enough for an event that should not come to come.
constexpr auto a_while = 3ms;

}  // namespace

TEST_CASE("an armed watch is told of each edge, and not again of data that stays unread") {
  in_each_mode([] {
    auto [reader, writer] = make_pipe();
    probe_watch watch(reader.get());
    watch.arm_now(POLLIN);
    this_fiber::sleep_for(a_while);
    CHECK(watch.results.empty());
    for (std::size_t edge = 1; edge <= 20; ++edge) {
      send_byte(writer.get());
      REQUIRE(watch.told(edge));
      REQUIRE(watch.results.size() == edge);
      REQUIRE(watch.results.back() == POLLIN);
    }
    this_fiber::sleep_for(a_while);
    CHECK(watch.results.size() == 20);
  });
}

TEST_CASE("arming checks the level: what was there before is told once") {
  in_each_mode([] {
    auto [reader, writer] = make_pipe();
    send_byte(writer.get());
    probe_watch read_watch(reader.get());
    probe_watch write_watch(writer.get());
    read_watch.want(POLLIN);
    write_watch.want(POLLOUT);
    CHECK(read_watch.told(1));
    CHECK(write_watch.told(1));
    this_fiber::sleep_for(a_while);
    CHECK(read_watch.results == std::vector{POLLIN});
    CHECK(write_watch.results == std::vector{POLLOUT});
  });
}

TEST_CASE("wanting what is armed already changes nothing, and so checks no level") {
  in_each_mode([] {
    auto [reader, writer] = make_pipe();
    send_byte(writer.get());
    probe_watch watch(reader.get());
    watch.arm_now(POLLIN);
    REQUIRE(watch.told(1));
    for (int i = 0; i < 10; ++i) {
      watch.arm_now(POLLIN);
    }
    this_fiber::sleep_for(a_while);
    CHECK(watch.results.size() == 1);
    send_byte(writer.get());
    CHECK(watch.told(2));
  });
}

TEST_CASE("a changed interest checks the level anew, both ways") {
  in_each_mode([] {
    auto [ours, peer] = make_socket_pair();
    send_byte(peer.get());
    probe_watch watch(ours.get());
    watch.want(POLLIN);
    REQUIRE(watch.told_of(POLLIN));
    for (int round = 0; round < 50; ++round) {
      watch.forget();
      watch.want(POLLOUT);
      REQUIRE(watch.told(1));
      REQUIRE(watch.seen == POLLOUT);
      watch.forget();
      watch.want(POLLIN);
      REQUIRE(watch.told(1));
      REQUIRE(watch.seen == POLLIN);
    }
  });
}

TEST_CASE("an interest that changes while an event is on its way takes effect all the same") {
  in_each_mode([] {
    for (int round = 0; round < 500; ++round) {
      auto [ours, peer] = make_socket_pair();
      probe_watch watch(ours.get());
      watch.arm_now(POLLIN);
      send_byte(peer.get());  // the wake-up is under way when the change is handed over
      watch.want(POLLIN | POLLOUT);
      REQUIRE(watch.told_of(POLLOUT));
      REQUIRE(watch.told_of(POLLIN));
    }
  });
}

TEST_CASE("an interest that changes while another thread makes events loses none of them") {
  in_each_mode([] {
    const auto counter = make_eventfd();
    std::atomic<bool> stop{false};
    std::thread writer([&] {
      while (!stop) {
        add_to_eventfd(counter.get());
      }
    });
    {
      probe_watch watch(counter.get());
      for (int round = 0; round < 2'000; ++round) {
        watch.want(round % 2 == 0 ? POLLIN | POLLOUT : POLLIN);
        this_fiber::yield();
        if (round % 3 == 0) {
          take_in();
        }
        if (watch.results.size() > 1'000'000) {
          break;
        }
      }
      watch.want(POLLIN);
      watch.forget();
      CHECK(watch.told(1));
      stop = true;
      writer.join();
      this_fiber::sleep_for(a_while);
      drain(counter.get());
      watch.forget();
      this_fiber::sleep_for(a_while);
      CHECK(watch.results.empty());
      add_to_eventfd(counter.get());
      CHECK(watch.told(1));
    }
  });
}

TEST_CASE("a request that ended is told, and the watch can be armed again") {
  in_each_mode([] {
    auto [reader, writer] = make_pipe();
    const int number = reader.get();
    probe_watch watch(number);
    const descriptor kept(::fcntl(number, F_DUPFD_CLOEXEC, 0));
    reader.close();
    watch.want(POLLIN);
    REQUIRE(watch.told(1));
    CHECK(watch.results == std::vector{-EBADF});
    reader = descriptor(require_ok(::dup2(kept.get(), number), "dup2"));
    watch.forget();
    watch.want(POLLIN);
    send_byte(writer.get());
    CHECK(watch.told(1));
    CHECK(watch.results == std::vector{POLLIN});
  });
}

TEST_CASE("a watch whose owner arms it again from inside the event is told again") {
  in_each_mode([] {
    const int gone = make_eventfd().release();
    probe_watch watch(gone);
    ::close(gone);
    watch.then = [](probe_watch& w) {
      if (w.results.size() < 5) {
        w.want(POLLIN);
      }
    };
    watch.want(POLLIN);
    CHECK(watch.told(5));
    this_fiber::sleep_for(a_while);
    CHECK(watch.results == std::vector<int>(5, -EBADF));
  });
}

TEST_CASE("a cleared interest is told of nothing") {
  in_each_mode([] {
    auto [reader, writer] = make_pipe();
    probe_watch watch(reader.get());
    watch.arm_now(POLLIN);
    watch.want_nothing();
    this_fiber::sleep_for(a_while);
    send_byte(writer.get());
    this_fiber::sleep_for(a_while);
    CHECK(watch.results.empty());
    watch.want(POLLIN);
    CHECK(watch.told(1));
  });
}

TEST_CASE("an interest that comes back before the cancellation is over misses nothing") {
  in_each_mode([] {
    for (int round = 0; round < 400; ++round) {
      auto [reader, writer] = make_pipe();
      probe_watch watch(reader.get());
      watch.arm_now(POLLIN);
      if (round % 4 == 1) {
        send_byte(writer.get());  // before the cancellation
      }
      watch.want_nothing();
      if (round % 2 == 0) {
        this_hub().io().flush();  // cancelled, and its completion not seen yet
      }
      if (round % 4 == 2) {
        send_byte(writer.get());  // between
      }
      watch.want(POLLIN);
      if (round % 4 == 0 || round % 4 == 3) {
        this_hub().io().flush();
        send_byte(writer.get());  // after
      }
      REQUIRE(watch.told(1));
      watch.forget();
      drain(reader.get());
      this_hub().io().flush();
      take_in();
      watch.forget();
      send_byte(writer.get());
      REQUIRE(watch.told(1));
    }
  });
}

TEST_CASE("a watch that was let go can be armed again, and checks the level") {
  in_each_mode([] {
    auto [reader, writer] = make_pipe();
    probe_watch watch(reader.get());
    for (int round = 0; round < 50; ++round) {
      watch.arm_now(POLLIN);
      watch.let_go();
      send_byte(writer.get());
      take_in();
      REQUIRE(watch.results.empty());
      watch.want(POLLIN);
      REQUIRE(watch.told(1));
      watch.let_go();
      drain(reader.get());
      watch.forget();
    }
  });
}

TEST_CASE("two watches on one descriptor are both told, and letting one go leaves the other") {
  in_each_mode([] {
    auto [reader, writer] = make_pipe();
    probe_watch one(reader.get());
    auto other = std::make_unique<probe_watch>(reader.get());
    one.arm_now(POLLIN);
    other->arm_now(POLLIN);
    send_byte(writer.get());
    CHECK(one.told(1));
    CHECK(other->told(1));
    other.reset();
    send_byte(writer.get());
    CHECK(one.told(2));
  });
}

TEST_CASE("a hang-up is told to whoever asked to read, and to whoever asked to write") {
  in_each_mode([] {
    auto [ours, peer] = make_socket_pair();
    probe_watch reading(ours.get());
    probe_watch writing(ours.get());
    reading.arm_now(POLLIN);
    writing.want(POLLOUT);
    REQUIRE(writing.told(1));
    writing.forget();
    peer.close();
    CHECK(reading.told_of(POLLHUP));
    CHECK(writing.told_of(POLLHUP));
  });
}
