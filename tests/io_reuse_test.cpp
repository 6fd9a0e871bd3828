// Numbers that are closed behind the hub's back while a call on them is under way, and have another file by
// the time that it would be made: the call leaves that alone.
#include <annulet/hub/io.hpp>
#include <annulet/selector/selector.hpp>

#include "support/held_memory.hpp"
#include "support/io_calls.hpp"

#include <doctest/doctest.h>

#include <array>
#include <vector>

#include <fcntl.h>
#include <sys/stat.h>

using namespace annulet::test;
using annulet::hub;
namespace this_fiber = annulet::this_fiber;

namespace {

std::size_t size_of(int fd) {
  struct stat about {};
  require_ok(::fstat(fd, &about), "fstat");
  return static_cast<std::size_t>(about.st_size);
}

}  // namespace

TEST_CASE("a write that waits for a thread does not go to the file that has its number by then") {
  const held_memory memory;
  if (!memory) {
    return;
  }
  const hub home;
  std::array<descriptor, 4> busy;
  std::vector<annulet::fiber<std::size_t>> readers;
  for (descriptor& each : busy) {
    each = descriptor(require_ok(::open("/proc/self/status", O_RDONLY | O_CLOEXEC), "open"));
    readers.push_back(spawn_parked([&] { return annulet::read(each.get(), memory.buffer()); }));
  }
  const descriptor first = make_file();
  const descriptor second = make_file();
  descriptor number(require_ok(::dup(first.get()), "dup"));
  auto writer =
      spawn_parked([&] { return failure_of([&] { return annulet::write(number.get(), "x"sv); }).error; });
  require_ok(::dup2(second.get(), number.get()), "dup2");
  const int error = writer.get();
  CHECK(size_of(first.get()) == (error == 0 ? 1 : 0));  // there are disks that need no thread for it
  CHECK(size_of(second.get()) == 0);
  memory.give();
}

TEST_CASE("a read of a tty does not take what comes for the pipe that has its number by then") {
  const hub home;
  auto [master, slave] = make_pty();
  const int number = slave.get();
  auto reader = spawn_parked(
      [number] { return is_killed_in([number] { return read_some(number, annulet::deadline::never()); }); });
  this_fiber::sleep_for(10ms);
  const auto pipe = make_pipe();
  require_ok(::dup2(pipe.reader.get(), number), "dup2");
  annulet::selector selector;
  (void)selector.register_(number, annulet::io_event::read);
  CHECK(selector.select(1ms).empty());
  send_byte(pipe.writer.get());
  CHECK(selector.select(limit).size() == 1);
  this_fiber::sleep_for(20ms);
  CHECK(try_read(number) == 1);
  reader.kill();
  CHECK(reader.join(limit));
}
