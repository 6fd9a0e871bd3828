// What select leaves alone: the sets until there is an answer, what lies behind them, and what others put
// there while it waits. Each scene plainly and as a drop-in.

#include "support/files.hpp"
#include "support/page_before_nothing.hpp"
#include "support/plain_and_parked.hpp"
#include "support/while_waiting.hpp"

#include <doctest/doctest.h>

#include <array>
#include <cerrno>
#include <csignal>
#include <memory>

#include <pthread.h>
#include <sys/select.h>
#include <unistd.h>

using annulet::test::beside;
using annulet::test::descriptor;
using annulet::test::make_pipe;
using annulet::test::require_ok;
using annulet::test::same_in_both;
using annulet::test::scene_notes;
using annulet::test::wait_calls;
using annulet::test::with_act_meanwhile;

namespace {

// An fd_set as programs have it, and what lies behind it.
struct neighbourhood {
  fd_set set;
  std::array<int, 4000> behind;
};

// How many numbers the old idiom asks about.
constexpr int said = 20'000;

bool has(const fd_set& set, int fd) { return FD_ISSET(fd, &set) != 0; }

}  // namespace

TEST_CASE("what lies behind an fd_set is left alone, however many numbers select is told of") {
  same_in_both(
      [](const wait_calls& c, scene_notes& notes) {
        auto [reader, writer] = make_pipe();
        const auto place = std::make_unique<neighbourhood>();
        place->behind.fill(-1);  // every number, if it were asked about
        FD_ZERO(&place->set);
        FD_SET(reader.get(), &place->set);
        const auto act = [&, out = writer.get()] {
          place->behind.fill(7);
          require_ok(static_cast<int>(::write(out, "x", 1)), "write");
        };
        with_act_meanwhile(
            c, act, [&] { notes.result("select", c.select(said, &place->set, nullptr, nullptr, nullptr)); });
        int changed = 0;
        for (const int one : place->behind) {
          changed += one != 7 ? 1 : 0;
        }
        notes.note("changed", changed);
        notes.note("ready", has(place->set, reader.get()));
      },
      beside::nobody);
}

TEST_CASE("select asks about what it was given, whatever is put there while it waits") {
  same_in_both(
      [](const wait_calls& c, scene_notes& notes) {
        auto [asked, writer] = make_pipe();
        auto [other, filled] = make_pipe();
        require_ok(static_cast<int>(::write(filled.get(), "x", 1)), "write");
        fd_set set;
        FD_ZERO(&set);
        FD_SET(asked.get(), &set);
        const auto act = [&] {
          FD_ZERO(&set);
          FD_SET(other.get(), &set);
          require_ok(static_cast<int>(::write(writer.get(), "x", 1)), "write");
        };
        const auto call = [&] { notes.result("select", c.select(100, &set, nullptr, nullptr, nullptr)); };
        with_act_meanwhile(c, act, call);
        notes.note("asked", has(set, asked.get()));
        notes.note("other", has(set, other.get()));
      },
      beside::nobody);
}

TEST_CASE("a select that a signal ends leaves what others have put into its sets") {
  same_in_both(
      [](const wait_calls& c, scene_notes& notes) {
        auto [reader, writer] = make_pipe();
        struct sigaction ours {};
        struct sigaction before {};
        static fd_set* set = nullptr;
        fd_set mine;
        set = &mine;
        FD_ZERO(&mine);
        FD_SET(reader.get(), &mine);
        ours.sa_handler = [](int) { FD_SET(77, set); };
        ::sigaction(SIGUSR1, &ours, &before);
        {
          const annulet::test::once_asleep acts([self = ::pthread_self()] { ::pthread_kill(self, SIGUSR1); });
          notes.result("select", c.select(100, &mine, nullptr, nullptr, nullptr));
        }
        ::sigaction(SIGUSR1, &before, nullptr);
        notes.note("asked", has(mine, reader.get()));
        notes.note("put there", has(mine, 77));
      },
      beside::nobody);
}

TEST_CASE("an fd_set with nothing behind it is enough, however many numbers select is told of") {
  same_in_both(
      [](const wait_calls& c, scene_notes& notes) {
        auto [reader, writer] = make_pipe();
        require_ok(static_cast<int>(::write(writer.get(), "x", 1)), "write");
        const annulet::test::page_before_nothing page;
        auto* const set = static_cast<fd_set*>(page.last(sizeof(fd_set)));
        FD_ZERO(set);
        FD_SET(reader.get(), set);
        timeval none{1, 0};
        notes.result("select", c.select(said, set, nullptr, nullptr, &none));
        notes.note("ready", has(*set, reader.get()));
      },
      beside::nobody);
}
