// Whether a hub does what hubs are for, on whichever engine: for tests of how the engine was chosen.
#pragma once

#include "files.hpp"

#include <annulet/hub/hub.hpp>
#include <annulet/hub/io.hpp>
#include <annulet/runtime/event.hpp>
#include <annulet/runtime/fiber.hpp>
#include <annulet/selector/selector.hpp>

#include <array>
#include <chrono>
#include <cstdio>
#include <string>
#include <system_error>
#include <thread>

namespace annulet::test {

// Prints the first part that does not work to stderr. Each is given ten seconds.
inline bool everything_works(hub& home) {
  using namespace std::chrono_literals;
  using steady = std::chrono::steady_clock;
  const deadline limit = 10s;
  const auto fails = [](const char* part) {
    std::fprintf(stderr, "%s: does not work\n", part);
    return false;
  };

  const auto begin = steady::now();
  this_fiber::sleep_for(2ms);
  if (steady::now() - begin < 2ms) {
    return fails("a timer");
  }

  const pipe_pair pipe = make_pipe(O_CLOEXEC);  // blocking
  std::array<char, 8> bytes{};
  auto reader = spawn([&] { return annulet::read(pipe.reader.get(), bytes, limit); });
  auto writer = spawn([&] {
    this_fiber::sleep_for(1ms);
    annulet::write_all(pipe.writer.get(), std::string("hello"), limit);
  });
  writer.get();
  if (reader.get() != 5 || std::string(bytes.data(), 5) != "hello") {
    return fails("a read of a pipe");
  }

  event posted;
  std::thread other([&posted, handle = home.handle()] {
    std::this_thread::sleep_for(1ms);
    handle.post([&posted] { posted.set(); });
  });
  const bool came = posted.wait(limit);
  other.join();
  if (!came) {
    return fails("a post of another thread");
  }

  const socket_pair pair = make_socket_pair();
  selector sel;
  sel.register_(pair.first.get(), io_event::read);
  auto sender = spawn([&] {
    this_fiber::sleep_for(1ms);
    send_byte(pair.second.get());
  });
  const auto ready = sel.select(limit);
  sender.join();
  if (ready.size() != 1 || ready[0].key->fd != pair.first.get() || ready[0].events != io_event::read) {
    return fails("a select");
  }
  if (sel.select(0s).size() != 1 || !drain(pair.first.get()) || !sel.select(0s).empty()) {
    return fails("a look at a level");
  }
  return true;
}

// Where not it says that the test case is skipped, as ./dev test counts it.
inline bool has_io_uring() {
  hub_options options;
  options.engine = engine_choice::uring;
  try {
    hub home(options);
    return true;
  } catch (const std::system_error& e) {
    std::printf("note: skipped: %s\n", e.what());
    return false;
  }
}

}  // namespace annulet::test
