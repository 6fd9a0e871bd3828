// What read and write do on files, FIFOs and terminals where few programs look, each scene plainly and as a
// drop-in.

#include "support/counted_signal.hpp"
#include "support/folder.hpp"
#include "support/texts.hpp"
#include "support/two_ends.hpp"
#include "support/while_waiting.hpp"

#include <doctest/doctest.h>

#include <array>
#include <atomic>
#include <chrono>
#include <csignal>
#include <string>
#include <utility>
#include <vector>

#include <linux/magic.h>
#include <pty.h>
#include <sys/inotify.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <termios.h>
#include <unistd.h>

using namespace std::chrono_literals;
using annulet::test::at_last;
using annulet::test::counted_signal;
using annulet::test::descriptor;
using annulet::test::ends;
using annulet::test::folder;
using annulet::test::io_calls_of;
using annulet::test::io_of;
using annulet::test::kind;
using annulet::test::make_ends;
using annulet::test::note_wait;
using annulet::test::once_asleep;
using annulet::test::require_ok;
using annulet::test::same_in_both;
using annulet::test::same_io_in_both;
using annulet::test::scene_notes;
using annulet::test::wait_calls;
using annulet::test::with_act_meanwhile;

namespace {

// Which thread a handler ran on, by the kernel's number.
std::atomic<pid_t> last_handled_on{0};

void count_and_say_where(int signal) {
  last_handled_on = ::gettid();
  annulet::test::count_signal(signal);
}

// A terminal with these settings, and its master.
ends make_terminal(bool canonical, cc_t least, cc_t tenths) {
  int master = -1;
  int slave = -1;
  require_ok(::openpty(&master, &slave, nullptr, nullptr, nullptr), "openpty");
  ends both{descriptor(slave), descriptor(master)};
  termios settings{};
  require_ok(::tcgetattr(slave, &settings), "tcgetattr");
  settings.c_lflag &= ~static_cast<tcflag_t>(ECHO);
  if (!canonical) {
    settings.c_lflag &= ~static_cast<tcflag_t>(ICANON);
    settings.c_cc[VMIN] = least;
    settings.c_cc[VTIME] = tenths;
  }
  require_ok(::tcsetattr(slave, TCSANOW, &settings), "tcsetattr");
  return both;
}

struct fifo_ends {
  descriptor reader;
  descriptor writer;  // blocks
};

fifo_ends make_fifo(const folder& where) {
  const std::string path = where / "fifo";
  ::unlink(path.c_str());
  require_ok(::mkfifo(path.c_str(), 0600), "mkfifo");
  descriptor reader(require_ok(::open(path.c_str(), O_RDONLY | O_NONBLOCK | O_CLOEXEC), "open"));
  return {std::move(reader), descriptor(require_ok(::open(path.c_str(), O_WRONLY | O_CLOEXEC), "open"))};
}

void note_handled(scene_notes& notes, const counted_signal& signal) {
  notes.note("handled", signal.times());
  notes.note("here", last_handled_on == ::gettid());
}

void note_read(scene_notes& notes, const io_calls_of& c, int fd) {
  std::array<char, 8> bytes{};
  notes.result("read", c.read(fd, bytes.data(), bytes.size()));
  notes.note(std::string(bytes.data(), bytes.size()));
}

// The process's limit for files, for a while.
class file_limit {
 public:
  explicit file_limit(rlim_t size) {
    require_ok(::getrlimit(RLIMIT_FSIZE, &before_), "getrlimit");
    const rlimit now{size, before_.rlim_max};
    require_ok(::setrlimit(RLIMIT_FSIZE, &now), "setrlimit");
  }
  ~file_limit() { (void)::setrlimit(RLIMIT_FSIZE, &before_); }
  file_limit(const file_limit&) = delete;
  file_limit& operator=(const file_limit&) = delete;

 private:
  rlimit before_{};
};

}  // namespace

TEST_CASE(
    "a terminal that asks for no least number of bytes keeps no reader waiting for longer than it says") {
  for (const cc_t tenths : {cc_t{0}, cc_t{1}}) {
    CAPTURE(tenths);
    same_io_in_both([&](const io_calls_of& c, scene_notes& notes) {
      const ends both = make_terminal(false, 0, tenths);
      {
        const at_last writes([&] { annulet::test::write_text(both.peer.get(), "late"); }, 5s);
        note_wait(notes, std::chrono::milliseconds(90 * tenths),
                  [&] { note_read(notes, c, both.mine.get()); });
      }
      annulet::test::write_text(both.peer.get(), "ab");
      note_read(notes, c, both.mine.get());
    });
  }
}

TEST_CASE("what comes in a terminal's time is read, be it ever so little") {
  same_io_in_both([](const io_calls_of& c, scene_notes& notes) {
    const ends both = make_terminal(false, 0, 50);
    const once_asleep writes([&] { annulet::test::write_text(both.peer.get(), "ab"); });
    note_read(notes, c, both.mine.get());
  });
}

TEST_CASE("a terminal that asks for a least number of bytes, and for a time after each") {
  for (const cc_t tenths : {cc_t{0}, cc_t{1}}) {
    CAPTURE(tenths);
    same_io_in_both([&](const io_calls_of& c, scene_notes& notes) {
      const ends both = make_terminal(false, 4, tenths);
      const once_asleep writes([&] {
        annulet::test::write_text(both.peer.get(), "a");
        if (tenths == 0) {
          std::this_thread::sleep_for(10ms);
          annulet::test::write_text(both.peer.get(), "bcd");
        }
      });
      note_read(notes, c, both.mine.get());
    });
  }
}

TEST_CASE(
    "who reads a terminal when the other end is closed is told of it, and who comes later meets the end") {
  for (const bool canonical : {false, true}) {
    CAPTURE(canonical);
    same_io_in_both([&](const io_calls_of& c, scene_notes& notes) {
      for (const bool vectors : {false, true}) {
        ends both = make_terminal(canonical, 1, 0);
        char byte = 0;
        const iovec part{&byte, 1};
        {
          const once_asleep closes([&] { both.peer.close(); }, once_asleep::who::everybody);
          notes.result("read",
                       vectors ? c.readv(both.mine.get(), &part, 1) : c.read(both.mine.get(), &byte, 1));
        }
        notes.result("and again", c.read(both.mine.get(), &byte, 1));
        notes.result("write", c.write(both.mine.get(), &byte, 1));
      }
    });
  }
}

TEST_CASE("a master whose terminal is closed is told of it") {
  same_io_in_both([](const io_calls_of& c, scene_notes& notes) {
    ends both = make_terminal(true, 1, 0);
    {
      const once_asleep closes([&] { both.mine.close(); }, once_asleep::who::everybody);
      note_read(notes, c, both.peer.get());
    }
    note_read(notes, c, both.peer.get());
  });
}

TEST_CASE("a write to a FIFO that nobody reads brings SIGPIPE to the thread, once") {
  const folder where;
  same_io_in_both([&](const io_calls_of& c, scene_notes& notes) {
    const counted_signal sigpipe(SIGPIPE, 0, &count_and_say_where);
    auto fifo = make_fifo(where);
    fifo.reader.close();
    notes.result("write", c.write(fifo.writer.get(), "x", 1));
    note_handled(notes, sigpipe);
    const iovec parts[2] = {{const_cast<char*>("ab"), 2}, {const_cast<char*>("cd"), 2}};
    notes.result("writev", c.writev(fifo.writer.get(), parts, 2));
    note_handled(notes, sigpipe);
    notes.result("nothing", c.write(fifo.writer.get(), "", 0));
    note_handled(notes, sigpipe);
  });
}

TEST_CASE("so does one that waits there when the reader goes, and when it has written a part") {
  const folder where;
  for (const bool of_pipe : {false, true}) {
    for (const bool part : {false, true}) {
      CAPTURE(of_pipe);
      CAPTURE(part);
      same_io_in_both([&](const io_calls_of& c, scene_notes& notes) {
        const counted_signal sigpipe(SIGPIPE, 0, &count_and_say_where);
        fifo_ends fifo;
        if (of_pipe) {
          auto pipe = annulet::test::make_pipe(O_CLOEXEC);
          fifo = {std::move(pipe.reader), std::move(pipe.writer)};
        } else {
          fifo = make_fifo(where);
        }
        if (!part) {
          const std::string all(static_cast<std::size_t>(::fcntl(fifo.writer.get(), F_GETPIPE_SZ)), 'x');
          annulet::test::write_text(fifo.writer.get(), all);
        }
        const std::string text(1 << 20, 'x');
        {
          const once_asleep closes([&] { fifo.reader.close(); }, once_asleep::who::everybody);
          notes.result("write", c.write(fifo.writer.get(), text.data(), text.size()));
        }
        note_handled(notes, sigpipe);
        notes.result("again", c.write(fifo.writer.get(), text.data(), text.size()));
        note_handled(notes, sigpipe);
      });
    }
  }
}

TEST_CASE("a write beyond what files may be brings SIGXFSZ to the thread, once") {
  const folder where;
  same_io_in_both([&](const io_calls_of& c, scene_notes& notes) {
    const counted_signal sigxfsz(SIGXFSZ, 0, &count_and_say_where);
    constexpr rlim_t most = 1 << 20;
    for (const auto& [before_end, appends] :
         {std::pair{rlim_t{10'000}, 0}, {5, 0}, {0, 0}, {5, O_APPEND}, {0, O_APPEND}}) {
      const int how = O_TMPFILE | O_RDWR | O_CLOEXEC | appends;
      const descriptor file(require_ok(::open(where.path().c_str(), how, 0600), "open"));
      if (appends != 0) {
        require_ok(::ftruncate(file.get(), most - before_end), "ftruncate");
      } else {
        require_ok(static_cast<int>(::lseek(file.get(), most - before_end, SEEK_SET)), "lseek");
      }
      const std::string text(20'000, 'x');
      const file_limit limit(most);
      for (int i = 0; i < 2; ++i) {
        notes.result("write", c.write(file.get(), text.data(), text.size()));
        notes.note("position", ::lseek(file.get(), 0, SEEK_CUR));
        note_handled(notes, sigxfsz);
      }
      const iovec parts[2] = {{const_cast<char*>(text.data()), 5}, {const_cast<char*>(text.data()), 9}};
      notes.result("writev", c.writev(file.get(), parts, 2));
      note_handled(notes, sigxfsz);
    }
  });
}

TEST_CASE("a read of a file of which a part is in memory gives all of it") {
  const folder where;
  struct statfs about {};
  require_ok(::statfs(where.path().c_str(), &about), "statfs");
  if (about.f_type == TMPFS_MAGIC || about.f_type == RAMFS_MAGIC) {
    MESSAGE("skipped: all of a file is in memory in ", where.path());
    return;
  }
  std::string text;
  while (text.size() < 2 << 20) {
    text += std::to_string(text.size()) + ' ';
  }
  for (const bool vectors : {false, true}) {
    for (const off_t begin : {off_t{0}, off_t{3} << 30}) {
      CAPTURE(vectors);
      CAPTURE(begin);
      same_io_in_both([&](const io_calls_of& c, scene_notes& notes) {
        const descriptor file(
            require_ok(::open(where.path().c_str(), O_TMPFILE | O_RDWR | O_CLOEXEC, 0600), "open"));
        notes.note("begins", ::lseek(file.get(), begin, SEEK_SET));
        annulet::test::write_text(file.get(), text);
        require_ok(::fsync(file.get()), "fsync");
        require_ok(::posix_fadvise(file.get(), 0, 0, POSIX_FADV_DONTNEED), "posix_fadvise");
        require_ok(::posix_fadvise(file.get(), 0, 0, POSIX_FADV_RANDOM), "posix_fadvise");
        std::string back(text.size() + 10, ' ');
        require_ok(static_cast<int>(::pread(file.get(), back.data(), 65536, begin)), "pread");
        notes.note("begins", ::lseek(file.get(), begin, SEEK_SET));
        const iovec parts[2] = {{back.data(), 100'000}, {back.data() + 100'000, back.size() - 100'000}};
        notes.result("read",
                     vectors ? c.readv(file.get(), parts, 2) : c.read(file.get(), back.data(), back.size()));
        notes.note("the same", back.substr(0, text.size()) == text);
        notes.note("position", ::lseek(file.get(), 0, SEEK_CUR));
        notes.result("at the end", c.read(file.get(), back.data(), 1));
      });
    }
  }
}

// An inotify descriptor refuses a read of nothing, but only when there is something.
TEST_CASE("a read of no bytes that waits all the same holds up no others") {
  const folder where;
  same_in_both([&](const wait_calls& c, scene_notes& notes) {
    const descriptor events(require_ok(::inotify_init1(IN_CLOEXEC), "inotify_init1"));
    require_ok(::inotify_add_watch(events.get(), where.path().c_str(), IN_CREATE), "inotify_add_watch");
    const auto make_file = [&] {
      const std::string path = where / "file";
      ::close(require_ok(::open(path.c_str(), O_CREAT | O_RDWR | O_CLOEXEC, 0600), "open"));
      ::unlink(path.c_str());
    };
    std::atomic<bool> others_ran{false};
    const at_last makes_it(make_file);
    const auto act = [&] {
      others_ran = true;
      make_file();
    };
    char byte = 0;
    with_act_meanwhile(c, act, [&] {
      notes.result("read", io_of(c).read(events.get(), &byte, 0));
      notes.note("others ran", others_ran);
    });
  });
}

TEST_CASE("reads and writes that succeed leave errno alone, and those of nothing, too") {
  const folder where;
  same_io_in_both([&](const io_calls_of& c, scene_notes& notes) {
    const auto unspoilt = [&](const char* what, long result) {
      const int error = std::exchange(errno, 77);
      notes.note(what, result);
      notes.note("errno", error);
    };
    char bytes[4] = "abc";
    const iovec part{bytes, 3};
    errno = 77;
    for (const kind what : annulet::test::kinds) {
      const ends both = make_ends(what, true);
      errno = 77;
      unspoilt("write", c.write(both.mine.get(), bytes, 3));
      unspoilt("writev", c.writev(both.mine.get(), &part, 1));
      unspoilt("write nothing", c.write(both.mine.get(), bytes, 0));
      if (what == kind::pipe) {
        unspoilt("read", c.read(both.peer.get(), bytes, 3));
        unspoilt("read nothing", c.read(both.peer.get(), bytes, 0));
        continue;
      }
      const once_asleep writes([&] { annulet::test::write_text(both.peer.get(), "abc"); });
      errno = 77;
      unspoilt("read", c.read(both.mine.get(), bytes, 3));
      if (what != kind::unix_datagram) {
        unspoilt("read nothing", c.read(both.mine.get(), bytes, 0));
      }
      if (annulet::test::is_socket(what)) {
        unspoilt("recv", c.recv(both.peer.get(), bytes, 3, 0));
        unspoilt("send", c.send(both.peer.get(), bytes, 3, 0));
      }
    }
    const descriptor file(
        require_ok(::open(where.path().c_str(), O_TMPFILE | O_RDWR | O_CLOEXEC, 0600), "open"));
    errno = 77;
    unspoilt("write", c.write(file.get(), bytes, 3));
    unspoilt("write nothing", c.write(file.get(), bytes, 0));
    require_ok(static_cast<int>(::lseek(file.get(), 0, SEEK_SET)), "lseek");
    unspoilt("readv", c.readv(file.get(), &part, 1));
    unspoilt("read at the end", c.read(file.get(), bytes, 3));
    const auto listener = annulet::test::make_tcp_listener();
    require_ok(::fcntl(listener.socket.get(), F_SETFL, 0), "F_SETFL");
    const descriptor client(require_ok(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), "socket"));
    const sockaddr_in address = annulet::test::loopback(listener.port);
    errno = 77;
    unspoilt("connect",
             c.connect(client.get(), reinterpret_cast<const sockaddr*>(&address), sizeof(address)));
    const int accepted = c.accept(listener.socket.get(), nullptr, nullptr);
    unspoilt("accept", accepted >= 0);
    unspoilt("close", c.close(accepted));
  });
}
