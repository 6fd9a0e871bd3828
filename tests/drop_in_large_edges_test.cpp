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
