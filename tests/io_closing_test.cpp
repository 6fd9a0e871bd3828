// Closing with calls in flight: whoever waits is told EBADF, once, from wherever the file is closed; nothing
// of the old file reaches the number's next owner.
#include <annulet/hub/hub_core.hpp>
#include <annulet/hub/io.hpp>

#include "support/engine.hpp"
#include "support/io_calls.hpp"

#include <doctest/doctest.h>

#include <array>
#include <functional>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include <poll.h>

using namespace annulet::test;
using annulet::fiber;
using annulet::hub;
using annulet::mutable_buffer;
using annulet::spawn;
namespace this_fiber = annulet::this_fiber;

namespace {

std::array<char, 64> room{};

// A file on which reads and writes wait, or only reads: by polls, or carried out by the kernel.
struct waiting_place {
  descriptor file;
  descriptor peer;
  bool by_request = false;
  bool for_accept = false;
};

struct named_place {
  std::string name;
  std::function<waiting_place()> make;
};

const std::vector<named_place>& places() {
  static const std::vector<named_place> all = {
      {"socket",
       []() -> waiting_place {
         auto [first, second] = make_socket_pair();
         return {std::move(first), std::move(second)};
       }},
      {"blocking TCP",
       []() -> waiting_place {
         auto [first, second] = blocking(make_tcp_pair());
         return {std::move(first), std::move(second)};
       }},
      {"blocking pty",
       []() -> waiting_place {
         auto [master, slave] = make_pty();
         return {std::move(slave), std::move(master), true};
       }},
      {"blocking listener",
       []() -> waiting_place {
         auto made = make_tcp_listener();
         const int fd = made.socket.get();
         require_ok(::fcntl(fd, F_SETFL, flags_of(fd) & ~O_NONBLOCK), "fcntl");
         return {std::move(made.socket), descriptor(), true, true};
       }},
      {"non-blocking listener",
       []() -> waiting_place {
         return {make_tcp_listener().socket, descriptor(), false, true};
       }},
  };
  return all;
}

int read_error(annulet::file_ref file, bool for_accept) {
  return failure_of([&]() -> std::size_t {
           if (for_accept) {
             (void)annulet::accept(file, limit);
             return 0;
           }
           return annulet::read(file, room, limit);
         })
      .error;
}

// One with the turn, and two behind him.
std::vector<fiber<int>> three_readers(annulet::file_ref file, bool for_accept) {
  std::vector<fiber<int>> fibers;
  for (int i = 0; i < 3; ++i) {
    fibers.push_back(spawn_parked([file, for_accept] { return read_error(file, for_accept); }));
    REQUIRE_FALSE(fibers.back().done());
  }
  return fibers;
}

void all_told(std::vector<fiber<int>>& fibers) {
  for (auto& f : fibers) {
    REQUIRE(f.join(limit));
    CHECK(f.get() == EBADF);
  }
}

// Nobody has the other side's file any more, the kernel neither.
bool is_hung_up(int peer) {
  pollfd asked{peer, POLLRDHUP, 0};
  return require_ok(::poll(&asked, 1, 0), "poll") == 1 && (asked.revents & (POLLRDHUP | POLLHUP)) != 0;
}

template <class Body>
void in_every_place(Body&& body) {
  for (const named_place& place : places()) {
    for (const bool submitted : {false, true}) {
      CAPTURE(place.name);
      CAPTURE(submitted);
      hub home;
      const std::size_t before = open_descriptors();
      body(place.make(), [submitted] {
        if (submitted) {
          this_fiber::sleep_for(1ms);  // what the calls have asked for, the kernel has
        }
      });
      CHECK(open_descriptors() == before);
    }
  }
}

}  // namespace

TEST_CASE("close wakes all that wait on a plain number, and the number is free") {
  in_every_place([](waiting_place place, const auto& settle) {
    const int number = place.file.get();
    auto readers = three_readers(number, place.for_accept);
    settle();
    annulet::close(place.file.release());
    CHECK_FALSE(is_open(number));
    all_told(readers);
  });
}

TEST_CASE("a descriptor's close wakes all that wait on it") {
  in_every_place([](waiting_place place, const auto& settle) {
    annulet::descriptor file = adopt(std::move(place.file));
    const int number = file.fileno();
    auto readers = three_readers(file, place.for_accept);
    settle();
    file.close();
    CHECK_FALSE(is_open(number));
    all_told(readers);
  });
}

TEST_CASE("a descriptor's destructor wakes all that wait on it, by the number too, and closes once") {
  in_every_place([](waiting_place place, const auto& settle) {
    std::optional<annulet::descriptor> file = adopt(std::move(place.file));
    const int number = file->fileno();
    auto readers = three_readers(number, place.for_accept);
    settle();
    file.reset();
    all_told(readers);
    CHECK_FALSE(is_open(number));
  });
}

TEST_CASE("a destructor in another fiber, one that is killed, does the same") {
  in_every_place([](waiting_place place, const auto& settle) {
    const int number = place.file.get();
    auto owner = spawn_parked([file = adopt(std::move(place.file))] { this_fiber::sleep_for(1h); });
    auto readers = three_readers(number, place.for_accept);
    settle();
    owner.kill();
    owner.join();
    all_told(readers);
    CHECK_FALSE(is_open(number));
  });
}

TEST_CASE("the reader itself closes what others wait for, from between two calls") {
  in_both_forms([](form way) {
    auto [mine, peer] = make_socket_pair();
    subject file(std::move(mine), way);
    auto first = spawn_parked([&] {
      CHECK(annulet::recv(file, room, limit) == 3);
      file.close();
    });
    auto readers = three_readers(file.fileno(), false);
    write_text(peer.get(), "abc");
    first.get();
    all_told(readers);
    CHECK(at_end_of_file(peer.get()));
  });
}

TEST_CASE("release ends the calls of others, and leaves the file open") {
  in_every_place([](waiting_place place, const auto& settle) {
    annulet::descriptor file = adopt(std::move(place.file));
    auto readers = three_readers(file, place.for_accept);
    settle();
    const descriptor kept(file.release());
    CHECK(is_open(kept.get()));
    all_told(readers);
    if (!place.for_accept) {
      send_byte(place.peer.get());
      CHECK(annulet::read(kept.get(), room, limit) == 1);
    }
  });
}

TEST_CASE("writers that are parked are told too, write_all with how much it has written") {
  in_both_forms([](form way) {
    auto [mine, peer] = make_socket_pair();
    const std::size_t taken = fill(mine.get());
    subject file(std::move(mine), way);
    const int number = file.fileno();
    std::size_t done = 99;
    auto all = spawn_parked(
        [&] { return failure_of([&] { return annulet::write_all(file, pattern(9), limit, &done), 0; }); });
    auto one = spawn_parked([&] { return failure_of([&] { return annulet::send(file, "x"sv, limit); }); });
    file.close();
    CHECK(all.get().error == EBADF);
    CHECK(done == 0);
    const failure said = one.get();
    CHECK(said.error == EBADF);
    CHECK(said.names("send", number));
    std::size_t come = 0;
    while (const int got = try_read(peer.get())) {
      REQUIRE(got > 0);
      come += static_cast<std::size_t>(got);
    }
    CHECK(come == taken);
  });
}

TEST_CASE("who waited for a number that was closed and given out anew touches nothing of the new file") {
  in_every_place([](waiting_place place, const auto& settle) {
    const int number = place.file.get();
    auto readers = three_readers(number, place.for_accept);
    settle();
    auto fresh = make_socket_pair();
    annulet::close(place.file.release());
    // At once the number has a new owner, who has data.
    require_ok(::dup2(fresh.first.get(), number), "dup2");
    const descriptor owner(number);
    write_text(fresh.second.get(), "mine");
    auto next = spawn_parked([&] { return read_some(number, limit); });
    CHECK(next.get() == "mine");
    auto parked = spawn_parked([&] { return read_some(number, limit); });
    all_told(readers);
    CHECK_FALSE(parked.done());
    write_text(fresh.second.get(), "too");
    CHECK(parked.get() == "too");
  });
}

TEST_CASE("dup2 onto a number waits for the requests on it, tells all that wait, and lets the old file go") {
  in_every_place([](waiting_place place, const auto& settle) {
    const int number = place.file.get();
    auto readers = three_readers(number, place.for_accept);
    settle();
    const auto* const state = annulet::detail::hub_core::current()->find_state(number);
    REQUIRE(state != nullptr);
    CHECK(state->has_requests() == place.by_request);
    auto fresh = make_socket_pair();
    write_text(fresh.second.get(), "mine");  // at once the number has data, for none of them
    CHECK(annulet::dup2(fresh.first.get(), number) == number);
    CHECK_FALSE(state->has_requests());
    CHECK_FALSE(state->closing());
    CHECK((place.for_accept || is_hung_up(place.peer.get())));
    all_told(readers);
    CHECK_FALSE(state->in_use());
    CHECK(read_some(number, limit) == "mine");
    fresh.first.close();
    CHECK_FALSE(is_hung_up(fresh.second.get()));
  });
}

TEST_CASE(
    "dup2 hands the new file to no call that was begun on the old one, whether a worker has begun or not") {
  for (int round = 0; round < 500; ++round) {
    const hub home;
    auto [master, slave] = make_pty();
    auto [fresh, peer] = blocking(make_socket_pair());
    write_text(peer.get(), "mine");
    const int number = slave.get();
    auto reader = spawn_parked([&] { return read_error(number, false); });
    if (round % 2 == 1) {
      annulet::detail::hub_core::current()->io().flush();  // it is on its way to a worker
    }
    annulet::dup2(fresh.get(), number);
    REQUIRE(reader.get(limit) == EBADF);
    REQUIRE(read_some(number, limit) == "mine");
  }
}

TEST_CASE("dup2 from what is not open changes nothing, also where calls are in flight on its target") {
  in_every_place([](waiting_place place, const auto& settle) {
    const int number = place.file.get();
    auto readers = three_readers(number, place.for_accept);
    settle();
    CHECK(failure_of([&] { return annulet::dup2(unused_number(), number); }).error == EBADF);
    const auto* const state = annulet::detail::hub_core::current()->find_state(number);
    CHECK_FALSE(state->closing());
    this_fiber::yield();  // whoever was told would go on now
    for (auto& reader : readers) {
      CHECK_FALSE(reader.done());
    }
    annulet::close(place.file.release());
    all_told(readers);
  });
}

TEST_CASE("from the first step of a closing the number says EBADF, until it is closed") {
  hub home;
  auto [master, slave] = make_pty();
  std::optional<annulet::descriptor> file = adopt(std::move(slave));
  const int number = file->fileno();
  auto reader = spawn_parked([&] { return read_error(number, false); });
  this_fiber::sleep_for(1ms);
  file.reset();  // the kernel still carries out the read
  CHECK(failure_of([&] { return annulet::read(number, room, limit); }).error == EBADF);
  CHECK(failure_of([&] { return annulet::write(number, "x"sv, limit); }).error == EBADF);
  CHECK(failure_of([&] { return annulet::close(number), 0; }).error == EBADF);
  CHECK(failure_of([&] { return annulet::descriptor::adopt(number); }).error == EBADF);
  CHECK(failure_of([&] { return annulet::dup2(master.get(), number); }).error == EBADF);
  CHECK(reader.get() == EBADF);
  CHECK_FALSE(is_open(number));
}

TEST_CASE("two that close the same number at the same time: one closes, the other says EBADF") {
  hub home;
  auto [master, slave] = make_pty();
  const int number = slave.release();
  auto reader = spawn_parked([&] { return read_error(number, false); });
  this_fiber::sleep_for(1ms);
  std::array<int, 2> said{-1, -1};
  auto first = spawn([&] { said[0] = failure_of([&] { return annulet::close(number), 0; }).error; });
  auto second = spawn([&] { said[1] = failure_of([&] { return annulet::close(number), 0; }).error; });
  first.get();
  second.get();
  CHECK(said == std::array{0, EBADF});
  CHECK(reader.get() == EBADF);
  CHECK_FALSE(is_open(number));
}

TEST_CASE("a close is not interrupted: a kill that comes meanwhile is thrown at the next park") {
  hub home;
  auto [master, slave] = make_pty();
  const int number = slave.release();
  auto reader = spawn_parked([&] { return read_error(number, false); });
  this_fiber::sleep_for(1ms);
  bool closed = false;
  auto closer = spawn([&] {
    annulet::close(number);
    closed = true;
    return is_killed_in([] { return this_fiber::sleep_for(1h), 0; });
  });
  this_fiber::yield();
  closer.kill();
  CHECK(closer.get());
  CHECK(closed);
  CHECK_FALSE(is_open(number));
  CHECK(reader.get() == EBADF);
}

TEST_CASE(
    "a number that is closed behind the hub's back ends the call that hears of it, and the hub goes on") {
  for (const form way : both_forms) {
    for (const bool submitted : {false, true}) {
      hub home;
      auto [mine, peer] = make_socket_pair();
      subject file(std::move(mine), way);
      const int number = file.fileno();
      auto waiting = spawn_parked([&] { return read_error(file, false); });
      if (submitted) {
        this_fiber::sleep_for(1ms);
      }
      // A request in the ring holds the file; for an epoll set it takes a duplicate.
      const descriptor duplicate(on_epoll() ? require_ok(::dup(number), "dup") : -1);
      require_ok(::close(number), "close");
      if (submitted) {
        send_byte(peer.get());  // the kernel holds the old file, and tells of it
      }
      REQUIRE(waiting.join(limit));
      CHECK(waiting.get() == EBADF);
      CHECK(read_error(file, false) == EBADF);
      CHECK(failure_of([&] { return file.close(), 0; }).error == EBADF);
    }
  }
}
