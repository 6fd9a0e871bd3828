// open, pread, pwrite, fdatasync and statx, and what may end them at nearly the same time. Each has one
// outcome; no byte is lost, and no descriptor, request or thread is left.
//
// ANNULET_RACE_ROUNDS says how many calls for each kind and each way of ending them.

#include <annulet/hub/file.hpp>

#include "support/call_races.hpp"
#include "support/folder.hpp"
#include "support/texts.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstddef>

#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include <fcntl.h>
#include <sys/stat.h>

using namespace annulet::test;
using annulet::deadline;
using annulet::file_ref;
using namespace std::chrono_literals;

namespace {

constexpr std::size_t usual_calls = 960;
// More than there are threads and workers, so that some have yet to begin.
constexpr std::size_t at_once = 48;
constexpr std::size_t block = 40'000;
constexpr char untouched = 'u';

// Bytes that are told apart from those of another place and another time.
std::string fresh_bytes(std::size_t size, oracle::dice& dice) {
  std::string bytes(size, '\0');
  std::ranges::generate(bytes, [&] { return static_cast<char>('A' + dice.below(26)); });
  return bytes;
}

// A file, and what is in it.
class model_file {
 public:
  model_file() {
    const auto folder = std::filesystem::temp_directory_path();
    file_ = descriptor(require_ok(::open(folder.c_str(), O_TMPFILE | O_RDWR | O_CLOEXEC, 0600), "O_TMPFILE"));
    oracle::dice dice(1);
    contents_ = fresh_bytes(block * at_once, dice);
    write_text(file_.get(), contents_);
    (void)::posix_fadvise(file_.get(), 0, 0, POSIX_FADV_RANDOM);  // each read asks the disk by itself
  }

  [[nodiscard]] int duplicate() const {
    return require_ok(::fcntl(file_.get(), F_DUPFD_CLOEXEC, 0), "fcntl");
  }
  // The next read has to ask the disk.
  void forget() const {
    require_ok(::fdatasync(file_.get()), "fdatasync");
    (void)::posix_fadvise(file_.get(), 0, 0, POSIX_FADV_DONTNEED);
  }
  [[nodiscard]] std::string_view of(std::size_t number) const {
    return std::string_view(contents_).substr(number * block, block);
  }
  void wrote(std::size_t number, std::string_view bytes) {
    std::copy(bytes.begin(), bytes.end(), contents_.begin() + static_cast<std::ptrdiff_t>(number * block));
  }
  [[nodiscard]] bool is_as_said() const {
    std::string there(contents_.size() + 1, '\0');
    const auto got = ::pread(file_.get(), there.data(), there.size(), 0);
    there.resize(static_cast<std::size_t>(std::max<ssize_t>(got, 0)));
    return there == contents_;
  }

 private:
  descriptor file_;
  std::string contents_;
};

void require_nothing_left(int number) {
  const annulet::detail::fd_state* const file = this_hub().find_state(number);
  if (file != nullptr) {
    REQUIRE_FALSE(file->closing());
    REQUIRE_FALSE(file->has_requests());
    REQUIRE(file->free(annulet::detail::direction::reading));
    REQUIRE(file->free(annulet::detail::direction::writing));
  }
}

racer closing(subject& on, ending how, oracle::dice& dice) {
  return {[&on, &dice, destroyed = how == ending::destructor] {
    if (destroyed) {
      on.destroy();
    } else {
      on.close(dice);
    }
  }};
}

bool closes(ending how) { return how == ending::close || how == ending::destructor || how == ending::all; }

// One of the calls on a part of the file: by its number, into its memory.
struct positioned {
  const char* name;
  bool reads;
  std::size_t (*call)(file_ref file, std::string& bytes, std::uint64_t position, deadline until,
                      std::size_t& moved);
};

void one_crowd(race_ground& ground, const positioned& what, model_file& file, ending how, outcomes& counts) {
  subject on(file.duplicate(), how == ending::destructor || ground.dice.one_in(2));
  const int number = on.number();
  std::vector<std::string> bytes(at_once);
  if (what.reads && ground.dice.one_in(2)) {
    file.forget();
  }
  {
    call_race calls(ground, how, what.reads ? 400us : 200us);
    for (std::size_t i = 0; i < at_once; ++i) {
      bytes[i] = what.reads ? std::string(block, untouched) : fresh_bytes(block, ground.dice);
      calls.start([&, i](deadline until, call_record& record) {
        (void)what.call(on.ref(), bytes[i], i * block, until, record.moved);
      });
    }
    std::vector<racer> others;
    if (closes(how)) {
      others.push_back(closing(on, how, ground.dice));
    }
    calls.run(std::move(others));
    for (std::size_t i = 0; i < at_once; ++i) {
      CAPTURE(i);
      const std::size_t moved = calls[i].moved;
      REQUIRE((calls[i].what == end::done) == (moved != 0));
      if (what.reads) {
        REQUIRE(bytes[i].substr(0, moved) == file.of(i).substr(0, moved));
        REQUIRE(bytes[i].substr(moved) == std::string(block - moved, untouched));
      } else {
        file.wrote(i, std::string_view(bytes[i]).substr(0, moved));
      }
    }
    calls.count_in(counts);
  }
  REQUIRE(file.is_as_said());
  REQUIRE((!closes(how) || !on.still_open()));
  require_nothing_left(number);
}

constexpr positioned pread_call{
    "pread", true,
    [](file_ref file, std::string& bytes, std::uint64_t position, deadline until, std::size_t& moved) {
      return moved = annulet::pread(file, bytes, position, until);
    }};
constexpr positioned pwrite_call{
    "pwrite", false,
    [](file_ref file, std::string& bytes, std::uint64_t position, deadline until, std::size_t& moved) {
      return moved = annulet::pwrite(file, bytes, position, until);
    }};

// What may end the calls, and whether anything but their completion has to have ended some: a disk's transfer
// that has begun goes on to its end.
enum class endable { always, on_no_disk };

void crowds(const char* name, const std::function<void(race_ground&, ending, outcomes&)>& crowd,
            const std::vector<ending>& ends, endable when) {
  const std::size_t descriptors = open_descriptors();
  {
    race_ground ground(name, usual_calls);
    const ticker beside;
    for (const ending how : ends) {
      CAPTURE(static_cast<int>(how));
      outcomes counts(std::string(name) + " against " + ending_names[static_cast<std::size_t>(how)]);
      const std::uint64_t crowds = (ground.rounds + at_once - 1) / at_once;
      for (std::uint64_t i = 0; i < crowds; ++i) {
        crowd(ground, how, counts);
      }
      const bool may_close = std::ranges::find(ends, ending::close) != ends.end();
      counts.check_among(crowds * at_once, may_close ? possible_ends(how) : possible_ends_without_close(how),
                         how == ending::completion || when == endable::on_no_disk ? 1 : 2);
    }
  }
  CHECK(open_descriptors() == descriptors);
}

const std::vector<ending> all_endings(endings.begin(), endings.end());

}  // namespace

TEST_CASE("a pread has one outcome, and says what it has read") {
  model_file file;
  crowds(
      "pread",
      [&](auto& ground, ending how, auto& counts) { one_crowd(ground, pread_call, file, how, counts); },
      all_endings, endable::on_no_disk);
}

TEST_CASE("a pwrite has one outcome, and says what it has written") {
  model_file file;
  crowds(
      "pwrite",
      [&](auto& ground, ending how, auto& counts) { one_crowd(ground, pwrite_call, file, how, counts); },
      all_endings, endable::on_no_disk);
}

TEST_CASE("an fdatasync and a statx have one outcome each") {
  model_file file;
  crowds(
      "fdatasync and statx",
      [&](race_ground& ground, ending how, outcomes& counts) {
        subject on(file.duplicate(), how == ending::destructor || ground.dice.one_in(2));
        const int number = on.number();
        call_race calls(ground, how, 300us);
        for (std::size_t i = 0; i < at_once; ++i) {
          calls.start([&, i](deadline until, call_record&) {
            if (i % 2 == 0) {
              annulet::fdatasync(on.ref(), until);
            } else {
              const auto about = annulet::statx(on.ref(), STATX_BASIC_STATS, until);
              REQUIRE(about.stx_size == block * at_once);
            }
          });
        }
        std::vector<racer> others;
        if (closes(how)) {
          others.push_back(closing(on, how, ground.dice));
        }
        calls.run(std::move(others));
        calls.count_in(counts);
        require_nothing_left(number);
      },
      all_endings, endable::always);
}

TEST_CASE("an open of a FIFO has one outcome, and leaves no descriptor and nobody who waits") {
  const folder here;
  const std::string path = here / "fifo";
  require_ok(::mkfifo(path.c_str(), 0600), "mkfifo");
  const auto crowd = [&](race_ground& ground, ending how, outcomes& counts) {
    std::vector<annulet::descriptor> opened(at_once);
    descriptor peer;
    call_race calls(ground, how, 1ms);
    const int flags = ground.dice.one_in(2) ? O_RDONLY : O_WRONLY;
    for (std::size_t i = 0; i < at_once; ++i) {
      calls.start([&, i](deadline until, call_record&) { opened[i] = annulet::open(path, flags, until); });
    }
    const std::size_t wait = ground.dice.below(1'000'000);
    calls.run({{[&peer, &path, wait] {
      annulet::this_fiber::sleep_for(std::chrono::nanoseconds(wait));
      peer = descriptor(require_ok(::open(path.c_str(), O_RDWR | O_CLOEXEC), "open"));  // both sides
    }}});
    for (std::size_t i = 0; i < at_once; ++i) {
      REQUIRE((calls[i].what == end::done) == static_cast<bool>(opened[i]));
    }
    calls.count_in(counts);
    opened.clear();
    peer.close();
    REQUIRE(::open(path.c_str(), O_WRONLY | O_NONBLOCK | O_CLOEXEC) < 0);  // nobody reads, or is about to
    REQUIRE(errno == ENXIO);
  };
  crowds("open of a FIFO", crowd,
         {ending::completion, ending::kill, ending::guard, ending::deadline, ending::all}, endable::always);
}
