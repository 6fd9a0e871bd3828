// Fibers that wait with a limit, and all that can end the wait at nearly the same time: somebody gives what
// is waited for, the time is over, somebody kills. A volley is many such races at once, so that one look of
// the hub meets several of them.
#pragma once

#include "io_races.hpp"
#include "probe_watch.hpp"
#include "races.hpp"

#include <annulet/hub/hub.hpp>
#include <annulet/runtime/deadline.hpp>
#include <annulet/runtime/fiber.hpp>
#include <annulet/runtime/this_fiber.hpp>

#include <algorithm>
#include <array>
#include <atomic>
#include <bit>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <span>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace annulet::test {

// An assertion of doctest's costs more than a race.
inline void demand(bool holds, const char* otherwise) {
  if (!holds) {
    throw std::runtime_error(otherwise);
  }
}

using item = std::unique_ptr<std::uint64_t>;  // one at most owns it, and knows its number

// The numbers of what is given at one place in one volley. Each turns up once: with who waited, or where it
// was put.
class ledger {
 public:
  std::uint64_t issue() noexcept { return first_ + issued_++; }
  void turns_up(std::uint64_t number) {
    demand(number - first_ < issued_, "there is what nobody gave, or what was given long ago");
    const std::uint64_t bit = std::uint64_t{1} << (number - first_);
    demand((seen_ & bit) == 0, "what was given once is there twice");
    seen_ |= bit;
  }
  // What is in these hands, if anything.
  void turns_up_in(item& hands) {
    if (const item there = std::move(hands)) {
      turns_up(*there);
    }
  }
  void close() {
    demand(seen_ == (std::uint64_t{1} << issued_) - 1, "what was given is lost");
    first_ += issued_;
    issued_ = seen_ = 0;
  }
  [[nodiscard]] std::uint64_t missing() const noexcept {
    return issued_ - std::uint64_t(std::popcount(seen_));
  }

 private:
  std::uint64_t first_ = 1;
  std::uint64_t issued_ = 0;  // below 64
  std::uint64_t seen_ = 0;
};

class place_to_wait;

// One race. Lives on after its fiber, to be asked.
struct attempt {
  place_to_wait* at = nullptr;
  deadline time = deadline::never();
  bool by_guard = false;  // else it is the call's own deadline
  bool alone = false;     // nobody else waits there
  // In no race: it waits behind the others until it is given something, for there is enough for all.
  bool patient = false;
  std::uint64_t gift = 0;
  item given_item{};  // null once it was given
  item got_item{};    // what the wait brought
  std::uint64_t got_number = 0;
  bool holds = false;
  std::atomic<bool> given{false};  // or about to be
  end bound_to_be = end::none;     // what the first of the three has decided, where that can be told
  bool all_had_come = false;       // all three, by the time that the fiber ran
  call_record record{};
  fiber<void> caller{};
};

// What is waited for. All of one kind have the same name.
class place_to_wait {
 public:
  explicit place_to_wait(const char* name) : name_(name) {}
  virtual ~place_to_wait() = default;
  place_to_wait(const place_to_wait&) = delete;
  place_to_wait& operator=(const place_to_wait&) = delete;

  [[nodiscard]] const char* name() const noexcept { return name_; }
  // Whether a gift is the waiter's as soon as it was given, without a look at the kernel or another fiber.
  [[nodiscard]] virtual bool gives_at_once() const noexcept { return true; }
  // Which threads may give.
  [[nodiscard]] virtual racer::place giver() const noexcept { return racer::place::hub; }

  // Before the volley, and for each of its attempts.
  virtual void begin() {}
  virtual void prepare(attempt&) {}
  // Parks. A deadline that comes first is deadline_passed.
  virtual void wait(attempt& a, deadline until) = 0;
  // The last thing that the attempt's fiber does.
  virtual void leave(attempt&) noexcept {}
  virtual void give(attempt& a) = 0;
  // After the volley: all that was given is there, and all is as before.
  virtual void settle(std::span<attempt> attempts) = 0;

 protected:
  ledger numbers_;

 private:
  const char* name_;
};

// Volleys at some places.
class shooting_range : public race_ground {
 public:
  static constexpr std::size_t most_waiters = 3;  // at one place

  explicit shooting_range(const char* races) : race_ground(races, 40'000) {}
  // Nobody is in a race any more, unless the test has failed.
  ~shooting_range() {
    for (attempt& a : attempts_) {
      if (a.caller) {
        a.caller.kill();
        a.caller.join(patience);
      }
    }
  }
  shooting_range(const shooting_range&) = delete;
  shooting_range& operator=(const shooting_range&) = delete;

  void open(std::vector<std::unique_ptr<place_to_wait>> places) {
    places_ = std::move(places);
    attempts_ = std::vector<attempt>(places_.size() * most_waiters);
    racers_.reserve(2 * attempts_.size());
    claim_stacks();
  }
  void close() { places_.clear(); }

  // At least so many races.
  void run(std::uint64_t races) {
    for (std::uint64_t done = 0; done < races;) {
      done += volley();
    }
  }
  void forget() {
    for (auto& [name, of] : counts_) {
      of = {};
    }
  }
  // Of each kind of place, every outcome came often enough; and there were so many in all.
  void check(std::uint64_t races) {
    std::uint64_t all = 0;
    std::uint64_t tight = 0;
    for (const auto& [name, of] : counts_) {
      outcomes listed{std::string(name)};
      std::uint64_t here = 0;
      for (std::size_t i = 0; i < of.ends.size(); ++i) {
        if (of.ends[i] != 0) {
          listed.count(end_names[i], of.ends[i]);
          here += of.ends[i];
        }
      }
      listed.check(here, {"done", "deadline passed", "guard expired", "killed"});
      all += here;
      tight += of.all_had_come;
    }
    std::printf("note: %llu races, in %.1f %% of them all three had come before the fiber ran\n",
                static_cast<unsigned long long>(all),
                100.0 * static_cast<double>(tight) / static_cast<double>(all));
    CHECK(all >= races);
    CHECK(tight * 100 >= all);
  }

 private:
  using clock = std::chrono::steady_clock;
  static constexpr std::size_t window = 90'000;  // nanoseconds

  // As many as are ever in use at once, by callers and racers: the pool keeps them. How many a volley has is
  // left to chance, so that some rounds do not tell.
  void claim_stacks() const {
    std::vector<fiber<void>> all(attempts_.size() + racers_.capacity());
    for (auto& one : all) {
      one = spawn([] {});
    }
    for (auto& one : all) {
      one.join();
    }
  }

  struct tally {
    std::array<std::uint64_t, end_names.size()> ends{};
    std::uint64_t all_had_come = 0;
  };

  std::uint64_t volley() {
    const auto begin = clock::now();
    const auto parked = begin + setting_up_;
    std::size_t used = 0;
    for (const auto& place : places_) {
      place->begin();
      const std::size_t waiters = 1 + dice.below(most_waiters);
      for (std::size_t i = 0; i < waiters; ++i) {
        attempt& a = attempts_[used++];
        a.alone = waiters == 1;
        a.patient = i > 0 && i + 1 == waiters && dice.one_in(2);
        a.time = a.patient ? deadline::never() : parked + std::chrono::nanoseconds(1 + dice.below(window));
        enter(a, *place);
      }
    }
    this_fiber::yield();
    const auto all = std::span(attempts_).first(used);
    setting_up_ = clock::now() - begin;
    shoot(all, parked);
    finish(all);
    return static_cast<std::uint64_t>(std::ranges::count(all, false, &attempt::patient));
  }

  void enter(attempt& a, place_to_wait& place) {
    a.at = &place;
    a.by_guard = dice.one_in(2);
    a.got_number = 0;
    a.holds = a.all_had_come = false;
    a.given = false;
    a.bound_to_be = end::none;
    a.record = {};
    place.prepare(a);
    a.caller = spawn(take_part, std::ref(a));
  }

  static void take_part(attempt& a) {
    const struct leaving {
      attempt& a;
      ~leaving() { a.at->leave(a); }
    } at_the_end{a};
    make_call(
        [&a] {
          const struct noting {
            attempt& a;
            ~noting() { a.all_had_come = a.given && a.record.kill_asked && a.time.reached(); }
          } at_the_end_of_the_wait{a};
          a.at->wait(a, a.by_guard ? deadline::never() : a.time);
        },
        a.by_guard ? a.time : deadline::never(), a.record);
  }

  static void give(attempt& a) {
    if (a.at->gives_at_once()) {
      decide(a, end::done);
    }
    a.given = true;
    a.at->give(a);
  }
  static void kill(attempt& a) {
    decide(a, end::killed);
    a.record.kill_asked = a.record.kill_asked || !a.caller.done();
    a.caller.kill();
  }
  // The time cannot have been first where it has not come yet. But an event of a descriptor may come late,
  // for bytes that were read long ago: whom it has woken is not ended by what comes then.
  static void decide(attempt& a, end what) {
    if (a.alone && !a.given && !a.record.kill_asked && !a.time.reached() && asleep(a.caller)) {
      a.bound_to_be = what;
    }
  }
  static bool asleep(fiber<void>& f) {
    struct revealed : fiber<void> {
      static const detail::control_block* block(fiber<void>& f) { return f.*(&revealed::block_); }
    };
    return revealed::block(f)->parked_on != nullptr;
  }

  void shoot(std::span<attempt> all, clock::time_point parked) {
    racers_.clear();
    for (attempt& a : all) {
      racers_.push_back({[&a] { give(a); }, a.at->giver()});
      if (!a.patient) {
        racers_.push_back({[&a] { kill(a); }});
      }
    }
    if (!dice.one_in(3)) {
      race.run(racers_);
    } else {
      act_without_a_look(parked + std::chrono::nanoseconds(dice.below(window)));
    }
  }
  // The thread stands still until the time of some has come, and then all acts come one after the other.
  void act_without_a_look(clock::time_point begin) {
    for (std::size_t left = racers_.size(); left > 1; --left) {
      std::swap(racers_[left - 1], racers_[dice.below(left)]);
    }
    while (clock::now() < begin) {
    }
    for (const racer& r : racers_) {
      r.act();
      if (dice.one_in(32)) {
        this_fiber::yield();
      }
    }
  }

  void finish(std::span<attempt> all) {
    const deadline patience_ends = patience;
    for (attempt& a : all) {
      demand(a.caller.join(patience_ends), "a wait goes on and on");
      a.caller = {};
      check(a);
      if (a.patient) {
        continue;
      }
      auto& counted = counts_[a.at->name()];
      ++counted.ends[static_cast<std::size_t>(a.record.what)];
      counted.all_had_come += a.all_had_come ? 1U : 0U;
    }
    for (std::size_t first = 0; first < all.size();) {
      std::size_t next = first;
      while (next < all.size() && all[next].at == all[first].at) {
        ++next;
      }
      all[first].at->settle(all.subspan(first, next - first));
      first = next;
    }
    demand(hub.fiber_count() == 0, "a fiber is left");
    demand(this_hub().fibers().timers().empty(), "a timer is left");
  }
  static void check(const attempt& a) {
    const end what = a.record.what;
    demand(what != end::none, "a wait came to nothing");
    demand(what == end::done || !a.patient, "a wait without an end was ended");
    demand(a.bound_to_be == end::none || a.bound_to_be == what, "what came first did not end the wait");
    demand(what != end::killed || a.record.kill_asked, "killed by nobody");
    demand(what != end::timed_out || (!a.by_guard && a.time.reached()), "a deadline that had not come");
    demand(!a.record.kill_pending || a.record.interrupted_later, "a kill that the wait survived is lost");
  }

  std::vector<std::unique_ptr<place_to_wait>> places_;
  std::vector<attempt> attempts_;
  std::vector<racer> racers_;
  std::map<std::string_view, tally> counts_;
  clock::duration setting_up_{0};  // as long as the last time
};

}  // namespace annulet::test
