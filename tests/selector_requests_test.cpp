// A key of a selector behind many requests that have nothing to do with it. The kernel tells of some 20
// things a call, in order, and a select that looks once has to come to the end of them.
#include "support/files.hpp"
#include "support/selecting.hpp"
#include "support/texts.hpp"

#include <annulet/hub/descriptor.hpp>
#include <annulet/hub/hub.hpp>
#include <annulet/hub/io.hpp>
#include <annulet/runtime/fiber.hpp>
#include <annulet/runtime/this_fiber.hpp>
#include <annulet/selector/selector.hpp>

#include <doctest/doctest.h>

#include <chrono>
#include <cstddef>
#include <vector>

#include <fcntl.h>
#include <netinet/in.h>
#include <sys/socket.h>

using namespace std::chrono_literals;
using namespace annulet::test;
using annulet::hub;
using annulet::io_event;
using annulet::selector;

namespace {

// Fibers that accept from blocking sockets: on a ring each is a request, and none of a watch.
class crowd_that_accepts {
 public:
  explicit crowd_that_accepts(std::size_t count) {
    for (std::size_t i = 0; i < count; ++i) {
      listeners_.push_back(make_tcp_listener());
      const int fd = listeners_.back().socket.get();
      require_ok(::fcntl(fd, F_SETFL, 0), "fcntl");
      fibers_.push_back(annulet::spawn([fd, this] {
        const annulet::descriptor its = annulet::accept(fd);
        ++accepted;
      }));
    }
    annulet::this_fiber::sleep_for(1ms);  // the wait hands them over
  }
  // Ends those that are left.
  ~crowd_that_accepts() {
    for (auto& fiber : fibers_) {
      fiber.kill();
      fiber.join();
    }
  }
  crowd_that_accepts(const crowd_that_accepts&) = delete;
  crowd_that_accepts& operator=(const crowd_that_accepts&) = delete;

  void connect() {
    for (const tcp_listener& one : listeners_) {
      clients_.emplace_back(require_ok(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), "socket"));
      const sockaddr_in address = loopback(one.port);
      require_ok(
          ::connect(clients_.back().get(), reinterpret_cast<const sockaddr*>(&address), sizeof(address)),
          "connect");
    }
  }
  // As another process would that has the same sockets. Returns how many there were to take: a ring that is
  // not asked to defer its work has accepted by now.
  std::size_t take_away() {
    std::size_t taken = 0;
    for (const tcp_listener& one : listeners_) {
      require_ok(::fcntl(one.socket.get(), F_SETFL, O_NONBLOCK), "fcntl");
      const int its = ::accept4(one.socket.get(), nullptr, nullptr, SOCK_CLOEXEC);
      if (its >= 0) {
        clients_.emplace_back(its);
        ++taken;
      }
    }
    return taken;
  }

  std::size_t accepted = 0;

 private:
  std::vector<tcp_listener> listeners_;
  std::vector<descriptor> clients_;
  std::vector<annulet::fiber<void>> fibers_;
};

}  // namespace

TEST_CASE("a select of one key finds its event behind those of any number of other calls") {
  bool others_are_first = false;
  SUBCASE("which have something to tell") {}
  SUBCASE("which are woken and find nothing") { others_are_first = true; }
  for (const std::size_t count : {std::size_t{10}, std::size_t{25}, std::size_t{60}, std::size_t{200}}) {
    CAPTURE(count);
    hub home;
    selector sel;
    const socket_pair pair = make_socket_pair();
    sel.register_(pair.first.get(), io_event::read);
    crowd_that_accepts crowd(count);
    REQUIRE(look(sel).empty());
    crowd.connect();
    const std::size_t taken = others_are_first ? crowd.take_away() : 0;
    write_text(pair.second.get(), "x");
    CHECK(look(sel) == event_map{{pair.first.get(), io_event::read}});
    const auto until = steady::now() + limit;
    while (crowd.accepted < count - taken && steady::now() < until) {
      annulet::this_fiber::sleep_for(1ms);
    }
    CHECK(crowd.accepted == count - taken);
  }
}
