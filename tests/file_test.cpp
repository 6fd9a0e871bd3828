// open, pread, pwrite, fsync and statx: what they say, what ends them, and that nothing is lost or left.
#include <annulet/hub/file.hpp>

#include "support/blocking_files.hpp"
#include "support/child.hpp"
#include "support/folder.hpp"
#include "support/held_memory.hpp"

#include <doctest/doctest.h>

#include <array>
#include <cerrno>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <limits>
#include <string>
#include <thread>
#include <vector>

#include <fcntl.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/stat.h>

using namespace annulet::test;
using namespace std::string_literals;
using annulet::hub;
using annulet::spawn;
namespace this_fiber = annulet::this_fiber;

namespace {

std::string contents_of(const std::string& path) {
  const auto file = annulet::open(path, O_RDONLY);
  std::string text(annulet::statx(file).stx_size, '\0');
  CHECK(annulet::pread_exactly(file, text, 0) == text.size());
  return text;
}

}  // namespace

TEST_CASE("what is written at positions is read there, and the file's own position stays") {
  const hub home;
  const folder here;
  const std::string path = here / "data";
  const auto file = annulet::open(path, O_RDWR | O_CREAT | O_EXCL, 0640);
  CHECK((annulet::statx(file).stx_mode & 07777) == 0640);
  CHECK(annulet::pwrite(file, "world"sv, 6) == 5);
  CHECK(annulet::pwrite(file, "hello "sv, 0) == 6);
  std::array<char, 64> room{};
  CHECK(annulet::pread(file, room, 6) == 5);
  CHECK(std::string_view(room.data(), 5) == "world");
  CHECK(annulet::pread(file, room, 11) == 0);
  CHECK(annulet::pread_exactly(file, room, 3) == 8);
  CHECK(::lseek(file.fileno(), 0, SEEK_CUR) == 0);
  annulet::fsync(file);
  annulet::fdatasync(file, 1min);
  CHECK(annulet::statx(path).stx_size == 11);
  CHECK(contents_of(path) == "hello world");
}

TEST_CASE("what a disk has to be asked for comes whole, from many fibers at once on one descriptor") {
  const hub home;
  constexpr std::size_t block = 65536;
  constexpr std::size_t blocks = 64;
  const std::string all = pattern(block * blocks);
  const descriptor file = make_file();
  std::vector<annulet::fiber<void>> writers;
  for (std::size_t i = 0; i < blocks; ++i) {
    writers.push_back(spawn([&, i] {
      annulet::pwrite_all(file.get(), std::string_view(all).substr(i * block, block), i * block);
    }));
  }
  for (auto& each : writers) {
    each.get();
  }
  annulet::fsync(file.get());
  (void)::posix_fadvise(file.get(), 0, 0, POSIX_FADV_DONTNEED);
  std::vector<annulet::fiber<void>> readers;
  for (std::size_t i = 0; i < blocks; ++i) {
    readers.push_back(spawn([&, i] {
      std::string got(block, '\0');
      CHECK(annulet::pread_exactly(file.get(), got, i * block) == block);
      CHECK(got == all.substr(i * block, block));
    }));
  }
  for (auto& each : readers) {
    each.get();
  }
}

TEST_CASE("a descriptor that open returns is closed on exec, and belongs to its owner") {
  const hub home;
  const std::size_t before = open_descriptors();
  {
    const auto file = annulet::open("/dev/null", O_RDWR);
    CHECK((::fcntl(file.fileno(), F_GETFD) & FD_CLOEXEC) != 0);
    CHECK(open_descriptors() == before + 1);
  }
  CHECK(open_descriptors() == before);
}

TEST_CASE("a file that is not there, one that is there, and a directory are errors that name it") {
  const hub home;
  const folder here;
  const std::string path = here / "nothing";
  const auto missing = failure_of([&] { return annulet::open(path, O_RDONLY); });
  CHECK(missing.error == ENOENT);
  CHECK(missing.words.find("open(" + path + ")") != std::string::npos);
  const auto unknown = failure_of([&] { return annulet::statx(path); });
  CHECK(unknown.error == ENOENT);
  CHECK(unknown.words.find("statx(" + path + ")") != std::string::npos);
  CHECK(failure_of([&] { return annulet::open(here.path(), O_RDWR); }).error == EISDIR);
  CHECK(failure_of([&] { return annulet::open(here.path(), O_CREAT | O_EXCL | O_RDWR); }).error == EEXIST);
  CHECK(failure_of([&] { return annulet::open("", O_RDONLY); }).error == ENOENT);
  CHECK_THROWS_AS((void)annulet::open("a\0b"s, O_RDONLY), std::invalid_argument);
  CHECK_THROWS_AS((void)annulet::statx("a\0b"s), std::invalid_argument);

  const auto directory = annulet::open(here.path(), O_RDONLY | O_DIRECTORY);
  std::array<char, 16> room{};
  const auto read = failure_of([&] { return annulet::pread(directory, room, 0); });
  CHECK(read.error == EISDIR);
  CHECK(read.names("pread", directory.fileno()));
  annulet::fsync(directory);  // which is how a name is made to last
}

TEST_CASE("positions that no file has, pipes, empty memory and closed numbers are what Linux says of them") {
  const hub home;
  const descriptor file = make_file("abc");
  std::array<char, 16> room{};
  constexpr auto far = std::uint64_t{std::numeric_limits<std::int64_t>::max()};
  for (const std::uint64_t wrong :
       {far + 1, static_cast<std::uint64_t>(-1), static_cast<std::uint64_t>(-2)}) {
    CHECK(failure_of([&] { return annulet::pread(file.get(), room, wrong); }).error == EINVAL);
    CHECK(failure_of([&] { return annulet::pwrite(file.get(), "x"sv, wrong); }).error == EINVAL);
  }
  CHECK(annulet::pread(file.get(), room, far - 16) == 0);
  for (const std::size_t size : {1U, 2U}) {  // up to the last position, and beyond it
    const bool failed = ::pwrite(file.get(), "xy", size, static_cast<off_t>(far - 1)) < 0;
    const int error = errno;
    REQUIRE(failed);
    const std::string_view bytes("xy", size);
    CHECK(failure_of([&] { return annulet::pwrite(file.get(), bytes, far - 1); }).error == error);
  }
  CHECK(annulet::pread(file.get(), annulet::mutable_buffer(), 0) == 0);
  CHECK(annulet::pwrite(file.get(), annulet::const_buffer(), 1) == 0);
  CHECK(annulet::pread_exactly(file.get(), annulet::mutable_buffer(), 0) == 0);
  annulet::pwrite_all(file.get(), annulet::const_buffer(), 0);
  const auto ends = make_pipe();
  CHECK(failure_of([&] { return annulet::pread(ends.reader.get(), room, 0); }).error == ESPIPE);
  CHECK(failure_of([&] {
          annulet::fsync(ends.reader.get());
          return 0;
        }).error == EINVAL);
  const int none = unused_number();
  const auto closed = failure_of([&] {
    annulet::fsync(none);
    return 0;
  });
  CHECK(closed.error == EBADF);
  CHECK(closed.names("fsync", none));
  CHECK(failure_of([&] { return annulet::pread(none, room, 0); }).error == EBADF);
  CHECK(failure_of([&] { return annulet::statx(none); }).error == EBADF);
  CHECK(failure_of([&] { return annulet::pread(annulet::descriptor(), room, 0); }).error == EBADF);
}

TEST_CASE("on a thread without a hub they say so") {
  std::thread([] {
    std::array<char, 1> room{};
    CHECK_THROWS_AS((void)annulet::open("/dev/null", O_RDONLY), annulet::no_hub);
    CHECK_THROWS_AS((void)annulet::pread(0, room, 0), annulet::no_hub);
    CHECK_THROWS_AS(annulet::fsync(0), annulet::no_hub);
    CHECK_THROWS_AS((void)annulet::statx("/"), annulet::no_hub);
  }).join();
}

TEST_CASE("a deadline in the past looks once, and finds what is there") {
  const hub home;
  const descriptor file = make_file("abc");
  std::array<char, 16> room{};
  CHECK(annulet::pread(file.get(), room, 0, 0s) == 3);
  CHECK(annulet::statx(file.get(), STATX_BASIC_STATS, 0s).stx_size == 3);
  annulet::fsync(file.get(), 0s);
  CHECK(annulet::open("/dev/null", O_RDONLY, 0s));
}

namespace {

std::string make_fifo(const folder& in) {
  std::string path = in / "fifo";
  require_ok(::mkfifo(path.c_str(), 0600), "mkfifo");
  return path;
}

// Whether somebody has it open, or is about to, to read from it.
bool has_reader(const std::string& path) {
  const descriptor writer(::open(path.c_str(), O_WRONLY | O_NONBLOCK | O_CLOEXEC));
  return writer.get() >= 0;
}

}  // namespace

TEST_CASE("opening a FIFO waits for the other side, and no other fiber waits for that") {
  hub home;
  const folder here;
  const std::string path = make_fifo(here);
  const ticker beside;
  auto reader = spawn_parked([&] { return annulet::open(path, O_RDONLY); });
  this_fiber::sleep_for(20ms);
  CHECK_FALSE(reader.done());
  const auto writer = annulet::open(path, O_WRONLY, limit);
  REQUIRE(reader.join(limit));
  const auto opened = reader.get();
  CHECK((flags_of(opened.fileno()) & O_NONBLOCK) == 0);
  CHECK(annulet::write(writer, "x"sv) == 1);
  CHECK(read_some(opened, limit) == "x");
  CHECK(beside.longest() < 1s);
}

TEST_CASE("an open of a FIFO that waits is ended by its deadline, a guard and a kill, and leaves nothing") {
  hub home;
  const folder here;
  const std::string path = make_fifo(here);
  const std::size_t before = open_descriptors();
  CHECK(passes_deadline([&] { return annulet::open(path, O_RDONLY, 20ms); }));
  CHECK(passes_deadline([&] { return annulet::open(path, O_RDONLY, 0s); }));
  CHECK_FALSE(has_reader(path));
  {
    const annulet::timeout guard(20ms);
    bool expired = false;
    try {
      (void)annulet::open(path, O_WRONLY);
    } catch (const annulet::timeout_expired& e) {
      expired = e.is(guard);
    }
    CHECK(expired);
  }
  auto killed = spawn_parked([&] { (void)annulet::open(path, O_RDONLY); });
  this_fiber::sleep_for(10ms);
  killed.kill();
  REQUIRE(killed.join(limit));
  CHECK_FALSE(has_reader(path));
  CHECK(open_descriptors() <= before + 1);  // the eventfd or so of the pool is made by the first of them
}

TEST_CASE("any number of opens that wait for a peer keep no others from the disk, their peers among them") {
  hub home;
  const folder here;
  const std::string path = make_fifo(here);
  std::vector<annulet::fiber<annulet::descriptor>> readers;
  for (int i = 0; i < 100; ++i) {
    readers.push_back(spawn_parked([&] { return annulet::open(path, O_RDONLY); }));
  }
  this_fiber::sleep_for(50ms);
  const auto begin = steady::now();
  CHECK(annulet::statx(path, STATX_TYPE, 0, limit).stx_mode != 0);
  CHECK(annulet::open("/dev/null", O_RDONLY, limit));
  const auto writer = annulet::open(path, O_WRONLY, limit);
  for (auto& each : readers) {
    REQUIRE(each.join(limit));
    CHECK(each.get());
  }
  CHECK(steady::now() - begin < 5s);
}

TEST_CASE("what was opened after a kill had come is returned, and the kill stays pending") {
  hub home;
  const folder here;
  const std::string path = make_fifo(here);
  const std::size_t before = open_descriptors();
  bool opened = false;
  bool killed_later = false;
  auto reader = spawn_parked([&] {
    const auto file = annulet::open(path, O_RDONLY);
    opened = true;
    killed_later = is_killed_in([] {
      this_fiber::sleep_for(1h);
      return 0;
    });
  });
  // As soon as a thread waits in the open this succeeds; so does that one, and the hub has not heard of it.
  const auto give_up = steady::now() + limit;
  descriptor writer(::open(path.c_str(), O_WRONLY | O_NONBLOCK | O_CLOEXEC));
  while (writer.get() < 0) {
    REQUIRE(errno == ENXIO);
    REQUIRE(steady::now() < give_up);
    this_fiber::sleep_for(1ms);
    writer = descriptor(::open(path.c_str(), O_WRONLY | O_NONBLOCK | O_CLOEXEC));
  }
  reader.kill();
  REQUIRE(reader.join(limit));
  CHECK(opened);
  CHECK(killed_later);
  CHECK(open_descriptors() <= before + 2);
}

TEST_CASE("a full disk is an error that names the descriptor, after the count that was written") {
  const auto end = annulet_test::in_child([] {
    const folder here;
    if (::unshare(CLONE_NEWNS) != 0 || ::mount("none", "/", "none", MS_REC | MS_PRIVATE, nullptr) != 0 ||
        ::mount("none", here.path().c_str(), "tmpfs", 0, "size=64k") != 0) {
      std::fprintf(stderr, "no mount: %s\n", std::strerror(errno));
      return true;
    }
    bool good = true;
    const auto expect = [&](bool what, const char* words) {
      if (!what) {
        std::fprintf(stderr, "wrong: %s\n", words);
        good = false;
      }
    };
    {
      const hub home;
      const std::string all = pattern(100'000);
      const auto file = annulet::open(here / "all", O_RDWR | O_CREAT);
      const std::size_t some = annulet::pwrite(file, all, 0);
      expect(some > 0 && some < all.size(), "a partial count");
      std::size_t done = 0;
      const auto full = failure_of([&] {
        annulet::pwrite_all(file, all, 0, annulet::deadline::never(), &done);
        return 0;
      });
      expect(full.error == ENOSPC && full.names("pwrite_all", file.fileno()), "pwrite_all says ENOSPC");
      expect(done == annulet::statx(file).stx_size && done >= some, "as much as it says");
      std::string back(all.size(), '\0');
      expect(annulet::pread_exactly(file, back, 0) == done, "all of it is there");
      expect(back.substr(0, done) == all.substr(0, done), "byte by byte");
      expect(failure_of([&] { return annulet::pwrite(file, "x"sv, all.size()); }).error == ENOSPC, "pwrite");
    }
    ::umount(here.path().c_str());
    return good;
  });
  CAPTURE(end.said);
  if (end.says("no mount")) {
    std::printf("note: skipped: %s", end.said.c_str());
    return;
  }
  CHECK(end.exit == 0);
}

TEST_CASE("a call at a position ends with EBADF where its descriptor is closed meanwhile") {
  const held_memory memory;
  if (!memory) {
    return;
  }
  hub home;
  const descriptor status(require_ok(::open("/proc/self/status", O_RDONLY | O_CLOEXEC), "open"));
  auto owner = adopt(descriptor(require_ok(::dup(status.get()), "dup")));
  const int number = owner.fileno();
  auto reader = spawn_parked([&] { return annulet::pread(number, memory.buffer(), 0); });
  memory.await_access();
  auto closer = spawn_parked([&] { owner.close(); });
  this_fiber::sleep_for(20ms);
  CHECK_FALSE(closer.done());  // the kernel may write into the memory still
  std::array<char, 8> room{};
  CHECK(failure_of([&] { return annulet::pread(number, room, 0); }).error == EBADF);
  memory.give();
  REQUIRE(reader.join(limit));
  CHECK(reader.get() == memory.buffer().size());
  REQUIRE(closer.join(limit));
  CHECK_FALSE(is_open(number));
}

TEST_CASE("a disk transfer that has begun ends when it ends, and what came meanwhile stays pending") {
  const held_memory memory;
  if (!memory) {
    return;
  }
  hub home;
  const descriptor file(require_ok(::open("/proc/self/status", O_RDONLY | O_CLOEXEC), "open"));
  std::size_t count = 0;
  bool killed_later = false;
  auto reader = spawn_parked([&] {
    count = annulet::pread(file.get(), memory.buffer(), 0, 50ms);
    killed_later = is_killed_in([] {
      this_fiber::sleep_for(1h);
      return 0;
    });
  });
  memory.await_access();
  this_fiber::sleep_for(20ms);
  reader.kill();
  this_fiber::sleep_for(100ms);  // the deadline passes, too
  CHECK_FALSE(reader.done());
  memory.give();
  REQUIRE(reader.join(limit));
  CHECK(count == memory.buffer().size());
  CHECK(killed_later);
}
