// Memory that runs out in calls on descriptors, and in a selector's.
#include "support/allocation_sweep.hpp"
#include "support/files.hpp"
#include "support/two_ends.hpp"

#include <annulet/hub/close.hpp>
#include <annulet/hub/file.hpp>
#include <annulet/hub/hub.hpp>
#include <annulet/hub/io.hpp>
#include <annulet/hub/offload.hpp>
#include <annulet/hub/process.hpp>
#include <annulet/hub/run_on_all_cores.hpp>
#include <annulet/hub/run_process.hpp>
#include <annulet/hub/signal_set.hpp>
#include <annulet/runtime/event.hpp>
#include <annulet/runtime/scope.hpp>
#include <annulet/runtime/this_fiber.hpp>
#include <annulet/runtime/wait_any.hpp>
#include <annulet/selector/selector.hpp>

#include <doctest/doctest.h>

#include <array>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstddef>
#include <exception>
#include <span>
#include <string>
#include <string_view>
#include <system_error>
#include <thread>
#include <vector>

#include <fcntl.h>
#include <sys/socket.h>
#include <unistd.h>

using namespace annulet;
using namespace std::chrono_literals;
using test::make_pipe;
using test::make_socket_pair;
using test::require;
using test::require_ok;
using test::scene;
using test::send_byte;

namespace {

void transfer(test::kind what) {
  auto both = test::make_ends(what, true);
  scope([&](fiber_group& other) {
    other.spawn([&] {
      std::array<char, 16> bytes{};
      require(read(both.peer.get(), bytes, 10s) == 5, "five bytes came");
    });
    this_fiber::yield();
    require(write(both.mine.get(), std::string_view("hello"), 10s) == 5, "five bytes went");
  });
}

void use_a_file() {
  const std::string path = "/tmp/annulet-sweep-" + std::to_string(::getpid());
  const struct remover {
    const std::string& path;
    ~remover() { ::unlink(path.c_str()); }
  } gone{path};
  const descriptor file = annulet::open(path, O_RDWR | O_CREAT | O_TRUNC, 0600);
  pwrite_all(file, std::string_view("hello"), 0);
  std::array<char, 16> bytes{};
  require(pread(file, bytes, 0) == 5 && statx(file).stx_size == 5, "what was written is there");
  fdatasync(file);
  require(statx(path).stx_size == 5, "by its name as well");
}

void connect_and_accept() {
  const auto listener = test::make_tcp_listener();
  scope([&](fiber_group& other) {
    other.spawn([&] { (void)accept(listener.socket.get(), 10s); });
    const test::descriptor socket(require_ok(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), "socket"));
    connect(socket.get(), socket_address(test::loopback(listener.port)), 10s);
    test::reset_on_close(socket.get());
  });
}

void close_while_waited_for() {
  auto both = make_socket_pair();
  bool told = false;
  scope([&](fiber_group& other) {
    other.spawn([&, fd = both.first.get()] {
      std::array<char, 16> bytes{};
      try {
        (void)read(fd, bytes, 10s);
      } catch (const std::system_error& e) {
        told = e.code().value() == EBADF;
        if (!told) {
          throw;
        }
      }
    });
    this_fiber::yield();
    annulet::close(both.first.release());
  });
  require(told, "who waited was told");
}

void wait_for_a_signal() {
  signal_set both{SIGUSR1, SIGUSR2};
  require_ok(::kill(::getpid(), SIGUSR1), "kill");
  require(both.wait(10s).has_value(), "the signal came");
}

// On threads of their own, for this one has a hub.
void run_two_hubs() {
  std::exception_ptr error;
  std::atomic<int> ran = 0;
  std::thread([&] {
    try {
      run_on_all_cores([&](hub&, std::size_t) { ++ran; }, {.count = 2});
    } catch (...) {
      error = std::current_exception();
    }
  }).join();
  if (error) {
    std::rethrow_exception(error);
  }
  require(ran == 2, "both ran");
}

void post_to_a_hub() {
  const auto handle = test::hub_of_scene->handle();
  bool ran = false;
  event here;
  handle.post([&] {
    ran = true;
    here.set();
  });
  require(here.wait(10s) && ran, "it ran");
}

// By descriptors, which keep what they know of a file.
void converse() {
  auto both = make_socket_pair();
  auto mine = descriptor::adopt(both.first.get());
  (void)both.first.release();
  const int peer = both.second.get();
  scope([&](fiber_group& other) {
    other.spawn([&] {
      std::array<char, 8> bytes{};
      require(read_exactly(peer, std::span(bytes).first(5), 10s) == 5, "all of it came");
      require(send(peer, std::string_view("world"), {}, 10s) == 5, "five bytes went");
    });
    std::array<char, 8> bytes{};
    require(!mine.try_recv(bytes), "nothing is there yet");
    mine.write_all(std::string_view("hello"), 10s);
    require(mine.recv(bytes, 10s) == 5, "five bytes came");
  });
  require(::close(mine.release()) == 0, "it was open");
}

void scatter_and_gather() {
  const auto both = make_pipe();
  std::array<char, 4> first{}, second{};
  std::array<char, 5> text = {'h', 'e', 'l', 'l', 'o'};
  const std::array<iovec, 2> into{iovec{first.data(), first.size()}, iovec{second.data(), second.size()}};
  const std::array<iovec, 1> from{iovec{text.data(), text.size()}};
  scope([&](fiber_group& other) {
    other.spawn([&] { require(readv(both.reader.get(), into, 10s) == 5, "five bytes came"); });
    this_fiber::yield();
    require(writev(both.writer.get(), from, 10s) == 5, "five bytes went");
  });
}

void send_datagrams() {
  const auto both = make_socket_pair(SOCK_DGRAM);
  scope([&](fiber_group& other) {
    other.spawn([&] {
      std::array<char, 8> bytes{};
      socket_address sender;
      require(recvfrom(both.first.get(), bytes, sender, {}, 10s) == 5, "five bytes came");
    });
    this_fiber::yield();
    require(send(both.second.get(), std::string_view("hello"), 10s) == 5, "five bytes went");
  });
}

void start_and_end_a_process() {
  process cat({.command = {"cat"}, .input = child_stream::pipe(), .output = child_stream::pipe()});
  cat.input().write_all(std::string_view("hello"), 10s);
  std::array<char, 8> bytes{};
  require(cat.output().read(bytes, 10s) == 5, "it says what it is told");
  require(cat.kill(SIGTERM) && !cat.wait(10s).success(), "it was ended");
}

const std::array of_descriptors = {
    scene{"read, write on a socket", [] { transfer(test::kind::unix_stream); }},
    scene{"read, write on a pipe", [] { transfer(test::kind::pipe); }},
    scene{"read, write on a terminal", [] { transfer(test::kind::pty); }},
    scene{"open, pread, pwrite, statx, fdatasync", use_a_file, true},
    scene{"accept, connect", connect_and_accept},
    scene{"recv, write_all, read_exactly, try_recv, release", converse},
    scene{"readv, writev", scatter_and_gather},
    scene{"recvfrom, send", send_datagrams},
    scene{"process", start_and_end_a_process, true},
    scene{"run_on_all_cores", run_two_hubs, true},
    scene{"close", close_while_waited_for},
    scene{"descriptor",
          [] {
            auto both = make_socket_pair();
            auto mine = descriptor::adopt(both.first.get());
            (void)both.first.release();
            mine.close();
          }},
    scene{"dup2",
          [] {
            auto both = make_socket_pair();
            const auto other = make_pipe();
            annulet::dup2(other.reader.get(), both.first.get());
          }},
    scene{"offload", [] { require(offload([] { return 7; }) == 7, "its result came"); }, true},
    scene{"signal_set", wait_for_a_signal},
    scene{"post", post_to_a_hub},
    scene{"run_process",
          [] {
            const auto done = run_process({.command = {"echo", "hello"}}, {}, 10s);
            require(done.status.success() && done.output == "hello\n", "it said hello");
          },
          true},
};

void register_and_select() {
  selector registered;
  const auto first = make_socket_pair();
  const auto second = make_pipe();
  registered.register_(first.first.get(), io_event::read | io_event::write, std::string(100, 'd'));
  registered.register_(second.reader.get(), io_event::read);
  registered.modify(first.first.get(), io_event::read);
  scope([&](fiber_group& other) {
    other.spawn([&] { send_byte(second.writer.get()); });
    const auto ready = registered.select(10s);
    require(ready.size() == 1 && ready.front().key->fd == second.reader.get(), "the one is ready");
  });
  require(registered.get_map().size() == 2, "both are registered");
  require(registered.get_key(first.first.get())->events == io_event::read, "it was modified");
  registered.unregister_all(std::vector<int>{first.first.get(), second.reader.get()});
  registered.register_(first.first.get(), io_event::write);
  registered.unregister(first.first.get());
  registered.close();
}

const std::array of_selectors = {
    scene{"selector", register_and_select},
    scene{"wait_any with a selector",
          [] {
            selector registered;
            const auto one = make_socket_pair();
            registered.register_(one.first.get(), io_event::read);
            event never;
            send_byte(one.second.get());
            require(wait_any(10s, never, registered) == 1, "it is ready");
          }},
};

}  // namespace

TEST_CASE("calls on descriptors where memory runs out") { test::sweep_through_all(of_descriptors); }
TEST_CASE("a selector where memory runs out") { test::sweep_through_all(of_selectors); }
