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
