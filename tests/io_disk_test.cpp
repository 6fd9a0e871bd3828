// Files on disks, at their own position, and what only seems to be one.
#include <annulet/hub/io.hpp>

#include "support/blocking_files.hpp"
#include "support/child.hpp"
#include "support/held_memory.hpp"
#include "support/io_calls.hpp"
#include "support/refused_calls.hpp"

#include <doctest/doctest.h>

#include <array>
#include <atomic>
#include <cerrno>
#include <cstdio>
#include <fstream>
#include <string>
#include <thread>
#include <vector>

#include <fcntl.h>
#include <sys/mman.h>
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

// Where somebody has switched tracing off, its reads do not wait: they end, again and again.
descriptor open_trace(int flags) {
  constexpr const char* path = "/sys/kernel/tracing/trace_pipe";
  int on = 0;
  if (std::ifstream("/sys/kernel/tracing/tracing_on") >> on && on == 0) {
    std::printf("note: skipped: tracing is off, so %s holds nobody up\n", path);
    return {};
  }
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
  memory.await_access();  // its thread has the position's lock then
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

TEST_CASE("who wants the open file that a disk transfer is under way by can stop waiting for it") {
  in_both_forms([](form way) {
    const held_memory memory;
    if (!memory) {
      return;
    }
    const descriptor file = open_status();
    const subject duplicate(descriptor(require_ok(::dup(file.get()), "dup")), way);
    subject closed(descriptor(require_ok(::dup(file.get()), "dup")), way);
    std::array<char, 64> room;
    std::array readers{spawn_parked([&] { return annulet::read(file.get(), memory.buffer()); })};
    memory.await_access();  // its thread has the position's lock then
    const auto begin = steady::now();
    CHECK_FALSE(annulet::try_read(duplicate, room));
    CHECK(passes_deadline([&] { (void)annulet::read(duplicate, room, 0s); }));
    CHECK(passes_deadline([&] { (void)annulet::write(file.get(), "x"sv, 20ms); }));
    CHECK(passes_deadline([&] { (void)annulet::read(duplicate, room, 200ms); }));
    CHECK(steady::now() - begin >= 200ms);
    auto killed = spawn_parked([&] { (void)annulet::read(duplicate, room); });
    killed.kill();
    CHECK(killed.join(limit));
    auto told = spawn_parked([&] { return failure_of([&] { return annulet::read(closed, room); }).error; });
    closed.close();
    CHECK(told.join(limit));
    CHECK(told.get() == EBADF);
    CHECK_FALSE(readers[0].done());
    CHECK(steady::now() - begin < 5s);
    // Who goes on waiting has his turn, and what the other had is not his.
    auto patient = spawn_parked([&] { return annulet::read(duplicate, room); });
    let_end(memory, readers);
    CHECK(patient.join(limit));
    CHECK(patient.get() == room.size());
  });
}

TEST_CASE("who makes transfer after transfer does not keep others from the open file") {
  const hub home;
  const descriptor file = open_status();  // always by a thread
  const descriptor duplicate(require_ok(::dup(file.get()), "dup"));
  std::size_t rounds_of_others = 0;
  std::array<char, 1> byte{};
  auto greedy = spawn_parked([&] {
    for (;;) {
      (void)annulet::read(file.get(), byte);
      ++rounds_of_others;
    }
  });
  for (int i = 0; i < 20; ++i) {
    (void)annulet::read(duplicate.get(), byte, limit);
  }
  CHECK(rounds_of_others >= 10);
  CHECK(rounds_of_others < 200);
  greedy.kill();
  CHECK(greedy.join(limit));
}

namespace {

// Whether its first page is in memory.
bool is_cached(int fd) {
  void* const page = ::mmap(nullptr, 1, PROT_READ, MAP_SHARED, fd, 0);
  REQUIRE(page != MAP_FAILED);
  unsigned char there = 0;
  require_ok(::mincore(page, 1, &there), "mincore");
  ::munmap(page, 1);
  return (there & 1U) != 0;
}

}  // namespace

TEST_CASE("transfers by another open file of the same inode are tried while a thread's is under way") {
  const held_memory memory;
  const descriptor file = make_file(std::string(4096, 'x'));
  require_ok(::fsync(file.get()), "fsync");
  (void)::posix_fadvise(file.get(), 0, 0, POSIX_FADV_DONTNEED);
  if (!memory || is_cached(file.get())) {
    std::printf("note: skipped: no file here that a try does not find in memory\n");
    return;
  }
  const auto path = "/proc/self/fd/" + std::to_string(file.get());
  const descriptor other(require_ok(::open(path.c_str(), O_RDONLY | O_CLOEXEC), "open"));
  const hub home;
  // The reader's own try has the page read in, and finds it where the disk is quick enough: then this thread
  // waits for the memory.
  std::atomic<bool> has_parked{false};
  std::thread rescuer([&] {
    for (int i = 0; i < 200 && !has_parked; ++i) {
      std::this_thread::sleep_for(10ms);
    }
    if (!has_parked) {
      memory.give();
    }
  });
  std::array readers{spawn([&] { return annulet::read(file.get(), memory.buffer()); })};
  this_fiber::yield();
  has_parked = true;
  rescuer.join();
  if (readers[0].done()) {
    std::printf("note: skipped: the disk was quicker than a try\n");
    return;
  }
  memory.await_access();
  REQUIRE(is_cached(file.get()));  // and the thread waits for the memory
  CHECK_FALSE(readers[0].done());
  bool others_ran = false;
  auto beside = spawn([&] { others_ran = true; });
  std::array<char, 64> room;
  for (int i = 0; i < 8; ++i) {
    CHECK(annulet::try_read(other.get(), room) == room.size());
  }
  CHECK_FALSE(others_ran);  // no call has parked
  beside.join();
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

TEST_CASE("a call that goes on long after it was called off is told of on stderr, with its thread") {
  if (!held_memory()) {
    return;
  }
  const auto end = annulet_test::in_child([] {
    const held_memory memory;
    const hub home;
    const descriptor file = open_status();
    auto reader = spawn_parked([&] { return annulet::read(file.get(), memory.buffer()); });
    memory.await_access();
    reader.kill();
    const bool ended_by_the_kill = reader.join(6s);
    std::fputs("given\n", stderr);
    memory.give();
    return !ended_by_the_kill && reader.join(limit) && reader.get() == memory.buffer().size();
  });
  CAPTURE(end.said);
  CHECK(end.exit == 0);
  constexpr auto words = "has not ended, seconds after it was called off: it runs in thread ";
  REQUIRE(end.says(words));
  CHECK(end.said.find("annulet: readv(") < end.said.find("given"));
  CHECK(end.said.find(words) == end.said.rfind(words));  // once
}

TEST_CASE(
    "a disk transfer for which no thread was to be had gets one later, on a hub that sleeps or is busy") {
  if (!held_memory()) {
    return;
  }
  struct course {
    std::size_t stuck;
    std::size_t busy_fibers;
  };
  for (const auto [stuck, busy_fibers] : {course{1, 0}, {4, 0}, {1, 2}}) {
    CAPTURE(stuck);
    CAPTURE(busy_fibers);
    const auto end = annulet_test::in_child([stuck = stuck, busy_fibers = busy_fibers] {
      static std::atomic<bool> none_is_to_be_had{false};
      judge_calls({SCMP_SYS(clone3), SCMP_SYS(clone)},
                  [](const seccomp_data&) { return none_is_to_be_had ? EAGAIN : 0; });
      const held_memory memory;
      const hub home;
      std::vector<descriptor> files;
      std::vector<annulet::fiber<std::size_t>> readers;
      for (std::size_t i = 0; i < stuck; ++i) {
        const int fd = files.emplace_back(open_status()).get();
        readers.push_back(spawn_parked([&memory, fd] { return annulet::read(fd, memory.buffer()); }));
      }
      memory.await_access();
      const descriptor file = open_status();
      none_is_to_be_had = true;
      for (std::size_t i = 0; i < busy_fibers; ++i) {
        spawn([] {
          for (;;) {
            this_fiber::yield();
          }
        }).detach();
      }
      auto late = spawn_parked([&] { return read_some(file.get()).size(); });
      this_fiber::sleep_for(5ms);
      const bool had_to_wait = !late.done();
      none_is_to_be_had = false;
      const bool ended = late.join(limit);
      memory.give();
      for (auto& reader : readers) {
        reader.join();
      }
      return had_to_wait && ended && late.get() > 0;
    });
    CAPTURE(end.said);
    CHECK(end.exit == 0);
  }
}
