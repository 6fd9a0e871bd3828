#include "life.hpp"

#include "world.hpp"

#include <algorithm>

namespace simulated {

namespace {

moods some_moods(oracle::dice& d) {
  const auto some = [&d](unsigned usual) {
    constexpr std::array<unsigned, 3> factors = {0, 1, 4};
    return usual * d.pick(factors);
  };
  moods m;
  for (unsigned* const one : {&m.late, &m.withheld, &m.reordered, &m.twice, &m.ended, &m.called_off,
                              &m.refused, &m.interrupted, &m.part, &m.too_late, &m.stands}) {
    *one = some(*one);
  }
  return m;
}

annulet::hub_options some_options(oracle::dice& d) {
  annulet::hub_options options;
  options.engine = annulet::engine_choice::uring;
  if (d.one_in(3)) {
    constexpr std::array modes = {annulet::ring_mode::coop_taskrun, annulet::ring_mode::submit_all,
                                  annulet::ring_mode::plain};
    options.mode = d.pick(modes);
  }
  if (d.one_in(2)) {
    options.sq_entries = 1U << d.below(4);
    options.cq_entries = options.sq_entries * 2;
  }
  if (d.one_in(3)) {
    options.look_every = d.one_in(2) ? 1 : 7;
  }
  options.stack_size = 64U << 10U;
  return options;
}

outcome live_once(const script& s) {
  oracle::dice d(s.seed);
  world all(s, d.next());
  {
    kernel linux_here(d.next(), some_moods(d), all);
    {
      annulet::hub home(some_options(d));
      all.run(linux_here, home);
    }
    all.require(linux_here.requests() == 0, "the hub has ended, and the kernel has requests of it");
    all.result.trace = linux_here.trace();
  }
  return std::move(all.result);
}

}  // namespace

std::string script::text() const {
  return std::to_string(seed) + " " + std::to_string(steps) + " " + std::to_string(without);
}

outcome live(const script& s) {
  // What a process finds out once, it finds out in this one: all others are the same whichever came before.
  static const outcome first = live_once({1, 2'000, 0});
  return live_once(s);
}

// First without operations, then with fewer steps, as long as something breaks.
script shortened(const script& s, const std::function<bool(const script&)>& breaks) {
  script best = s;
  for (unsigned i = 0; i < operation_names().size(); ++i) {
    script less = best;
    less.without |= 1U << i;
    if (breaks(less)) {
      best = less;
    }
  }
  for (script less = best; less.steps > 1;) {
    less.steps = less.steps * 3 / 4;
    if (!breaks(less)) {
      break;
    }
    best = less;
  }
  return best;
}

}  // namespace simulated
