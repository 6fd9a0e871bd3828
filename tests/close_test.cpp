#include "support/engine.hpp"
#include "support/files.hpp"
#include "support/probe_watch.hpp"

#include <annulet/hub/close.hpp>
#include <annulet/hub/hub.hpp>
#include <annulet/runtime/fiber.hpp>
#include <annulet/selector/selector.hpp>

#include <doctest/doctest.h>

#include <string>
#include <system_error>
#include <thread>
#include <vector>

using namespace annulet;
using namespace annulet::test;
using namespace std::chrono_literals;

namespace {

template <class Body>
void in_each_mode(Body&& body) {
  for (const ring_mode mode : all_modes) {
    CAPTURE(static_cast<int>(mode));
    hub hub(options_for(mode));
    body();
  }
}

// The errno and the message of a call that fails.
template <class Call>
std::pair<int, std::string> failure(Call&& call) {
  try {
    call();
  } catch (const std::system_error& e) {
    return {e.code().value(), e.what()};
  }
  return {0, {}};
}

bool names(const std::pair<int, std::string>& failed, const std::string& call) {
  return failed.second.find(call) != std::string::npos;
}

// A number that is not open.
int unused_number() {
  auto file = make_eventfd();
  const int number = file.get();
  file.close();
  return number;
}

}  // namespace

TEST_CASE("close closes what nobody watches, with a hub and without one") {
  auto without = make_pipe();
  annulet::close(without.writer.release());
  CHECK(try_read(without.reader.get()) == 0);
  hub hub;
  auto with = make_pipe();
  annulet::close(with.writer.release());
  CHECK(try_read(with.reader.get()) == 0);
}

TEST_CASE("close of what is not open names the call, and says EBADF") {
  const auto check_all = [] {
    const int number = unused_number();
    const auto unused = failure([&] { annulet::close(number); });
    CHECK(unused.first == EBADF);
    CHECK(names(unused, "close(" + std::to_string(number) + ")"));
    const auto negative = failure([] { annulet::close(-1); });
    CHECK(negative.first == EBADF);
    CHECK(names(negative, "close(-1)"));
    CHECK(failure([] { annulet::close(std::numeric_limits<int>::min()); }).first == EBADF);
    CHECK(failure([] { annulet::close(std::numeric_limits<int>::max()); }).first == EBADF);
  };
  check_all();
  hub hub;
  check_all();
}

TEST_CASE("a descriptor that two selectors watch is reported closed by both, to a parked one at once") {
  in_each_mode([] {
    auto pipe = make_pipe();
    const int number = pipe.reader.get();
    selector parked, other;
    parked.register_(number, io_event::read);
    other.register_(number, io_event::read | io_event::write);
    auto waiting = spawn([&] { return parked.select(patience); });
    this_fiber::sleep_for(1ms);
    REQUIRE_FALSE(waiting.done());
    annulet::close(pipe.reader.release());
    const auto first = waiting.get();
    REQUIRE(first.size() == 1);
    CHECK(first[0].key->fd == number);
    CHECK(first[0].events == io_event::read);
    // The number has a new owner, of whom they do not hear.
    const auto fresh = make_pipe();
    for (int look = 0; look < 3; ++look) {
      const auto ready = other.select(0ms);
      REQUIRE(ready.size() == 1);
      CHECK(ready[0].events == (io_event::read | io_event::write));
      REQUIRE(parked.select(0ms).size() == 1);
    }
    parked.unregister(number);
    other.unregister(number);
    CHECK(parked.select(0ms).empty());
    CHECK(other.select(0ms).empty());
  });
}

TEST_CASE("each watch on a number is told of its closing once, and of nothing after it") {
  in_each_mode([] {
    auto old = make_socket_pair();
    const int number = old.first.get();
    probe_watch armed(number), idle(number);
    armed.arm_now(POLLIN);
    send_byte(old.second.get());  // on its way
    annulet::close(old.first.release());
    CHECK(armed.closes == 1);
    CHECK(idle.closes == 1);
    const auto told_before = armed.results.size();
    auto fresh = make_socket_pair();
    require_ok(::dup2(fresh.first.get(), number), "dup2");
    const descriptor owner(number);
    send_byte(fresh.second.get());
    take_in();
    this_fiber::sleep_for(1ms);
    CHECK(armed.results.size() == told_before);
    CHECK(idle.results.empty());
    annulet::close(::dup(number));  // another number
    CHECK(armed.closes == 1);
    // The number's new owner can be watched and closed, and the old watches stay as they are.
    probe_watch third(number);
    third.want(POLLIN);
    CHECK(third.told(1));
  });
}

TEST_CASE("a second close of the same number says EBADF, and tells nobody again") {
  hub hub;
  auto pipe = make_pipe();
  const int number = pipe.reader.get();
  probe_watch watch(number);
  watch.arm_now(POLLIN);
  annulet::close(pipe.reader.release());
  CHECK(failure([&] { annulet::close(number); }).first == EBADF);
  CHECK(watch.closes == 1);
}

TEST_CASE(
    "a watched descriptor that was closed behind the hub's back: close says EBADF, and nobody is told") {
  in_each_mode([] {
    auto pair = make_socket_pair();
    const int number = pair.first.get();
    probe_watch watch(number);
    watch.arm_now(POLLIN);
    pair.first.close();
    CHECK(failure([&] { annulet::close(number); }).first == EBADF);
    CHECK(watch.closes == 0);
    // A request in the ring still holds the file; an entry of an epoll set does not.
    CHECK(try_read(pair.second.get()) == (on_epoll() ? 0 : -EAGAIN));
    watch.let_go();
    CHECK(try_read(pair.second.get()) == 0);
  });
}

TEST_CASE("dup2 tells whoever watched the target, and gives the number the source's file") {
  in_each_mode([] {
    auto old = make_socket_pair();
    auto fresh = make_pipe();
    const int target = old.first.get();
    probe_watch watch(target), of_the_source(fresh.reader.get());
    watch.arm_now(POLLIN);
    of_the_source.arm_now(POLLIN);
    CHECK(annulet::dup2(fresh.reader.get(), target) == target);
    CHECK(watch.closes == 1);
    CHECK(of_the_source.closes == 0);
    CHECK(try_read(old.second.get()) == 0);
    send_byte(fresh.writer.get());
    CHECK(of_the_source.told(1));
    CHECK(watch.results.empty());
    CHECK(try_read(target) == 1);
    CHECK((::fcntl(target, F_GETFD) & FD_CLOEXEC) == 0);  // as dup2(2)
  });
}

TEST_CASE("dup2 onto a number that is not open, or not watched, is dup2(2), with a hub and without one") {
  const auto check_both = [] {
    auto pipe = make_pipe();
    const int number = unused_number();
    CHECK(annulet::dup2(pipe.writer.get(), number) == number);
    descriptor copy(number);
    CHECK(annulet::dup2(pipe.reader.get(), number) == number);
    send_byte(pipe.writer.get());
    CHECK(try_read(copy.get()) == 1);
  };
  check_both();
  hub hub;
  check_both();
}

TEST_CASE("dup2 of a number onto itself changes nothing") {
  hub hub;
  auto pipe = make_pipe();
  probe_watch watch(pipe.reader.get());
  watch.arm_now(POLLIN);
  const int flags = ::fcntl(pipe.reader.get(), F_GETFD);
  CHECK(annulet::dup2(pipe.reader.get(), pipe.reader.get()) == pipe.reader.get());
  CHECK(::fcntl(pipe.reader.get(), F_GETFD) == flags);
  CHECK(watch.closes == 0);
  send_byte(pipe.writer.get());
  CHECK(watch.told(1));
  const int number = unused_number();
  CHECK(failure([&] { annulet::dup2(number, number); }).first == EBADF);
}

TEST_CASE("a dup2 that fails names the call and changes nothing") {
  in_each_mode([] {
    auto pair = make_socket_pair();
    const int target = pair.first.get();
    probe_watch watch(target);
    watch.arm_now(POLLIN);
    const int number = unused_number();
    const auto from_unused = failure([&] { annulet::dup2(number, target); });
    CHECK(from_unused.first == EBADF);
    CHECK(names(from_unused, "dup2(" + std::to_string(number) + ", " + std::to_string(target) + ")"));
    CHECK(failure([&] { annulet::dup2(-1, target); }).first == EBADF);
    CHECK(failure([&] { annulet::dup2(target, -1); }).first == EBADF);
    CHECK(failure([&] { annulet::dup2(target, std::numeric_limits<int>::max()); }).first == EBADF);
    CHECK(watch.closes == 0);
    CHECK(try_read(pair.second.get()) == -EAGAIN);
    send_byte(pair.second.get());
    CHECK(watch.told(1));
  });
}

TEST_CASE("on a thread without a hub close and dup2 leave other threads' watches alone") {
  hub hub;
  auto pair = make_socket_pair();
  probe_watch watch(pair.first.get());
  watch.arm_now(POLLIN);
  std::thread([&] { annulet::close(pair.first.release()); }).join();
  CHECK(watch.closes == 0);
  CHECK(try_read(pair.second.get()) == (on_epoll() ? 0 : -EAGAIN));
  watch.detach();
  CHECK(try_read(pair.second.get()) == 0);
}
