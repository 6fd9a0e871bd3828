#include "machine.hpp"

#include <cerrno>
#include <chrono>
#include <system_error>
#include <utility>

namespace oracle {

using annulet::deadline;
using annulet::io_event;
using namespace std::chrono_literals;

namespace {

std::int64_t now() { return std::chrono::steady_clock::now().time_since_epoch() / 1ns; }

// All of them look at least once; where something is ready all of them return it.
deadline some_deadline(dice& d, bool ready) {
  switch (d.below(8)) {
    case 0:
      return -1s;
    case 1:
      return std::chrono::steady_clock::now() - 1s;
    case 2:
      return ready ? deadline(1s) : deadline(0s);
    default:
      return 0s;
  }
}

}  // namespace

void machine::fail(int fd, const std::string& what) {
  std::string text = "seed " + std::to_string(seed_) + ": ";
  text.append(fd < 0 ? "" : "descriptor " + std::to_string(fd) + ": ").append(what).append("\n");
  if (const descriptor* const known = find(fd); known != nullptr) {
    text.append("  now a ").append(name_of(known->of->what)).append("\n");
  }
  throw mismatch(text + history_.about(fd));
}

void machine::count_ready(side& s) {
  for (const auto& [key, events] : s.ready) {
    if (const descriptor* const known = find(key->fd); known != nullptr) {
      ++counts_.ready[static_cast<std::size_t>(known->of->what)];
    }
  }
}

void machine::select_within(side& s, deadline until) {
  for (;;) {
    try {
      s.select_with->select(s.ready, until);
      return;
    } catch (const std::system_error& e) {
      if (mood_ != kernel_mood::refusing || e.code().value() != EINVAL || (s.parked && s.closed_under)) {
        throw;
      }
      ++counts_.refused;
    }
  }
}

void machine::hold_to(side& s, rule by) {
  count_ready(s);
  ++counts_.selects;
  const judgement result = judge(s.keys, s.ready, s.before, s.after, by);
  if (result.wrong.empty()) {
    counts_.judged += result.judged ? 1 : 0;
  } else if (by == rule::exact && comes_late(s, result.fd)) {
    ++counts_.late;
  } else {
    fail(result.fd, result.wrong);
  }
}

// A terminal's bytes are brought by a thread of the kernel's: for a moment they are there and nobody has been
// told. Whether select, asked again, says so soon after; for all other kinds that would be a lost event.
bool machine::comes_late(side& s, int fd) {
  const descriptor* const known = find(fd);
  if (known == nullptr ||
      (known->of->what != kind::terminal_master && known->of->what != kind::terminal_slave)) {
    return false;
  }
  const std::int64_t until = now() + 1'000'000'000;
  while (now() < until) {
    look(s.keys, s.before);
    select_within(s, 0s);
    look(s.keys, s.after);
    if (judge(s.keys, s.ready, s.before, s.after, rule::exact).wrong.empty()) {
      return true;
    }
  }
  return false;
}

void machine::select_step(side& s, dice& d) {
  history_.note("select", -1, s.number);
  look(s.keys, s.before);
  bool ready = false;
  for (std::size_t i = 0; i < s.before.size(); ++i) {
    const registration& key = s.keys.all()[i];
    ready = ready || (key.how != standing::behind && expected(key, s.before[i]) != io_event::none);
  }
  select_within(s, some_deadline(d, ready));
  look(s.keys, s.after);
  hold_to(s, rule::exact);
}

}  // namespace oracle
