// Acts that make every call there is that parks, each with the others that it needs: what a fiber does that
// is killed half-way.
#pragma once

#include "files.hpp"
#include "io_calls.hpp"
#include "texts.hpp"

#include <annulet/hub/close.hpp>
#include <annulet/hub/hub.hpp>
#include <annulet/hub/io.hpp>
#include <annulet/hub/offload.hpp>
#include <annulet/hub/signal_set.hpp>
#include <annulet/runtime/barrier.hpp>
#include <annulet/runtime/cancellation.hpp>
#include <annulet/runtime/channel.hpp>
#include <annulet/runtime/condition_variable.hpp>
#include <annulet/runtime/event.hpp>
#include <annulet/runtime/fiber.hpp>
#include <annulet/runtime/fiber_local.hpp>
#include <annulet/runtime/future.hpp>
#include <annulet/runtime/latch.hpp>
#include <annulet/runtime/mutex.hpp>
#include <annulet/runtime/queue.hpp>
#include <annulet/runtime/recursive_mutex.hpp>
#include <annulet/runtime/scope.hpp>
#include <annulet/runtime/semaphore.hpp>
#include <annulet/runtime/shared_mutex.hpp>
#include <annulet/runtime/this_fiber.hpp>
#include <annulet/runtime/wait_any.hpp>
#include <annulet/selector/selector.hpp>

#include <algorithm>
#include <array>
#include <csignal>
#include <cstdint>
#include <mutex>
#include <shared_mutex>
#include <source_location>
#include <stdexcept>
#include <string>
#include <vector>

#include <pty.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

namespace annulet::test {

// doctest's own would swallow a kill.
inline void must_hold(bool what, std::source_location where = std::source_location::current()) {
  if (!what) {
    throw std::logic_error("line " + std::to_string(where.line()));
  }
}

// The locks that others would miss, and what else outlives the fiber.
struct lasting {
  annulet::mutex plain;
  annulet::recursive_mutex recursive;
  annulet::shared_mutex shared;
  annulet::semaphore permits{2, 2};
  annulet::fiber_local<std::vector<int>> local;

  void require_whole() {
    must_hold(plain.try_lock());
    plain.unlock();
    must_hold(recursive.try_lock());
    recursive.unlock();
    must_hold(shared.try_lock());
    shared.unlock();
    must_hold(permits.available() == 2);
  }
};

inline void pause() { this_fiber::sleep_for(20us); }

inline void time_and_fibers(lasting&) {
  this_fiber::yield();
  pause();
  {
    const annulet::timeout guard(20us);
    try {
      this_fiber::sleep_for(1h);
    } catch (const annulet::timeout_expired& e) {
      must_hold(e.is(guard));
    }
  }
  {
    const annulet::shield up;
    pause();
  }
  auto child = spawn([] {
    pause();
    return 1;
  });
  child.join();
  must_hold(spawn([] { return pause(), 2; }).get() == 2);
}

template <template <class> class Guard, class Mutex>
void lock_after_another(Mutex& mutex) {
  scope([&](fiber_group& others) {
    others.spawn([&] {
      const std::lock_guard theirs(mutex);
      pause();
    });
    this_fiber::yield();
    const Guard<Mutex> mine(mutex);
    pause();
  });
}

inline void locks(lasting& all) {
  all.local->push_back(1);
  lock_after_another<std::lock_guard>(all.plain);
  lock_after_another<std::lock_guard>(all.recursive);
  lock_after_another<std::lock_guard>(all.shared);
  lock_after_another<std::shared_lock>(all.shared);
  scope([&](fiber_group& others) {
    for (int i = 0; i < 2; ++i) {
      others.spawn([&] {
        all.permits.acquire();
        try {
          pause();
        } catch (...) {
          all.permits.release();
          throw;
        }
        all.permits.release();
      });
    }
    this_fiber::yield();
    all.permits.acquire();
    all.permits.release();
  });
  annulet::condition_variable changed;
  bool set = false;
  scope([&](fiber_group& others) {
    std::unique_lock lock(all.plain);
    others.spawn([&] {
      pause();
      const std::lock_guard mine(all.plain);
      set = true;
      changed.notify_all();
      pause();  // the waiter has to wait for the lock, too
    });
    changed.wait(lock, [&] { return set; });
  });
}

inline void signals_between_fibers(lasting&) {
  annulet::event flag;
  annulet::latch gate(1);
  annulet::barrier meeting(2);
  scope([&](fiber_group& others) {
    others.spawn([&] {
      pause();
      flag.set();
      pause();
      gate.count_down();
      meeting.arrive_and_wait();
    });
    flag.wait();
    gate.wait();
    meeting.arrive_and_wait();
  });
  annulet::queue<std::string> items(1);
  annulet::channel<std::string> rendezvous;
  scope([&](fiber_group& others) {
    others.spawn([&] {
      items.push("long enough to be on the heap, one");
      pause();
      items.push("long enough to be on the heap, two");
      rendezvous.push("long enough to be on the heap, three");
      (void)items.pop();
      (void)rendezvous.pop();
    });
    (void)items.pop();
    (void)items.pop();
    (void)rendezvous.pop();
    items.push("long enough to be on the heap, four");
    items.push("long enough to be on the heap, five");
    rendezvous.push("long enough to be on the heap, six");
  });
  annulet::promise<std::string> promised;
  auto result = promised.get_future();
  annulet::popping item(items);
  scope([&](fiber_group& others) {
    (void)items.pop();
    others.spawn([&] {
      pause();
      promised.set_value("long enough to be on the heap, seven");
      pause();
      items.push("long enough to be on the heap, eight");
    });
    must_hold(annulet::wait_any(limit, item, result) == 1u);
    (void)result.get();
    must_hold(annulet::wait_all(limit, flag, result));
    must_hold(annulet::wait_any(limit, item) == 0u);
  });
}

inline void groups(lasting&) {
  fiber_group two(2);
  for (int i = 0; i < 4; ++i) {
    two.spawn(pause);
  }
  two.join();
  two.spawn(pause);
  two.get();
  two.spawn([] { this_fiber::sleep_for(1h); });
  this_fiber::yield();
  two.kill_and_join();
  const std::vector<int> numbers{1, 2, 3};
  const auto doubled = annulet::map_in_fibers(2, numbers, [](int i) {
    pause();
    return std::to_string(2 * i) + ", long enough to be on the heap";
  });
  must_hold(doubled.size() == 3);
}

// Both ends of a stream: what the one has written the other reads.
inline void stream(annulet::descriptor near, annulet::descriptor far, bool is_socket) {
  std::string text(64, 'x');
  std::string room(64, ' ');
  scope([&](fiber_group& others) {
    others.spawn([&] {
      for (int i = 0; i < (is_socket ? 5 : 3); ++i) {
        pause();
        annulet::write_all(far, text);
      }
    });
    std::size_t left = text.size() * (is_socket ? 4 : 2);
    for (std::size_t turn = 0; left != 0; ++turn) {
      annulet::socket_address sender;
      const std::size_t most = std::min(left, room.size());
      switch (is_socket ? turn % 4 : turn % 2) {
        case 0:
          left -= annulet::read(near, annulet::mutable_buffer(room.data(), most));
          break;
        case 1:
          left -= annulet::readv(near, std::array{iovec{room.data(), most}});
          break;
        case 2:
          left -= annulet::recv(near, annulet::mutable_buffer(room.data(), most));
          break;
        default:
          left -= annulet::recvfrom(near, annulet::mutable_buffer(room.data(), most), sender);
      }
    }
    must_hold(annulet::read_exactly(near, room) == room.size());
  });
  // More than there is room for, so that each way to write parks.
  const std::string much(1 << 18, 'y');
  const iovec all{const_cast<char*>(much.data()), much.size()};
  // Of the other fiber, too, which outlives the scope's function where that is killed.
  std::size_t written = 0;
  std::size_t seen = 0;
  annulet::event over;
  scope([&](fiber_group& others) {
    others.spawn([&] {
      std::string taken(1 << 14, ' ');
      pause();
      while (!over.is_set() || seen < written) {
        seen += annulet::read(far, taken);
      }
    });
    annulet::write_all(near, much);
    written += much.size();
    written += annulet::write(near, much);
    written += annulet::writev(near, std::span(&all, 1));
    if (is_socket) {
      written += annulet::send(near, much);
    }
    over.set();
    written += 1;
    annulet::write_all(near, std::string_view("z"));
  });
}

inline void sockets(lasting&) {
  auto pair = make_socket_pair();
  stream(annulet::descriptor::adopt(pair.first.release()), annulet::descriptor::adopt(pair.second.release()),
         true);
}

inline void blocking_sockets(lasting&) {
  auto pair = make_socket_pair();
  require_ok(::fcntl(pair.first.get(), F_SETFL, 0), "fcntl");
  stream(annulet::descriptor::adopt(pair.first.release()), annulet::descriptor::adopt(pair.second.release()),
         true);
}

inline void connections(lasting&) {
  for (const bool blocking : {false, true}) {
    auto made = make_tcp_listener();
    require_ok(::fcntl(made.socket.get(), F_SETFL, blocking ? 0 : O_NONBLOCK), "fcntl");
    const auto listener = annulet::descriptor::adopt(made.socket.release());
    scope([&](fiber_group& others) {
      others.spawn([&, port = made.port] {
        pause();
        const auto mine = annulet::descriptor::adopt(require_ok(
            ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | (blocking ? 0 : SOCK_NONBLOCK), 0), "socket"));
        annulet::connect(mine, annulet::socket_address(loopback(port)));
      });
      const annulet::descriptor theirs = annulet::accept(listener);
    });
    const auto mine = annulet::descriptor::adopt(require_ok(
        ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | (blocking ? 0 : SOCK_NONBLOCK), 0), "socket"));
    annulet::connect(mine, annulet::socket_address(loopback(made.port)));
  }
}

inline void terminals_and_files(lasting&) {
  int ends[2];
  termios raw{};
  ::cfmakeraw(&raw);
  raw.c_cc[VMIN] = 1;
  require_ok(::openpty(&ends[0], &ends[1], nullptr, &raw, nullptr), "openpty");
  const auto master = annulet::descriptor::adopt(ends[0]);
  const auto slave = annulet::descriptor::adopt(ends[1]);
  scope([&](fiber_group& others) {
    others.spawn([&] {
      pause();
      annulet::write_all(master, std::string_view("x"));
    });
    char byte = 0;
    must_hold(annulet::read(slave, {&byte, 1}) == 1);
  });
  const auto file = annulet::descriptor::adopt(require_ok(::memfd_create("file", MFD_CLOEXEC), "memfd"));
  annulet::write_all(file, std::string_view("text"));
  must_hold(::lseek(file.fileno(), 0, SEEK_SET) == 0);
  char text[4];
  must_hold(annulet::read_exactly(file, {text, 4}) == 4);
}

inline void readiness(lasting&) {
  auto pair = make_socket_pair();
  annulet::selector sel;
  annulet::event flag;
  sel.register_(pair.first.get(), io_event::read);
  scope([&](fiber_group& others) {
    others.spawn([&] {
      for (int i = 0; i < 2; ++i) {
        pause();
        send_byte(pair.second.get());
      }
    });
    must_hold(sel.select(limit).size() == 1);
    drain(pair.first.get());
    must_hold(annulet::wait_any(limit, flag, sel) == 1u);
  });
}

inline void signals_and_threads(lasting&) {
  annulet::signal_set signals({SIGUSR1});
  scope([&](fiber_group& others) {
    others.spawn([] {
      pause();
      ::kill(::getpid(), SIGUSR1);
    });
    must_hold(signals.wait(limit).has_value());
  });
  const auto text = annulet::offload([held = std::string("long enough to be on the heap, nine")] {
    ::usleep(20);
    return held + "!";
  });
  must_hold(text.size() == 36);
}

struct act {
  const char* name;
  void (*body)(lasting&);
};
inline constexpr act acts[] = {
    {"time and fibers", time_and_fibers},
    {"locks", locks},
    {"signals between fibers", signals_between_fibers},
    {"groups", groups},
    {"sockets", sockets},
    {"blocking sockets", blocking_sockets},
    {"connections", connections},
    {"terminals and files", terminals_and_files},
    {"readiness", readiness},
    {"signals and threads", signals_and_threads},
};

}  // namespace annulet::test
