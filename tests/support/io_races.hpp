// A call on a descriptor, and all that may end it, at nearly the same time. Whatever comes first, the call
// has one outcome, and nothing of it is left behind.
#pragma once

#include "files.hpp"
#include "probe_watch.hpp"
#include "races.hpp"

#include <annulet/hub/close.hpp>
#include <annulet/hub/io.hpp>
#include <annulet/runtime/cancellation.hpp>
#include <annulet/runtime/deadline.hpp>
#include <annulet/runtime/fiber.hpp>

#include <doctest/doctest.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <map>
#include <optional>
#include <stdexcept>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

#include <sys/stat.h>

namespace annulet::test {

// What may end the call, beside the peer that lets it complete.
enum class ending : std::uint8_t { completion, kill, guard, deadline, close, destructor, all };
inline constexpr std::array endings = {ending::completion, ending::kill,  ending::guard,
                                       ending::deadline,   ending::close, ending::destructor,
                                       ending::all};
inline constexpr std::array ending_names = {
    "completion", "kill", "guard", "deadline", "close", "destructor", "all of them at once"};

// What it came to.
enum class end : std::uint8_t { none, done, killed, guarded, timed_out, closed, failed };
inline constexpr std::array end_names = {"none",   "done",  "killed", "guard expired", "deadline passed",
                                         "closed", "failed"};
inline std::string name_of(end e) { return end_names[static_cast<std::size_t>(e)]; }

inline std::vector<std::string> possible_ends(ending e) {
  switch (e) {
    case ending::completion:
      return {"done"};
    case ending::kill:
      return {"done", "killed"};
    case ending::guard:
      return {"done", "guard expired"};
    case ending::deadline:
      return {"done", "deadline passed"};
    case ending::close:
    case ending::destructor:
      return {"done", "closed"};
    case ending::all:
      break;
  }
  return {"done", "killed", "guard expired", "deadline passed", "closed"};
}

// The number that a call is made on: a plain one, or an annulet::descriptor's.
class subject {
 public:
  subject(int fd, bool owned) : number_(fd), file_(file_of(fd)) {
    if (owned) {
      owner_ = annulet::descriptor::adopt(fd);
    }
  }
  // Where nobody has closed it, it is closed without the hub: nothing may be armed for a plain number.
  ~subject() {
    if (!closed_ && !owner_) {
      ::close(number_);
    }
  }
  subject(const subject&) = delete;
  subject& operator=(const subject&) = delete;

  [[nodiscard]] int number() const noexcept { return number_; }
  [[nodiscard]] bool closed() const noexcept { return closed_; }
  [[nodiscard]] bool owned() const noexcept { return static_cast<bool>(owner_); }
  // The number refers to the file still, and to no newer one.
  [[nodiscard]] bool still_open() const noexcept { return file_of(number_) == file_; }
  [[nodiscard]] file_ref ref() const noexcept { return owner_ ? file_ref(owner_) : file_ref(number_); }

  void close(oracle::dice& dice) {
    closed_ = true;
    if (owner_ && dice.one_in(2)) {
      owner_.close();
    } else {
      annulet::close(number_);
    }
  }
  void destroy() {
    closed_ = true;
    owner_ = annulet::descriptor();
  }

 private:
  static ino_t file_of(int fd) noexcept {
    struct stat about {};
    return ::fstat(fd, &about) == 0 ? about.st_ino : 0;
  }

  int number_;
  ino_t file_;
  bool closed_ = false;
  annulet::descriptor owner_;
};

// What has happened to a call, as its fiber and those around it see it.
struct call_record {
  end what = end::none;
  int error = 0;          // of one that failed
  std::size_t moved = 0;  // bytes; for the call to keep
  bool kill_asked = false;
  bool kill_pending = false;  // the call was done after a kill
  bool interrupted_later = false;

  void settle(end e) {
    if (what != end::none) {
      throw std::logic_error("one call had two outcomes");
    }
    what = e;
  }
};

// The body of the fiber that makes the call. What came while the call could not be cut short any more is
// thrown by what parks next.
template <class Call>
void make_call(Call&& call, annulet::deadline guard_until, call_record& record) {
  std::optional<annulet::timeout> guard;
  if (!guard_until.is_never()) {
    guard.emplace(guard_until);
  }
  try {
    call();
    record.settle(end::done);
    record.kill_pending = record.kill_asked;
    try {
      this_fiber::yield();
    } catch (...) {
      record.interrupted_later = true;
      throw;
    }
  } catch (const timeout_expired& e) {
    if (!guard || !e.is(*guard)) {
      throw std::logic_error("a guard expired that nobody set");
    }
    if (record.what == end::none) {
      record.settle(guard_until.reached() ? end::guarded : end::none);
    }
  } catch (const fiber_killed&) {
    if (record.what == end::none) {
      record.settle(end::killed);
    }
    throw;
  } catch (const deadline_passed&) {
    record.settle(end::timed_out);
  } catch (const std::system_error& e) {
    record.error = e.code().value();
    record.settle(record.error == EBADF ? end::closed : end::failed);
  }
}

// A fiber that never stops; whoever stops the thread stops it. A busy machine does so too, but then the
// thread is ready and has no CPU, which the kernel tells.
class ticker {
 public:
  ticker()
      : fiber_(spawn([this] {
          while (!over_) {
            this_fiber::sleep_for(std::chrono::microseconds(20));
            beat();
          }
        })) {}
  ~ticker() {
    over_ = true;
    fiber_.join();
  }
  ticker(const ticker&) = delete;
  ticker& operator=(const ticker&) = delete;

  // Whether it has beaten on; prints what was between the beats. The gap since the last one counts too.
  bool was_steady(const char* beside) {
    beat();
    const double part = seconds(in_long_gaps_) / seconds(last_ - begin_);
    std::printf("note: %s: the longest gap in the ticker's beats %.1f ms, %.1f %% of the time in long ones\n",
                beside, seconds(longest_) * 1e3, part * 100);
    return part < most_in_long_gaps;
  }

 private:
  using clock = std::chrono::steady_clock;
  static constexpr auto long_gap = std::chrono::milliseconds(20);
  static constexpr double most_in_long_gaps = 0.25;

  static double seconds(clock::duration d) { return std::chrono::duration<double>(d).count(); }
  void beat() {
    const auto now = clock::now();
    const auto waited = waited_for_a_cpu();
    const auto gap = std::max(now - last_ - (waited - waited_), clock::duration::zero());
    last_ = now;
    waited_ = waited;
    longest_ = std::max(longest_, gap);
    if (gap > long_gap) {
      in_long_gaps_ += gap;
    }
  }
  // Of this thread, since it began. The second number of the file (proc(5) has it under schedstat).
  [[nodiscard]] std::chrono::nanoseconds waited_for_a_cpu() const {
    std::array<char, 96> text{};
    require_ok(static_cast<int>(::pread(statistics_.get(), text.data(), text.size() - 1, 0)), "pread");
    unsigned long long waited = 0;
    if (std::sscanf(text.data(), "%*u %llu", &waited) != 1) {
      throw std::runtime_error("/proc/thread-self/schedstat says nothing");
    }
    return std::chrono::nanoseconds(waited);
  }

  bool over_ = false;
  const descriptor statistics_{
      require_ok(::open("/proc/thread-self/schedstat", O_RDONLY | O_CLOEXEC), "schedstat")};
  std::chrono::nanoseconds waited_ = waited_for_a_cpu();
  const clock::time_point begin_ = clock::now();
  clock::time_point last_ = begin_;
  clock::duration longest_{0};
  clock::duration in_long_gaps_{0};
  fiber<void> fiber_;
};

// Nothing is left of the calls on a number: no turn, no request, and no watch but that of an owner who is
// there still.
inline void require_no_call_left(int number, bool owned) {
  const detail::fd_state* const file = this_hub().find_state(number);
  if (file != nullptr) {
    REQUIRE_FALSE(file->closing());
    REQUIRE_FALSE(file->has_requests());
    REQUIRE(file->free(detail::direction::reading));
    REQUIRE(file->free(detail::direction::writing));
    REQUIRE(file->in_use() == owned);
  }
}

// Runs rounds of one call, and sees to what must hold after each.
class contest : public race_ground {
 public:
  explicit contest(const char* races) : race_ground(races, 400), races_(races) {}

  // Parks a fiber in the call, lets loose the peers and those who end it, and says what it came to. Where
  // nothing but its completion can end it, `go_on` is called until it is complete.
  template <class Call, class More>
  call_record run(ending how, subject& on, Call&& call, std::vector<racer> peers, More&& go_on) {
    call_record record;
    number_ = on.number();
    const bool all = how == ending::all;
    const deadline until = how == ending::deadline || all ? soon(dice) : deadline::never();
    const deadline guard = how == ending::guard || all ? soon(dice) : deadline::never();
    fiber<void> caller = spawn([&] { make_call([&] { call(until, record); }, guard, record); });
    this_fiber::yield();
    if (how == ending::kill || all) {
      peers.push_back({[&] {
        record.kill_asked = record.kill_asked || !caller.done();
        caller.kill();
      }});
    }
    if (how == ending::close || how == ending::destructor || all) {
      peers.push_back({[&, destroyed = how == ending::destructor] {
        if (destroyed) {
          on.destroy();
        } else {
          on.close(dice);
        }
      }});
    }
    race.run(std::move(peers));
    const deadline patience_ends = patience;
    while (!caller.done() && !patience_ends.reached() && how == ending::completion) {
      go_on();
      this_fiber::sleep_for(std::chrono::microseconds(10));
    }
    if (!caller.join(patience_ends)) {
      throw std::runtime_error("a call slept on");
    }
    check(record, how, on, until);
    return record;
  }

  // Of the last call.
  void require_nothing_left(bool owned) { require_no_call_left(number_, owned); }
  // After all rounds: no call has held up the thread.
  void check_ticker() { CHECK(ticker_.was_steady(races_)); }

 private:
  static void check(const call_record& record, ending how, const subject& on, deadline until) {
    REQUIRE(record.what != end::none);
    REQUIRE((record.what != end::killed || record.kill_asked));
    REQUIRE((record.what != end::timed_out || until.reached()));
    REQUIRE((record.what != end::closed || on.closed()));
    REQUIRE((!record.kill_pending || record.interrupted_later));
    if (how == ending::close || how == ending::destructor || how == ending::all) {
      REQUIRE_FALSE(on.still_open());
    }
  }

  ticker ticker_;
  const char* races_;
  int number_ = -1;
};

// Which ends the calls on each kind of file came to.
class ends_by_file {
 public:
  void count(const std::string& file, bool may_wait, end e) {
    auto& its = rows_[file];
    its.may_wait = may_wait;
    ++its.all;
    ++its.counts[static_cast<std::size_t>(e)];
  }
  // Each has come to each end where it may wait, and to its completion everywhere.
  void check() {
    for (const auto& [file, its] : rows_) {
      CAPTURE(file);
      for (const end e : ends) {
        CAPTURE(name_of(e));
        CHECK(its.has(e));
      }
    }
  }
  // Of 200 calls some eight come to their deadline, so now and then it is one, or none: a file that lacks an
  // end has to have more calls before that says anything.
  [[nodiscard]] bool too_few_to_tell() const {
    constexpr std::uint64_t enough = 2'000;
    return std::ranges::any_of(rows_, [](const auto& named) {
      const row& its = named.second;
      return its.all < enough && !std::ranges::all_of(ends, [&its](end e) { return its.has(e); });
    });
  }

 private:
  static constexpr std::array ends{end::done, end::killed, end::guarded, end::timed_out, end::closed};

  struct row {
    bool may_wait = false;
    std::uint64_t all = 0;
    std::array<std::uint64_t, end_names.size()> counts{};

    [[nodiscard]] bool has(end e) const {
      return (!may_wait && e != end::done) || counts[static_cast<std::size_t>(e)] * 200 >= all;
    }
  };
  std::map<std::string, row> rows_;
};

}  // namespace annulet::test
