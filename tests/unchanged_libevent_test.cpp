// libevent's loop in a fiber, as it comes: each of its back ends waits by what libannulet-posix makes of its
// call, beside a fiber that wants to run, too.

#include "support/beats.hpp"
#include "support/files.hpp"
#include "unchanged/event_loop.hpp"

#include <annulet/hub/hub.hpp>
#include <annulet/runtime/fiber.hpp>
#include <annulet/runtime/this_fiber.hpp>

#include <doctest/doctest.h>
#include <event2/buffer.h>
#include <event2/bufferevent.h>
#include <event2/listener.h>
#include <event2/thread.h>

#include <algorithm>
#include <csignal>
#include <cstring>
#include <thread>

#include <pthread.h>

namespace {

using namespace annulet::test;
using namespace std::chrono_literals;
using annulet::this_fiber::sleep_for;
using steady = std::chrono::steady_clock;
using strings = std::vector<std::string>;

strings& complaints() {
  static strings all;
  return all;
}

// The scene on a loop of each kind, in a fiber beside another.
void on_each_back_end(const std::function<void(event_loop&)>& scene, int flags = 0) {
  complaints().clear();
  event_set_log_callback([](int severity, const char* text) {
    if (severity >= EVENT_LOG_WARN) {
      complaints().emplace_back(text);
    }
  });
  for (const std::string& back_end : back_ends()) {
    CAPTURE(back_end);
    const std::size_t before = open_descriptors();
    {
      const annulet::hub home;
      const beats beside;
      annulet::spawn([&] {
        event_loop loop(back_end, flags);
        scene(loop);
      }).get();
      CHECK(beside.kept_up());
    }
    CHECK(open_descriptors() == before);
    CHECK(complaints() == strings{});
  }
}

std::string all_of(int fd) {
  char text[4096];
  const auto size = ::read(fd, text, sizeof text);
  return size > 0 ? std::string(text, static_cast<std::size_t>(size)) : std::string();
}

void send(int fd, std::string_view text) {
  REQUIRE(::write(fd, text.data(), text.size()) == static_cast<ssize_t>(text.size()));
}

}  // namespace

TEST_CASE("libevent: timers come in order, and none early") {
  on_each_back_end(
      [](event_loop& loop) {
        std::string order;
        const auto start = steady::now();
        const auto add = [&](char name, std::chrono::milliseconds time) {
          loop.after(time, [&order, start, name, time](short what) {
            CHECK(what == EV_TIMEOUT);
            CHECK(steady::now() - start >= time);
            order += name;
          });
        };
        // To a callback it is the same time for as long as it runs.
        loop.after(0ms, [&add](short) {
          add('d', 30ms);
          add('a', 0ms);
          add('c', 20ms);
          add('b', 10ms);
          add('e', 50ms);
        });
        CHECK(loop.run() == 1);  // nothing is left to wait for
        CHECK(order == "abcde");
      },
      EVENT_BASE_FLAG_PRECISE_TIMER);
}

TEST_CASE("libevent: a timer that persists comes until it is deleted") {
  on_each_back_end([](event_loop& loop) {
    int times = 0;
    event* timer = nullptr;
    const auto start = steady::now();
    timer = loop.every(5ms, [&](short) {
      if (++times == 10) {
        event_del(timer);
      }
    });
    CHECK(loop.run() == 1);
    CHECK(times == 10);
    CHECK(steady::now() - start >= 40ms);  // its clock is coarse
  });
}

TEST_CASE("libevent: a read event that persists gets all that another fiber sends, and the end") {
  on_each_back_end([](event_loop& loop) {
    auto [ours, theirs] = make_socket_pair();
    std::string got;
    event* reading = nullptr;
    reading = loop.on(ours.get(), EV_READ | EV_PERSIST, [&](short what) {
      CHECK(what == EV_READ);
      const std::string piece = all_of(ours.get());
      got += piece;
      if (piece.empty()) {
        event_del(reading);
      }
    });
    auto sender = annulet::spawn([&] {
      for (const char letter : std::string("abcdefghij")) {
        sleep_for(2ms);
        send(theirs.get(), {&letter, 1});
      }
      theirs.close();
    });
    CHECK(loop.run() == 1);
    sender.join();
    CHECK(got == "abcdefghij");
  });
}

TEST_CASE("libevent: what is written when there is room arrives as it was") {
  on_each_back_end([](event_loop& loop) {
    auto [from, to] = make_socket_pair();
    std::string sent(1'000'000, '\0');
    for (std::size_t i = 0; i < sent.size(); ++i) {
      sent[i] = static_cast<char>(i % 251);
    }
    std::size_t done = 0;
    std::string got;
    event* writing = nullptr;
    writing = loop.on(from.get(), EV_WRITE | EV_PERSIST, [&](short) {
      const auto part = ::write(from.get(), sent.data() + done, sent.size() - done);
      done += part > 0 ? static_cast<std::size_t>(part) : 0;
      if (done == sent.size()) {
        event_del(writing);
        from.close();
      }
    });
    event* reading = nullptr;
    reading = loop.on(to.get(), EV_READ | EV_PERSIST, [&](short) {
      const std::string piece = all_of(to.get());
      got += piece;
      if (piece.empty()) {
        event_del(reading);
      }
    });
    CHECK(loop.run() == 1);
    CHECK(got == sent);
  });
}

TEST_CASE("libevent: who is deleted in another's callback is not called, and who is added there is") {
  on_each_back_end([](event_loop& loop) {
    auto one = make_socket_pair();
    auto two = make_socket_pair();
    send(one.second.get(), "1");
    send(two.second.get(), "2");
    std::array<event*, 2> both{};
    int called = 0;
    bool added = false;
    const auto first_comes = [&](std::size_t other) {
      return [&, other](short) {
        ++called;
        event_del(both[other]);
        loop.after(1ms, [&](short) { added = true; });
      };
    };
    both[0] = loop.on(one.first.get(), EV_READ, first_comes(1));
    both[1] = loop.on(two.first.get(), EV_READ, first_comes(0));
    CHECK(loop.run() == 1);
    CHECK(called == 1);
    CHECK(added);
  });
}

TEST_CASE("libevent: a read event is told of its time, and of data after that") {
  on_each_back_end([](event_loop& loop) {
    auto [ours, theirs] = make_socket_pair();
    std::vector<short> told;
    event* reading = nullptr;
    reading = loop.on(ours.get(), EV_READ | EV_PERSIST, 20ms, [&](short what) {
      told.push_back(what);
      if (what == EV_TIMEOUT) {
        send(theirs.get(), "x");
      } else {
        event_del(reading);
      }
    });
    CHECK(loop.run() == 1);
    // Twice, where the thread had no core for its 20 ms.
    CHECK(std::ranges::count(told, EV_TIMEOUT) >= 1);
    CHECK(std::ranges::count(told, EV_READ) == 1);
    CHECK(told.back() == EV_READ);
  });
}

TEST_CASE("libevent: what is to come once comes once") {
  on_each_back_end([](event_loop& loop) {
    auto [ours, theirs] = make_socket_pair();
    int times = 0;
    int reads = 0;
    const auto count = [](int, short, void* number) { ++*static_cast<int*>(number); };
    const timeval soon = event_loop::as_timeval(5ms);
    REQUIRE(event_base_once(loop.get(), -1, EV_TIMEOUT, count, &times, &soon) == 0);
    REQUIRE(event_base_once(loop.get(), ours.get(), EV_READ, count, &reads, nullptr) == 0);
    loop.after(10ms, [&theirs = theirs](short) { send(theirs.get(), "x"); });
    CHECK(loop.run() == 1);  // although there is something to read
    CHECK(times == 1);
    CHECK(reads == 1);
  });
}

TEST_CASE("libevent: a break comes after this callback, an exit after its time, and the loop goes on later") {
  on_each_back_end([](event_loop& loop) {
    int called = 0;
    for (int i = 0; i < 2; ++i) {
      event_active(loop.after(1s,
                              [&](short) {
                                ++called;
                                event_base_loopbreak(loop.get());
                              }),
                   EV_READ, 0);
    }
    CHECK(loop.run() == 0);
    CHECK(event_base_got_break(loop.get()) != 0);
    CHECK(called == 1);
    CHECK(loop.run() == 0);
    CHECK(called == 2);

    int beats = 0;
    loop.every(5ms, [&](short) { ++beats; });
    const timeval later = event_loop::as_timeval(52ms);
    const auto start = steady::now();
    REQUIRE(event_base_loopexit(loop.get(), &later) == 0);
    CHECK(loop.run() == 0);
    CHECK(event_base_got_exit(loop.get()) != 0);
    CHECK(steady::now() - start >= 40ms);  // its clock is coarse
    CHECK(beats >= 1);
    CHECK(beats <= 11);
    CHECK(loop.run(EVLOOP_NONBLOCK) == 0);
  });
}

namespace {

// Its loop ends when it has seen all close.
struct echo_server {
  event_base* base;
  int open;

  void one_has_closed() {
    if (--open == 0) {
      event_base_loopexit(base, nullptr);
    }
  }
};

}  // namespace

TEST_CASE("libevent: a server on its listener and buffers echoes to clients that block in fibers") {
  on_each_back_end([](event_loop& loop) {
    constexpr int clients = 20;
    echo_server server{loop.get(), clients};
    sockaddr_in address = loopback(0);
    const auto accepted = [](evconnlistener*, evutil_socket_t fd, sockaddr*, int, void* its_server) {
      const auto echo = [](bufferevent* its, void*) {
        bufferevent_write_buffer(its, bufferevent_get_input(its));
      };
      const auto ended = [](bufferevent* its, short, void* of) {
        bufferevent_free(its);
        static_cast<echo_server*>(of)->one_has_closed();
      };
      auto* const base = static_cast<echo_server*>(its_server)->base;
      auto* const one = bufferevent_socket_new(base, fd, BEV_OPT_CLOSE_ON_FREE);
      bufferevent_setcb(one, echo, nullptr, ended, its_server);
      bufferevent_enable(one, EV_READ | EV_WRITE);
    };
    const std::unique_ptr<evconnlistener, decltype(&evconnlistener_free)> listener(
        evconnlistener_new_bind(loop.get(), accepted, &server, LEV_OPT_CLOSE_ON_FREE, -1,
                                reinterpret_cast<sockaddr*>(&address), sizeof address),
        evconnlistener_free);
    REQUIRE(listener != nullptr);
    socklen_t size = sizeof address;
    REQUIRE(::getsockname(evconnlistener_get_fd(listener.get()), reinterpret_cast<sockaddr*>(&address),
                          &size) == 0);
    int right = 0;
    for (int i = 0; i < clients; ++i) {
      annulet::spawn([&, i] {
        const descriptor mine(require_ok(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), "socket"));
        require_ok(::connect(mine.get(), reinterpret_cast<sockaddr*>(&address), size), "connect");
        const std::string sent(10'000, static_cast<char>('a' + i));
        send(mine.get(), sent);
        std::string got(sent.size(), '\0');
        right += ::recv(mine.get(), got.data(), got.size(), MSG_WAITALL) == 10'000 && got == sent;
      }).detach();
    }
    CHECK(loop.run() == 0);
    CHECK(right == clients);
  });
}

TEST_CASE("libevent: signals come, whoever sends them, and the program's handler is as it was after them") {
  on_each_back_end([](event_loop& loop) {
    int times = 0;
    const pthread_t thread = pthread_self();
    event* signals = nullptr;
    signals = loop.on(SIGUSR1, EV_SIGNAL | EV_PERSIST, [&](short what) {
      CHECK(what == EV_SIGNAL);
      if (++times == 3) {
        event_del(signals);
      }
    });
    // From a callback, from another fiber, and from another thread while this one sleeps.
    loop.after(1ms, [](short) { std::raise(SIGUSR1); });
    auto fiber = annulet::spawn([] {
      sleep_for(20ms);
      std::raise(SIGUSR1);
    });
    std::thread other([&] {
      std::this_thread::sleep_for(40ms);
      pthread_kill(thread, SIGUSR1);
    });
    CHECK(loop.run() == 1);
    other.join();
    fiber.join();
    CHECK(times == 3);
    struct sigaction now {};
    REQUIRE(::sigaction(SIGUSR1, nullptr, &now) == 0);
    CHECK((now.sa_handler == SIG_DFL));
  });
}

TEST_CASE("libevent: a loop that is killed ends with an error, and leaves nothing") {
  for (const std::string& back_end : back_ends()) {
    CAPTURE(back_end);
    complaints().clear();
    const std::size_t before = open_descriptors();
    {
      const annulet::hub home;
      int ended = 0;
      auto killed = annulet::spawn([&] {
        event_loop loop(back_end);
        loop.after(1h, [](short) {});
        ended = loop.run();
      });
      sleep_for(10ms);
      killed.kill();
      killed.join();
      CHECK(ended == -1);
    }
    CHECK(open_descriptors() == before);
    REQUIRE(complaints().size() == 1);
    CHECK(complaints()[0].ends_with(std::strerror(ECANCELED)));
  }
}

// The last one: from here on libevent has locks.
TEST_CASE("libevent: another thread wakes a loop") {
  REQUIRE(evthread_use_pthreads() == 0);
  on_each_back_end([](event_loop& loop) {
    int called = 0;
    event* told = loop.after(1h, [&](short) { ++called; });
    std::thread other([&] {
      std::this_thread::sleep_for(20ms);
      event_active(told, EV_READ, 0);
    });
    CHECK(loop.run(EVLOOP_ONCE) == 0);
    CHECK(called == 1);
    other.join();
  });
}
