// Closing where SO_LINGER has close(2) wait for what is unsent: the fiber waits for all of it, the thread for
// none of it, and what close promises of the peer's view holds here too.
#include <annulet/hub/io.hpp>

#include "support/io_calls.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <string>
#include <utility>

using namespace annulet::test;
using annulet::hub;
using annulet::spawn;
namespace this_fiber = annulet::this_fiber;

namespace {

void set_linger(int fd, int seconds) {
  const linger how{1, seconds};
  require_ok(::setsockopt(fd, SOL_SOCKET, SO_LINGER, &how, sizeof(how)), "SO_LINGER");
}

// More than both sides' buffers hold, which grow.
socket_pair full_tcp_pair() {
  socket_pair pair = make_tcp_pair();
  fill_for_good(pair.first.get(), pair.second.get());
  return pair;
}

struct course {
  steady::duration in_all, longest_stop;
};

// How long body() takes in a fiber, and for how long a ticking one beside it did not run at worst.
template <class Body>
course beside_a_ticker(Body&& body) {
  const auto begin = steady::now();
  auto doing = spawn(std::forward<Body>(body));
  course seen{};
  for (auto last = begin; !doing.done();) {
    this_fiber::sleep_for(1ms);
    const auto now = steady::now();
    seen.longest_stop = std::max(seen.longest_stop, now - std::exchange(last, now));
  }
  doing.get();
  seen.in_all = steady::now() - begin;
  return seen;
}

}  // namespace

TEST_CASE("a close that lingers has waited when it returns, and stopped its fiber alone") {
  const hub home;
  auto [mine, peer] = full_tcp_pair();
  set_linger(mine.get(), 1);
  const auto seen = beside_a_ticker([&] { annulet::close(mine.release()); });
  CHECK(seen.in_all >= 900ms);
  CHECK(seen.longest_stop < 500ms);
}

TEST_CASE("a close that lingers is over when the peer has taken all") {
  const hub home;
  auto [mine, peer] = full_tcp_pair();
  set_linger(mine.get(), 60);
  auto closing = spawn([&] { annulet::close(mine.release()); });
  this_fiber::sleep_for(5ms);
  CHECK_FALSE(closing.done());
  std::string into(1 << 16, ' ');
  while (annulet::recv(peer.get(), into, limit) != 0) {
  }
  CHECK(closing.join(limit));
}

TEST_CASE("dup2 onto a connection that lingers waits as a close of it does") {
  const hub home;
  auto [mine, peer] = full_tcp_pair();
  const auto other = make_eventfd();
  set_linger(mine.get(), 1);
  const auto seen = beside_a_ticker([&] { annulet::dup2(other.get(), mine.get()); });
  CHECK(seen.in_all >= 900ms);
  CHECK(seen.longest_stop < 500ms);
}

TEST_CASE("dup2 from what is not open, onto a connection that lingers, is EBADF and changes nothing") {
  const hub home;
  const auto [mine, peer] = make_tcp_pair();
  set_linger(mine.get(), 5);
  const int lowest = require_ok(::dup(STDERR_FILENO), "dup");  // what the next duplicate gets
  ::close(lowest);
  const failure refused = failure_of([&] { return annulet::dup2(lowest, mine.get()); });
  CHECK(refused.error == EBADF);
  CHECK_FALSE(is_open(lowest));
  CHECK(annulet::write(peer.get(), "x"sv) == 1);
  CHECK(read_some(mine.get(), limit) == "x");
}

TEST_CASE("what could linger and has nothing to wait for is as closed as anything when close returns") {
  const hub home;
  for (int round = 0; round < 1000; ++round) {
    auto [mine, peer] = round % 2 == 0 ? make_tcp_pair() : make_socket_pair();
    set_linger(mine.get(), 2);
    annulet::close(mine.release());
    REQUIRE(try_read(peer.get()) == 0);
    auto listener = make_tcp_listener();
    set_linger(listener.socket.get(), 2);
    annulet::close(listener.socket.release());
    REQUIRE_NOTHROW(make_tcp_listener(listener.port));
  }
}
