// Several fibers in calls on one descriptor, some of which are ended while they wait. The others have their
// turns in the order in which they came, and what one transfers is not interleaved with another's.
//
// ANNULET_RACE_ROUNDS says how many rounds for each call.

#include "support/io_races.hpp"
#include "support/numbered_stream.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <array>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

using namespace annulet::test;
using annulet::deadline;

namespace {

// A fiber in the line, and what becomes of its call.
struct member {
  explicit member(std::vector<char> memory) : bytes(std::move(memory)) {}

  std::vector<char> bytes;
  call_record record{};
  std::size_t ended = 0;  // as which one
  annulet::fiber<void> fiber{};
};

class line {
 public:
  line(contest& c, numbered_stream& s, use u)
      : contest_(c), stream_(s), direction_(u), owned_(c.dice.one_in(2)), on_(s.duplicate(), owned_) {}

  // Runs one round, and counts what its fibers came to.
  void run(outcomes& counts) {
    const std::size_t fibers = 2 + contest_.dice.below(3);
    const bool closes = contest_.dice.one_in(4);
    for (std::size_t i = 0; i < fibers; ++i) {
      join_line(i);
    }
    annulet::this_fiber::yield();
    contest_.race.run(racers(closes));
    const deadline give_up = patience;
    for (const auto& m : members_) {
      while (!m->fiber.done() && !give_up.reached()) {
        if (!closes) {
          peer_acts();
        }
        annulet::this_fiber::sleep_for(std::chrono::microseconds(10));
      }
      if (!m->fiber.join(give_up)) {
        throw std::runtime_error("a call slept on");
      }
      REQUIRE(m->record.what != end::none);
      REQUIRE((m->record.what != end::closed || on_.closed()));
      REQUIRE((m->record.what != end::killed || m->record.kill_asked));
      REQUIRE((m->record.what != end::done || m->record.moved == m->bytes.size()));
      counts.count(name_of(m->record.what));
    }
    require_order();
  }
  [[nodiscard]] std::size_t size() const noexcept { return members_.size(); }

  // What they wrote, one after the other.
  [[nodiscard]] std::string written() const {
    std::string all;
    for (const auto& m : members_) {
      all.append(m->bytes.data(), m->record.moved);
    }
    return all;
  }
  // What the peer has read.
  std::string received;

 private:
  void join_line(std::size_t at) {
    const char tag = static_cast<char>('A' + at);
    members_.push_back(std::make_unique<member>(std::vector<char>(1 + contest_.dice.below(3000), tag)));
    member& m = *members_.back();
    const deadline until = contest_.dice.one_in(4) ? soon(contest_.dice) : deadline::never();
    m.fiber = annulet::spawn(
        [this, &m, until] { make_call([&] { transfer(m, until); }, deadline::never(), m.record); });
  }
  // Bytes count as read when the call is over, whatever its end; the next one in the line begins after that.
  void transfer(member& m, deadline until) {
    struct last_words {
      ~last_words() {
        m.ended = ++l.ended_;
        if (l.direction_ == use::reading) {
          l.in_order_ = l.in_order_ && l.stream_.takes(std::span(m.bytes).first(m.record.moved));
        }
      }
      line& l;
      member& m;
    };
    const last_words then{*this, m};
    if (direction_ == use::reading) {
      (void)annulet::read_exactly(on_.ref(), m.bytes, until, &m.record.moved);
    } else {
      annulet::write_all(on_.ref(), m.bytes, until, &m.record.moved);
    }
  }
  void peer_acts() {
    if (direction_ == use::reading) {
      stream_.peer_acts(1000);
      return;
    }
    std::array<char, 65536> bytes;
    while (true) {
      const auto got = ::read(stream_.peer(), bytes.data(), bytes.size());
      if (got <= 0) {
        return;
      }
      received.append(bytes.data(), static_cast<std::size_t>(got));
    }
  }
  std::vector<racer> racers(bool closes) {
    std::vector<racer> all = {{[this] { peer_acts(); }}, {[this] { peer_acts(); }}};
    for (const auto& m : members_) {
      if (contest_.dice.one_in(3)) {
        all.push_back({[&one = *m] {
          one.record.kill_asked = one.record.kill_asked || !one.fiber.done();
          one.fiber.kill();
        }});
      }
    }
    if (closes) {
      all.push_back({[this] {
        if (owned_ && contest_.dice.one_in(2)) {
          on_.destroy();
        } else {
          on_.close(contest_.dice);
        }
      }});
    }
    return all;
  }
  // Those that were done were so in the order in which they came.
  void require_order() const {
    std::size_t last = 0;
    for (const auto& m : members_) {
      if (m->record.what == end::done) {
        REQUIRE(m->ended > last);
        last = m->ended;
      }
    }
    REQUIRE(in_order_);
  }

  contest& contest_;
  numbered_stream& stream_;
  use direction_;
  bool owned_;
  subject on_;
  std::vector<std::unique_ptr<member>> members_;
  std::size_t ended_ = 0;
  bool in_order_ = true;
};

constexpr std::array files = {medium::tcp, medium::unix_stream, medium::pipe, medium::pty};

// All that was under way before, and then what the fibers say they have written, one after the other.
void require_received(line& l, numbered_stream& stream) {
  const std::size_t before = stream.in_flight();
  const std::string written = l.written();
  const deadline give_up = patience;
  while (l.received.size() < before + written.size() && !give_up.reached()) {
    pollfd more{stream.peer(), POLLIN, 0};
    ::poll(&more, 1, 1);
    l.received += read_text(stream.peer());
  }
  l.received += read_text(stream.peer());
  REQUIRE(l.received.size() == before + written.size());
  REQUIRE(stream.takes(std::span(l.received).first(before)));
  REQUIRE(l.received.substr(before) == written);
}

void races(const char* call, use direction) {
  const std::size_t descriptors = open_descriptors();
  {
    contest c(call);
    outcomes counts(std::string(call) + " in a line");
    std::uint64_t calls = 0;
    std::vector<std::unique_ptr<numbered_stream>> streams;
    for (const medium m : files) {
      streams.push_back(std::make_unique<numbered_stream>(m, direction, true));
      streams.push_back(std::make_unique<numbered_stream>(m, direction, false));
    }
    for (std::uint64_t round = 0; round < c.rounds; ++round) {
      numbered_stream& stream = *streams[round % streams.size()];
      CAPTURE(stream.name());
      CAPTURE(round);
      stream.prepare();
      line l(c, stream, direction);
      l.run(counts);
      calls += l.size();
      if (direction == use::reading) {
        stream.settle();
      } else {
        require_received(l, stream);
      }
      REQUIRE(stream.flags_are_as_before());
    }
    c.check_ticker();
    counts.check(calls, {"done", "killed", "deadline passed", "closed"});
  }
  CHECK(open_descriptors() == descriptors);
}

}  // namespace

TEST_CASE("fibers that read from one descriptor have their turns, whoever of them is ended") {
  races("read_exactly", use::reading);
}

TEST_CASE("fibers that write to one descriptor have their turns, whoever of them is ended") {
  races("write_all", use::writing);
}
