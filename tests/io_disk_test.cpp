// Files on disks, at their own position, and what only seems to be one.
#include <annulet/hub/io.hpp>

#include "support/blocking_files.hpp"
#include "support/held_memory.hpp"
#include "support/io_calls.hpp"

#include <doctest/doctest.h>

#include <array>
#include <cstdio>
#include <string>
#include <thread>
#include <vector>

#include <fcntl.h>
#include <sys/stat.h>

using namespace annulet::test;
using annulet::hub;
using annulet::spawn;
namespace this_fiber = annulet::this_fiber;

namespace {

constexpr std::size_t rounds = 3000;
constexpr std::size_t line_length = 100;

std::size_t size_of(int fd) {
  struct stat about {};
  require_ok(::fstat(fd, &about), "fstat");
  return static_cast<std::size_t>(about.st_size);
}

void write_lines(int fd, char letter) {
  const std::string line(line_length, letter);
  for (std::size_t i = 0; i < rounds; ++i) {
    annulet::write_all(fd, line);
  }
}

}  // namespace

TEST_CASE("two threads' hubs write to one file, and neither overwrites the other") {
  const auto file = make_file();
  const auto writer = [&](char letter) {
    const hub home;
    write_lines(file.get(), letter);
  };
  std::thread first(writer, 'a');
  std::thread second(writer, 'b');
  first.join();
  second.join();
  CHECK(size_of(file.get()) == 2 * rounds * line_length);
}

TEST_CASE("a fiber writes to a file and another prints to it, and neither overwrites the other") {
  const hub home;
  const auto file = make_file();
  auto first = spawn(&write_lines, file.get(), 'a');
  auto second = spawn([&] {
    const std::string line(line_length, 'b');
    for (std::size_t i = 0; i < rounds; ++i) {
      require_ok(static_cast<int>(::write(file.get(), line.data(), line.size())), "write");
      this_fiber::yield();
    }
  });
  first.get();
  second.get();
  CHECK(size_of(file.get()) == 2 * rounds * line_length);
}

namespace {

descriptor open_trace(int flags) {
  constexpr const char* path = "/sys/kernel/tracing/trace_pipe";
  descriptor trace(::open(path, O_RDONLY | O_CLOEXEC | flags));
  if (trace.get() < 0) {
    std::printf("note: skipped: %s cannot be opened here\n", path);
  }
  return trace;
}

}  // namespace

// It is a regular file, as stat(2) says, and a read of it waits until somebody traces something.
TEST_CASE("a deadline and a kill end a read of a regular file behind which somebody has to act") {
  const descriptor trace = open_trace(0);
  if (trace.get() < 0) {
    return;
  }
  const hub home;
  std::array<char, 4096> room;
  const auto read_on = [&](annulet::deadline until) {
    for (;;) {
      (void)annulet::read(trace.get(), room, until);  // what others trace meanwhile
    }
  };
  CHECK(passes_deadline([&] { read_on(50ms); }));
  auto reader = spawn_parked([&] { read_on(annulet::deadline::never()); });
  this_fiber::sleep_for(10ms);
  reader.kill();
  CHECK(reader.join(limit));
}

TEST_CASE("a try ends where such a file has nothing, whether or not it says so itself") {
  for (const int flags : {0, O_NONBLOCK}) {
    const descriptor trace = open_trace(flags);
    if (trace.get() < 0) {
      return;
    }
    const hub home;
    std::array<char, 4096> room;
    auto reader = spawn([&] {
      while (annulet::try_read(trace.get(), room)) {  // what others trace meanwhile
      }
    });
    CHECK(reader.join(limit));
    CHECK(passes_deadline([&] {
      for (;;) {
        (void)annulet::read(trace.get(), room, 20ms);
      }
    }));
  }
}

namespace {

// A file whose reads are always made by a thread.
descriptor open_status() {
  return descriptor(require_ok(::open("/proc/self/status", O_RDONLY | O_CLOEXEC), "open"));
}

// The fibers that read into the memory end, and so do the threads.
template <class Fibers>
void let_end(const held_memory& memory, Fibers& readers) {
  memory.give();
  for (auto& reader : readers) {
    REQUIRE(reader.join(limit));
    CHECK(reader.get() == memory.buffer().size());
  }
}

}  // namespace

TEST_CASE("while a disk transfer is under way, others of the same open file do not stop the thread") {
  const held_memory memory;
  if (!memory) {
    return;
  }
  const hub home;
  const descriptor file = open_status();
  const descriptor duplicate(require_ok(::dup(file.get()), "dup"));
  std::array readers{spawn_parked([&] { return annulet::read(file.get(), memory.buffer()); })};
  this_fiber::sleep_for(50ms);  // its thread has the position's lock by then
  std::thread giver([&] {
    std::this_thread::sleep_for(1s);
    memory.give();
  });
  const ticker clock;
  auto writer = spawn([&] { return failure_of([&] { return annulet::write(file.get(), "x"sv); }).error; });
  auto reader = spawn([&] { return read_some(duplicate.get()).size(); });
  CHECK(writer.get() == EBADF);
  CHECK(reader.get() > 0);
  CHECK(clock.longest() < 500ms);
  giver.join();
  let_end(memory, readers);
}

TEST_CASE("disk transfers that do not end hold up no others, not even those whose deadline is in the past") {
  const held_memory memory;
  if (!memory) {
    return;
  }
  const hub home;
  const descriptor file = open_status();
  std::array<descriptor, 6> files;
  std::vector<annulet::fiber<std::size_t>> readers;
  for (descriptor& each : files) {
    each = open_status();
    readers.push_back(spawn_parked([&] { return annulet::read(each.get(), memory.buffer()); }));
  }
  std::array<char, 64> room;
  CHECK(annulet::try_read(file.get(), room).value_or(0) == room.size());
  CHECK(annulet::read(file.get(), room, limit) == room.size());
  let_end(memory, readers);
}
