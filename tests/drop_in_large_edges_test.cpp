// Reads and writes of what is large, and of devices, each scene plainly and as a drop-in.

#include "support/folder.hpp"
#include "support/page_before_nothing.hpp"
#include "support/texts.hpp"
#include "support/two_ends.hpp"
#include "support/while_waiting.hpp"

#include <doctest/doctest.h>

#include <array>
#include <cstdint>
#include <limits>
#include <string>
#include <utility>
#include <vector>

#include <linux/loop.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>

using annulet::test::at_last;
using annulet::test::descriptor;
using annulet::test::ends;
using annulet::test::folder;
using annulet::test::io_calls_of;
using annulet::test::kind;
using annulet::test::make_ends;
using annulet::test::once_asleep;
using annulet::test::require_ok;
using annulet::test::same_io_in_both;
using annulet::test::scene_notes;

namespace {

constexpr std::size_t most_at_once = 0x7ffff000;
constexpr std::array beyond_memory = {std::numeric_limits<std::size_t>::max(),
                                      std::size_t{std::numeric_limits<std::ptrdiff_t>::max()},
                                      std::size_t{1} << 60};

char buffer[64];  // below all stacks and mappings

descriptor make_large_file() {
  descriptor file(require_ok(::memfd_create("large", MFD_CLOEXEC), "memfd_create"));
  require_ok(::ftruncate(file.get(), std::int64_t{3} << 30), "ftruncate");
  return file;
}

// A block device of the file's bytes, for as long as it is open; none where that is forbidden.
descriptor make_block_device(const descriptor& file) {
  const descriptor control(::open("/dev/loop-control", O_RDWR | O_CLOEXEC));
  const int number = control.get() < 0 ? -1 : ::ioctl(control.get(), LOOP_CTL_GET_FREE);
  descriptor device(number < 0 ? -1
                               : ::open(("/dev/loop" + std::to_string(number)).c_str(), O_RDWR | O_CLOEXEC));
  loop_config how{};
  how.fd = static_cast<std::uint32_t>(file.get());
  how.info.lo_flags = LO_FLAGS_AUTOCLEAR;
  if (device.get() >= 0 && ::ioctl(device.get(), LOOP_CONFIGURE, &how) != 0) {
    device.close();
  }
  return device;
}

}  // namespace

TEST_CASE("no read moves more than Linux does at a time") {
  std::vector<char> room(64 << 20);
  const std::vector<iovec> parts(48, iovec{room.data(), room.size()});
  same_io_in_both([&](const io_calls_of& c, scene_notes& notes) {
    const descriptor file = make_large_file();
    notes.result("readv", c.readv(file.get(), parts.data(), static_cast<int>(parts.size())));
    notes.note("position", ::lseek(file.get(), 0, SEEK_CUR));
  });
}

TEST_CASE("a size that goes beyond all memory is refused at once") {
  const folder where;
  for (const std::size_t size : beyond_memory) {
    CAPTURE(size);
    same_io_in_both([&](const io_calls_of& c, scene_notes& notes) {
      for (const kind what : annulet::test::kinds) {
        const ends both = make_ends(what);
        const at_last writes([&] { annulet::test::write_text(both.peer.get(), "x"); });
        notes.result("read", c.read(both.mine.get(), buffer, size));
        notes.result("write", c.write(both.peer.get(), buffer, size));
        notes.result("the wrong end", c.write(both.mine.get(), buffer, size));
      }
      const descriptor file(
          require_ok(::open(where.path().c_str(), O_TMPFILE | O_RDWR | O_CLOEXEC, 0600), "open"));
      notes.result("read", c.read(file.get(), buffer, size));
      notes.result("write", c.write(file.get(), buffer, size));
      notes.result("no file", c.read(-1, buffer, size));
    });
  }
}

TEST_CASE("a size that only goes beyond what is moved at a time is as good as that") {
  for (const std::size_t size : {most_at_once, most_at_once + 1, std::size_t{1} << 45}) {
    CAPTURE(size);
    same_io_in_both([&](const io_calls_of& c, scene_notes& notes) {
      for (const kind what : annulet::test::kinds) {
        const ends both = make_ends(what);
        const once_asleep writes([&] { annulet::test::write_text(both.peer.get(), "abc\n"); });
        notes.result("read", c.read(both.mine.get(), buffer, size));
      }
      const descriptor null(require_ok(::open("/dev/null", O_RDWR | O_CLOEXEC), "open"));
      notes.result("write", c.write(null.get(), buffer, size));
      notes.result("read", c.read(null.get(), buffer, size));
    });
  }
}

TEST_CASE("a read of a block device of which a part is in memory gives all of it") {
  constexpr std::size_t all = 1 << 20;
  const std::string text(all, 'x');
  const descriptor file(require_ok(::memfd_create("disk", MFD_CLOEXEC), "memfd_create"));
  annulet::test::write_text(file.get(), text);
  {
    const descriptor device = make_block_device(file);
    if (device.get() < 0) {
      MESSAGE("skipped: no loop device is to be had");
      return;
    }
  }
  same_io_in_both([&](const io_calls_of& c, scene_notes& notes) {
    const descriptor device = make_block_device(file);
    const int fd = require_ok(device.get(), "a loop device");
    std::string back(all, ' ');
    require_ok(::posix_fadvise(fd, 0, 0, POSIX_FADV_RANDOM), "posix_fadvise");
    require_ok(static_cast<int>(::pread(fd, back.data(), 4096, 0)), "pread");
    const iovec parts[2] = {{back.data(), 10'000}, {back.data() + 10'000, 90'000}};
    notes.result("read", c.read(fd, back.data(), 65536));
    require_ok(static_cast<int>(::pread(fd, back.data(), 4096, 524'288)), "pread");
    require_ok(static_cast<int>(::lseek(fd, 524'288, SEEK_SET)), "lseek");
    notes.result("readv", c.readv(fd, parts, 2));
    require_ok(static_cast<int>(::lseek(fd, all - 1000, SEEK_SET)), "lseek");
    notes.result("to the end", c.read(fd, back.data(), 65536));
    notes.result("at the end", c.read(fd, back.data(), 65536));
    notes.note("all read", back.find(' ') == std::string::npos || back.find(' ') >= 65536);
  });
}
