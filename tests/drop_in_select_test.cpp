// select and pselect, each scene plainly and as a drop-in.

#include "support/connected_pair.hpp"
#include "support/cpu_time.hpp"
#include "support/page_before_nothing.hpp"
#include "support/plain_and_parked.hpp"
#include "support/while_waiting.hpp"

#include <annulet/hub/close.hpp>

#include <doctest/doctest.h>

#include <array>
#include <chrono>
#include <cstring>
#include <limits>
#include <optional>

using namespace std::chrono_literals;
using annulet::test::descriptor;
using annulet::test::later;
using annulet::test::make_pipe;
using annulet::test::make_socket_pair;
using annulet::test::note_wait;
using annulet::test::once_asleep;
using annulet::test::page_before_nothing;
using annulet::test::require_ok;
using annulet::test::same_in_both;
using annulet::test::scene_notes;
using annulet::test::send_byte;
using annulet::test::wait_calls;

namespace {

// Of any size.
class number_set {
 public:
  explicit number_set(int numbers = FD_SETSIZE) : words_(static_cast<std::size_t>(numbers) / 64 + 1) {}
  number_set& add(int fd) {
    words_[static_cast<std::size_t>(fd) / 64] |= 1UL << (fd % 64);
    return *this;
  }
  fd_set* get() { return reinterpret_cast<fd_set*>(words_.data()); }
  // The bits, as they stand there.
  [[nodiscard]] std::string text() const {
    std::string all;
    for (std::size_t i = 0; i < words_.size() * 64; ++i) {
      if ((words_[i / 64] >> (i % 64) & 1) != 0) {
        all += std::to_string(i) + ' ';
      }
    }
    return all;
  }

 private:
  std::vector<unsigned long> words_;
};

}  // namespace

TEST_CASE("select says EBADF of a closed descriptor at once, and leaves the sets alone") {
  same_in_both([](const wait_calls& c, scene_notes& notes) {
    auto pipe = make_pipe();
    const int closed = pipe.reader.get();
    pipe.reader.close();
    number_set in;
    in.add(closed).add(pipe.writer.get());
    const std::string before = in.text();
    notes.result("select", c.select(closed + 10, in.get(), nullptr, nullptr, nullptr));
    notes.note("as before", in.text() == before);
    timeval time{0, 5000};
    notes.result("select", c.select(closed + 10, in.get(), nullptr, nullptr, &time));
    notes.note("seconds left", time.tv_sec);
    notes.note("as before", in.text() == before);
  });
}

TEST_CASE(
    "select finds each of 12 pipes in turn, and room in the others, by sets of the caller's stack or not") {
  bool on_stack = false;
  SUBCASE("") {}
  SUBCASE("on the stack") { on_stack = true; }
  same_in_both([&](const wait_calls& c, scene_notes& notes) {
    std::vector<annulet::test::pipe_pair> pipes(12);
    for (auto& pipe : pipes) {
      pipe = make_pipe();
    }
    for (std::size_t i = 0; i < pipes.size(); ++i) {
      fd_set sets[2];
      std::optional<number_set> heap_in(std::in_place);
      std::optional<number_set> heap_out(std::in_place);
      fd_set* const in = on_stack ? &sets[0] : heap_in->get();
      fd_set* const out = on_stack ? &sets[1] : heap_out->get();
      FD_ZERO(in);
      FD_ZERO(out);
      int most = 0;
      for (const auto& pipe : pipes) {
        FD_SET(pipe.reader.get(), in);
        most = std::max(most, pipe.reader.get());
      }
      const later writes([&] { send_byte(pipes[i].writer.get()); }, 2ms);
      notes.result("select", c.select(most + 1, in, out, nullptr, nullptr));
      for (const auto& pipe : pipes) {
        notes.note("in", FD_ISSET(pipe.reader.get(), in));
      }
      char byte = 0;
      notes.result("read", ::read(pipes[i].reader.get(), &byte, 1));
      FD_SET(pipes[i].writer.get(), out);
      notes.result("select", c.select(pipes[i].writer.get() + 1, nullptr, out, nullptr, nullptr));
    }
  });
}

TEST_CASE("sets with bits above 1024") {
  same_in_both([](const wait_calls& c, scene_notes& notes) {
    auto pair = make_socket_pair();
    for (const int least : {1024, 3000, 9000}) {
      const descriptor high(require_ok(::fcntl(pair.first.get(), F_DUPFD_CLOEXEC, least), "F_DUPFD"));
      number_set in(high.get());
      number_set out(high.get());
      number_set except(high.get());
      in.add(high.get());
      except.add(high.get()).add(pair.first.get());
      {
        const later writes([&] { send_byte(pair.second.get()); });
        notes.result("select", c.select(high.get() + 1, in.get(), out.get(), except.get(), nullptr));
      }
      notes.note(in.text() + "|" + out.text() + "|" + except.text());
      char byte = 0;
      notes.result("read", ::read(high.get(), &byte, 1));
      out.add(high.get());
      in.add(high.get());
      timeval time{5, 0};
      notes.result("select", c.select(high.get() + 1, in.get(), out.get(), nullptr, &time));
      notes.note(in.text() + "|" + out.text());
      timeval less{0, 3000};
      in.add(high.get());
      note_wait(notes, 3ms,
                [&] { notes.result("select", c.select(high.get() + 1, in.get(), nullptr, nullptr, &less)); });
      notes.note(in.text());
    }
  });
}

TEST_CASE("select refuses a negative time, and takes one of many microseconds as Linux does") {
  same_in_both([](const wait_calls& c, scene_notes& notes) {
    for (timeval bad : {timeval{-1, 0}, timeval{0, -1}, timeval{-1, 5'000'000}}) {
      notes.result("select", c.select(0, nullptr, nullptr, nullptr, &bad));
      notes.note("seconds", bad.tv_sec);
      notes.note("microseconds", bad.tv_usec);
    }
    auto pipe = make_pipe();
    for (const timeval wide :
         {timeval{0, 2'500'000}, timeval{1, 1'000'000}, timeval{3, (1L << 32) + 700'000}}) {
      timeval time = wide;
      number_set out;
      out.add(pipe.writer.get());
      notes.result("select", c.select(pipe.writer.get() + 1, nullptr, out.get(), nullptr, &time));
      notes.note("seconds left", time.tv_sec);
      notes.note("less than a second", time.tv_usec > 0 && time.tv_usec < 1'000'000);
    }
    timeval zero{0, 0};
    notes.result("select", c.select(0, nullptr, nullptr, nullptr, &zero));
    notes.note("left", zero.tv_sec + zero.tv_usec);
  });
}

TEST_CASE("select writes back what is left of the time, and pselect does not") {
  same_in_both([](const wait_calls& c, scene_notes& notes) {
    auto pipe = make_pipe();
    const auto ready_later = [&](timeval time) {
      number_set in;
      in.add(pipe.reader.get());
      const once_asleep writes([&] { send_byte(pipe.writer.get()); });
      const timeval before = time;
      const auto begin = std::chrono::steady_clock::now();
      notes.result("select", c.select(pipe.reader.get() + 1, in.get(), nullptr, nullptr, &time));
      const auto took = std::chrono::steady_clock::now() - begin;
      char byte = 0;
      notes.result("read", ::read(pipe.reader.get(), &byte, 1));
      const auto left = std::chrono::seconds(time.tv_sec) + std::chrono::microseconds(time.tv_usec);
      const auto all = std::chrono::seconds(before.tv_sec) + std::chrono::microseconds(before.tv_usec);
      notes.note("some of it has passed", left < all);
      notes.note("not more than has", all - left <= took + 1us);
      notes.note("as much as it was seen waiting", all - left >= 4ms);
    };
    ready_later({9, 0});
    ready_later({2, 999'999});
    number_set out;
    out.add(pipe.writer.get());
    timeval at_once{9, 0};
    notes.result("select", c.select(pipe.writer.get() + 1, nullptr, out.get(), nullptr, &at_once));
    notes.note("seconds", at_once.tv_sec);
    notes.note("nearly a second", at_once.tv_usec > 900'000);
    timeval over{0, 4000};
    note_wait(notes, 4ms, [&] { notes.result("select", c.select(0, nullptr, nullptr, nullptr, &over)); });
    notes.note("left", over.tv_sec + over.tv_usec);
    const timespec kept{0, 4'000'000};
    note_wait(notes, 4ms,
              [&] { notes.result("pselect", c.pselect(0, nullptr, nullptr, nullptr, &kept, nullptr)); });
    notes.note("kept", kept.tv_nsec);
    for (const timespec& bad : {timespec{-1, 0}, timespec{0, 1'000'000'000}}) {
      notes.result("pselect", c.pselect(0, nullptr, nullptr, nullptr, &bad, nullptr));
    }
  });
}

TEST_CASE("the third set tells of urgent data, and only of that") {
  same_in_both([](const wait_calls& c, scene_notes& notes) {
    const auto [client, server] = annulet::test::connected_pair();
    const int fd = server.get();
    number_set except;
    except.add(fd);
    timeval some{0, 10'000};
    {
      const later sends([&] { require_ok(static_cast<int>(::send(client.get(), "x", 1, 0)), "send"); }, 1ms);
      notes.result("select", c.select(fd + 1, nullptr, nullptr, except.get(), &some));
      notes.note(except.text());
    }
    number_set in;
    in.add(fd);
    except.add(fd);
    char byte = 0;
    notes.result("recv", ::recv(fd, &byte, 1, 0));
    const later sends([&] { require_ok(static_cast<int>(::send(client.get(), "!", 1, MSG_OOB)), "send"); });
    notes.result("select", c.select(fd + 1, nullptr, nullptr, except.get(), nullptr));
    notes.note("urgent", FD_ISSET(fd, except.get()));
  });
}

TEST_CASE("a hang-up is no room to write, and keeps no fiber busy") {
  same_in_both([](const wait_calls& c, scene_notes& notes) {
    auto pipe = make_pipe();
    pipe.writer.close();
    number_set out;
    out.add(pipe.reader.get());
    timeval some{0, 20'000};
    const auto begin = annulet::test::thread_cpu();
    note_wait(notes, 20ms, [&] {
      notes.result("select", c.select(pipe.reader.get() + 1, nullptr, out.get(), nullptr, &some));
    });
    notes.note("busy", annulet::test::thread_cpu() - begin > 15ms);
    number_set in;
    in.add(pipe.reader.get());
    notes.result("select", c.select(pipe.reader.get() + 1, in.get(), out.get(), nullptr, nullptr));
  });
}

TEST_CASE("select refuses what the kernel refuses, and touches no more than that does") {
  same_in_both([](const wait_calls& c, scene_notes& notes) {
    const page_before_nothing page;
    auto pipe = make_pipe();
    const int fd = pipe.reader.get();
    REQUIRE(fd < 64);
    timeval time{0, 3000};
    const auto with_time = [&](auto&& call) {
      time = {0, 3000};
      call();
    };
    with_time([&] { notes.result("negative", c.select(-1, nullptr, nullptr, nullptr, &time)); });
    auto* const last = static_cast<fd_set*>(page.last(sizeof(long)));
    std::memset(last, 0, sizeof(long));
    with_time([&] { notes.result("a set of a word", c.select(64, last, nullptr, nullptr, &time)); });
    with_time([&] { notes.result("one bit more", c.select(65, last, nullptr, nullptr, &time)); });
    with_time([&] { notes.result("one bit more", c.select(65, nullptr, nullptr, last, &time)); });
    auto* const nowhere = reinterpret_cast<fd_set*>(16);
    with_time([&] { notes.result("nowhere", c.select(1, nowhere, nullptr, nullptr, &time)); });
    with_time([&] { notes.result("nowhere, of nothing", c.select(0, nowhere, nullptr, nullptr, &time)); });
    number_set in;
    in.add(fd);
    with_time([&] { notes.result("one of two", c.select(fd + 1, in.get(), nowhere, nullptr, &time)); });
    notes.note("as before", FD_ISSET(fd, in.get()));
    // The kernel looks at no more than a process may have open.
    number_set all(1 << 22);
    all.add(fd).add(1 << 21);
    with_time(
        [&] { notes.result("beyond all numbers", c.select(1 << 22, all.get(), nullptr, nullptr, &time)); });
    all.add(fd);
    const later writes([&] { send_byte(pipe.writer.get()); });
    notes.result("beyond all numbers",
                 c.select(std::numeric_limits<int>::max(), all.get(), nullptr, nullptr, nullptr));
    notes.note("found", FD_ISSET(fd, all.get()));
    notes.note("looked at", FD_ISSET((1 << 21), all.get()));
    const timespec some{0, 1'000'000};
    notes.result("a bad mask",
                 c.pselect(0, nullptr, nullptr, nullptr, &some, reinterpret_cast<const sigset_t*>(16)));
  });
}

TEST_CASE("a descriptor that another fiber closes ends a select with EBADF") {
  annulet::hub home;
  auto pipe = make_pipe();
  const int fd = pipe.reader.release();
  auto closer = annulet::spawn([&] { annulet::close(fd); });
  number_set in;
  in.add(fd);
  CHECK(annulet_select(fd + 1, in.get(), nullptr, nullptr, nullptr) == -1);
  CHECK(errno == EBADF);
  CHECK(FD_ISSET(fd, in.get()));
  closer.get();
}
