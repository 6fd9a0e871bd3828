// A parked select to which several things happen at nearly the same time. Each round has one outcome, every
// possible one comes often enough, and the selector is whole afterwards.
//
// ANNULET_RACE_ROUNDS says how many rounds each.

#include "support/races.hpp"
#include "support/files.hpp"

#include <annulet/hub/close.hpp>
#include <annulet/hub/hub.hpp>
#include <annulet/runtime/cancellation.hpp>
#include <annulet/runtime/fiber.hpp>
#include <annulet/selector/selector.hpp>

#include <doctest/doctest.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <cstdint>
#include <exception>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <vector>

using namespace std::chrono_literals;
using annulet::io_event;
using annulet::test::descriptor;
using annulet::test::outcomes;
using annulet::test::race_ground;
using annulet::test::racer;
using annulet::test::soon;
using oracle::selector;

namespace {

using ready_keys = std::vector<selector::ready_type>;

// What a select that was parked came to.
struct result {
  enum class kind { none, ready, timed_out, killed, guarded, closed } what = kind::none;
  ready_keys ready{};
  bool early = false;
};
using kind = result::kind;

// The events that were reported of a descriptor.
io_event reported(const ready_keys& ready, int fd) {
  const auto found = std::ranges::find_if(ready, [&](const auto& one) { return one.key->fd == fd; });
  return found == ready.end() ? io_event::none : found->events;
}

void settle(result& into, kind what) {
  if (into.what != kind::none) {
    throw std::logic_error("one select had two outcomes");
  }
  into.what = what;
}

// The body of the fiber that parks. `guard` bounds it from outside the call, `until` within.
void select_once(selector& sel, annulet::deadline until, annulet::deadline guard_until, result& into) {
  std::optional<annulet::timeout> guard;
  if (!guard_until.is_never()) {
    guard.emplace(guard_until);
  }
  try {
    sel.select(into.ready, until);
    into.early = into.ready.empty() && !until.reached();
    settle(into, into.ready.empty() ? kind::timed_out : kind::ready);
  } catch (const annulet::timeout_expired& e) {
    settle(into, guard && e.is(*guard) ? kind::guarded : kind::none);
  } catch (const annulet::fiber_killed&) {
    settle(into, kind::killed);
    throw;
  } catch (const std::runtime_error& e) {
    settle(into, std::string(e.what()).ends_with("selector is closed") ? kind::closed : kind::none);
  }
}

class event_file {
 public:
  [[nodiscard]] int fd() const noexcept { return file_.get(); }
  void set() const {
    const std::uint64_t one = 1;
    annulet::test::require_ok(static_cast<int>(::write(fd(), &one, sizeof(one))), "write");
  }
  void clear() const {
    std::uint64_t count = 0;
    [[maybe_unused]] const auto got = ::read(fd(), &count, sizeof(count));
  }
  // Closed elsewhere.
  void gone() noexcept { file_.release(); }

 private:
  descriptor file_{annulet::test::require_ok(::eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC), "eventfd")};
};

// A hub, and a selector that watches some sockets besides what the round is about.
class arena : public race_ground {
 public:
  explicit arena(const char* test) : race_ground(test, 2'000), counts(test) {
    for (auto& pair : others_) {
      pair = annulet::test::make_socket_pair();
    }
    renew();
  }
  // Nothing is in flight: a bare close of what was unregistered shows at the other end at once.
  ~arena() {
    if (std::uncaught_exceptions() > 0) {
      return;  // the test has failed, and who knows what the selector is
    }
    for (auto& [first, second] : others_) {
      sel->unregister(first.get());
      first.close();
      char c = 0;
      CHECK(::recv(second.get(), &c, 1, MSG_DONTWAIT) == 0);
    }
    CHECK(sel->get_map().empty());
  }
  arena(const arena&) = delete;
  arena& operator=(const arena&) = delete;

  // Another selector in the place of a closed one.
  void renew() {
    sel = std::make_unique<selector>();
    for (const auto& pair : others_) {
      sel->register_(pair.first.get(), io_event::read, 1);
    }
  }

  // Parks a fiber in select, lets the racers loose, and says what it came to. The last racer gets the fiber.
  result run(annulet::deadline until, annulet::deadline guard, std::vector<racer> racers) {
    result into;
    parked = annulet::spawn([&] { select_once(*sel, until, guard, into); });
    annulet::this_fiber::yield();
    race.run(std::move(racers));
    if (!parked.join(10s)) {
      parked.kill();
      parked.join();
      throw std::runtime_error("a parked select slept on");
    }
    if (into.what == kind::none || into.early) {
      throw std::runtime_error("a select came to nothing, or too early");
    }
    return into;
  }

  // The selector selects rightly: what the round was about, and one of the others.
  [[nodiscard]] bool whole(int fd, io_event expected) {
    auto& pair = dice.pick(others_);
    char c = 'x';
    if (::send(pair.second.get(), &c, 1, 0) != 1) {
      return false;
    }
    const auto with = sel->select(0ms);
    bool good = reported(with, pair.first.get()) == io_event::read && reported(with, fd) == expected &&
                with.size() == (expected == io_event::none ? 1U : 2U);
    good = good && ::recv(pair.first.get(), &c, 1, 0) == 1;
    const auto without = sel->select(0ms);
    return good && reported(without, fd) == expected && without.size() + 1 == with.size();
  }

  outcomes counts;
  std::unique_ptr<selector> sel;
  annulet::fiber<void> parked;

 private:
  std::array<annulet::test::socket_pair, 8> others_;
};

}  // namespace

TEST_CASE("a select that is killed while something becomes ready is one or the other") {
  arena a("kill or ready");
  const event_file file;
  for (std::uint64_t round = 0; round < a.rounds; ++round) {
    a.sel->register_(file.fd(), io_event::read, round);
    const result got = a.run(annulet::deadline::never(), annulet::deadline::never(),
                             {{[&] { a.parked.kill(); }}, {[&] { file.set(); }, racer::place::anywhere}});
    a.counts.count(got.what == kind::killed ? "killed" : got.what == kind::ready ? "ready" : "?");
    if (got.what == kind::ready) {
      REQUIRE(got.ready.size() == 1);
      REQUIRE(reported(got.ready, file.fd()) == io_event::read);
    }
    REQUIRE(a.whole(file.fd(), io_event::read));
    a.sel->unregister(file.fd());
    file.clear();
  }
  a.counts.check(a.rounds, {"killed", "ready"});
}

TEST_CASE("a select whose time is over while something becomes ready is one or the other") {
  arena a("timeout or ready");
  const event_file file;
  for (std::uint64_t round = 0; round < a.rounds; ++round) {
    a.sel->register_(file.fd(), io_event::read, round);
    const bool by_guard = a.dice.one_in(2);
    const annulet::deadline time = soon(a.dice);
    bool set = false;
    const result got =
        a.run(by_guard ? annulet::deadline::never() : time, by_guard ? time : annulet::deadline::never(),
              {{[&] {
                  file.set();
                  set = true;
                },
                racer::place::anywhere}});
    a.counts.count(got.what == kind::timed_out ? "timed out"
                   : got.what == kind::guarded ? "guard expired"
                   : got.what != kind::ready   ? "?"
                   : by_guard                  ? "ready before the guard"
                                               : "ready");
    if (got.what == kind::ready) {
      REQUIRE(reported(got.ready, file.fd()) == io_event::read);
    }
    REQUIRE(set);
    REQUIRE(a.whole(file.fd(), io_event::read));
    a.sel->unregister(file.fd());
    file.clear();
  }
  a.counts.check(a.rounds, {"timed out", "guard expired", "ready", "ready before the guard"});
}

TEST_CASE(
    "a select whose selector is closed while something becomes ready or its time is over is one of the "
    "three") {
  arena a("close, timeout or ready");
  const event_file file;
  for (std::uint64_t round = 0; round < a.rounds; ++round) {
    a.sel->register_(file.fd(), io_event::read, round);
    bool before_the_end = false;
    const bool bounded = a.dice.one_in(2);
    const result got = a.run(bounded ? soon(a.dice) : annulet::deadline::never(), annulet::deadline::never(),
                             {{[&] {
                                before_the_end = !a.parked.done();
                                a.sel->close();
                              }},
                              {[&] { file.set(); }, racer::place::anywhere}});
    a.counts.count(got.what == kind::closed      ? "closed"
                   : got.what == kind::timed_out ? "timed out"
                   : got.what == kind::ready     ? "ready"
                                                 : "?");
    REQUIRE(before_the_end == (got.what == kind::closed));
    a.renew();
    a.sel->register_(file.fd(), io_event::read, round);
    REQUIRE(a.whole(file.fd(), io_event::read));
    a.sel->unregister(file.fd());
    file.clear();
  }
  a.counts.check(a.rounds, {"closed", "timed out", "ready"});
}

namespace {

enum class change { registering, modifying, unregistering, closing };
constexpr std::array changes = {change::registering, change::modifying, change::unregistering,
                                change::closing};
constexpr std::array names = {"registered", "modified", "unregistered", "closed"};

// One change to what a parked select watches, against its deadline.
void change_round(arena& a, change what) {
  event_file file;
  const int fd = file.fd();
  if (what != change::registering) {
    a.sel->register_(fd, io_event::read, 1);
  }
  bool before_the_end = false;
  std::vector<racer> racers = {{[&] {
    before_the_end = !a.parked.done();
    switch (what) {
      case change::registering:
        a.sel->register_(fd, io_event::read | io_event::write, 1);
        break;
      case change::modifying:
        a.sel->modify(fd, io_event::read | io_event::write, 1);
        break;
      case change::unregistering:
        a.sel->unregister(fd);
        break;
      case change::closing:
        annulet::close(fd);
        file.gone();
        break;
    }
  }}};
  if (what == change::unregistering) {
    racers.push_back({[&] { file.set(); }, racer::place::anywhere});
  }
  const result got = a.run(soon(a.dice), annulet::deadline::never(), std::move(racers));
  const bool took = got.what == kind::ready;
  a.counts.count(std::string(names[static_cast<std::size_t>(what)]) +
                 (took ? ", reported" : ", not reported"));
  REQUIRE((took || got.what == kind::timed_out));
  // The last look is on the way out: what was changed before is in it, what was not is not.
  if (what == change::unregistering) {
    REQUIRE_FALSE((took && before_the_end));
    REQUIRE(a.whole(fd, io_event::none));
    return;
  }
  REQUIRE(took == before_the_end);
  const io_event expected = what == change::closing ? io_event::read : io_event::write;
  REQUIRE((!took || reported(got.ready, fd) == expected));
  REQUIRE(a.whole(fd, expected));
  a.sel->unregister(fd);
  REQUIRE(a.whole(fd, io_event::none));
}

}  // namespace

TEST_CASE("a change to what a parked select watches is in its result or came too late for it") {
  arena a("change or timeout");
  for (std::uint64_t round = 0; round < a.rounds; ++round) {
    change_round(a, changes[round % changes.size()]);
  }
  std::vector<std::string> possible;
  for (const char* const name : names) {
    possible.push_back(std::string(name) + ", reported");
    possible.push_back(std::string(name) + ", not reported");
  }
  a.counts.check(a.rounds, possible);
}

TEST_CASE("of all that can end a parked select at once exactly one does") {
  arena a("all at once");
  for (std::uint64_t round = 0; round < a.rounds; ++round) {
    event_file file;
    const event_file second;
    const int fd = file.fd();
    a.sel->register_(fd, io_event::read, round);
    const result got = a.run(soon(a.dice), soon(a.dice),
                             {{[&] { a.parked.kill(); }},
                              {[&] { a.sel->close(); }},
                              {[&] { second.set(); }, racer::place::anywhere},
                              {[&] {
                                try {
                                  a.sel->register_(second.fd(), io_event::read, round);
                                } catch (const std::runtime_error&) {  // closed already
                                }
                              }},
                              {[&] {
                                annulet::close(fd);
                                file.gone();
                              }}});
    a.counts.count(got.what == kind::closed      ? "closed"
                   : got.what == kind::timed_out ? "timed out"
                   : got.what == kind::guarded   ? "guard expired"
                   : got.what == kind::killed    ? "killed"
                   : got.what == kind::ready     ? "ready"
                                                 : "?");
    a.renew();
    REQUIRE(a.whole(second.fd(), io_event::none));
  }
  a.counts.check(a.rounds, {"closed", "timed out", "guard expired", "killed", "ready"});
}
