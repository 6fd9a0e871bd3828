#include "drop_ins.hpp"

#include "dice.hpp"
#include "questions.hpp"

#include <annulet/selector/posix.h>
#include <annulet/hub/hub.hpp>
#include <annulet/runtime/fiber.hpp>

#include <algorithm>
#include <bit>
#include <cerrno>
#include <chrono>
#include <cstdint>
#include <optional>
#include <set>
#include <stdexcept>
#include <utility>
#include <vector>

#include <poll.h>
#include <sys/epoll.h>
#include <sys/select.h>
#include <unistd.h>

namespace oracle {

namespace {

using std::chrono::microseconds;
using std::chrono::steady_clock;

constexpr std::size_t most_files = 40;
constexpr int never_open = 999;

bool changes_by_itself(kind what) noexcept {
  return what == kind::timer || what == kind::terminal_master || what == kind::terminal_slave;
}

// What an epoll set takes, too.
bool keeps_still(kind what) noexcept {
  return !changes_by_itself(what) && what != kind::epoll && what != kind::regular &&
         what != kind::directory && what != kind::null_device;
}

// What comes to these by packets, or to an epoll set that holds such, may come when the call that sent it has
// returned: on a busy machine another thread of the kernel delivers it.
bool hears_late(kind what) noexcept {
  return what == kind::tcp || what == kind::tcp_listener || what == kind::udp || what == kind::epoll;
}

struct mismatch : std::runtime_error {
  using std::runtime_error::runtime_error;
};

class drop_in_machine {
 public:
  drop_in_machine(std::uint64_t seed, drop_in_tally& counts) : dice_(seed), counts_(counts) { renew_sets(); }
  ~drop_in_machine() {
    for (const descriptor& one : files_) {
      (void)annulet_close(one.fd);
    }
    for (const int set : sets_) {
      ::close(set);
    }
  }
  drop_in_machine(const drop_in_machine&) = delete;
  drop_in_machine& operator=(const drop_in_machine&) = delete;

  void step() {
    switch (dice_.below(12)) {
      case 0:
        return make();
      case 1:
        return let_go();
      case 2:
        return register_some();
      case 3:
      case 4:
      case 5:
        return ask_poll();
      case 6:
      case 7:
        return ask_select();
      case 8:
      case 9:
        return ask_epoll();
      default:
        return disturb();
    }
  }

 private:
  void make() {
    if (files_.size() < most_files) {
      for (descriptor& made : workshop_.make(static_cast<kind>(dice_.below(kinds)), dice_)) {
        if (made.fd < FD_SETSIZE) {
          files_.push_back(std::move(made));
        } else {
          ::close(made.fd);
        }
      }
    }
  }

  void let_go() {
    if (!files_.empty()) {
      const std::size_t which = dice_.below(files_.size());
      closed_ = files_[which].fd;
      (void)annulet_close(closed_);
      files_.erase(files_.begin() + static_cast<std::ptrdiff_t>(which));
    }
  }

  void disturb() {
    if (files_.empty()) {
      return;
    }
    const descriptor& one = dice_.pick(files_);
    switch (dice_.below(6)) {
      case 0:
        return fill(one);
      case 1:
      case 2:
        return drain(one);
      case 3:
        return take(one, 1 + dice_.below(100));
      case 4:
        return twist(one, dice_);
      default:
        return put(one, 1 + dice_.below(100));
    }
  }

  // Of an open file mostly, else of none, or of one that was closed, whose number another may have by now.
  int some_number(bool may_be_negative, bool parks) {
    if (files_.empty() || dice_.one_in(40)) {
      const int closed = parks && may_change_by_itself(closed_) ? never_open : closed_;
      return may_be_negative && dice_.one_in(2) ? -1 - static_cast<int>(dice_.below(5)) : closed;
    }
    const int fd = dice_.pick(files_).fd;
    return parks && may_change_by_itself(fd) ? never_open : fd;  // see judge()
  }

  // Another fiber's doing, while this one may be parked.
  std::optional<annulet::fiber<void>> meanwhile() {
    if (dice_.one_in(3)) {
      return std::nullopt;
    }
    return annulet::spawn([this] {
      if (dice_.one_in(2)) {
        annulet::this_fiber::sleep_for(microseconds(dice_.below(200)));
      }
      for (std::size_t i = dice_.below(12); i != 0; --i) {
        disturb();
      }
    });
  }

  [[noreturn]] static void differ(const char* call, const answer& plain, const answer& ours,
                                  const std::string& where = {}) {
    throw mismatch(std::string(call) + " said " + ours.text() + ", and the plain call " + plain.text() +
                   where);
  }

  [[nodiscard]] const descriptor* known(int fd) const {
    const auto found = std::ranges::find(files_, fd, &descriptor::fd);
    return found == files_.end() ? nullptr : &*found;
  }
  [[nodiscard]] bool may_change_by_itself(int fd) const {
    const descriptor* const one = known(fd);
    return one != nullptr && changes_by_itself(one->of->what);
  }
  [[nodiscard]] bool may_hear_late(int fd) const {
    const descriptor* const one = known(fd);
    return one != nullptr && hears_late(one->of->what);
  }
  [[nodiscard]] std::string names_of(const std::vector<int>& numbers) const {
    std::string all;
    for (const int fd : numbers) {
      const descriptor* const one = known(fd);
      all +=
          std::string(all.empty() ? ", about " : ", ") + (one == nullptr ? "none" : name_of(one->of->what));
    }
    return all;
  }

  // `plain()` and `ours()`: answers. Whatever a fiber does meanwhile, afterwards it has to be as it is then.
  // Of a call that parks nobody can say how things were before its last look: so it is not asked about what
  // changes by itself.
  template <class Question, class Plain, class Ours>
  void judge(const char* call, const Question& what, bool may_park, Plain&& plain, Ours&& ours) {
    const answer before = plain();
    auto other = may_park ? meanwhile() : std::nullopt;
    const answer said = ours(may_park);
    const answer after = plain();
    const answer again = plain();
    if (other) {
      other->join();
    }
    if (after != again || (!may_park && before != after)) {
      ++counts_.moved;
      return;
    }
    if (said != after) {
      const std::vector<int> where =
          said.result < 0 || after.result < 0 ? std::vector<int>() : what.differing(said, after);
      const bool late = may_park && !where.empty() &&
                        std::ranges::all_of(where, [this](int fd) { return may_hear_late(fd); });
      if (!late) {
        differ(call, after, said, names_of(where));
      }
      ++counts_.moved;
      return;
    }
    counts_.refused += said.result < 0 ? 1 : 0;
    counts_.found += before.result > 0 ? 1 : 0;
    counts_.parked += may_park && said.result == 0 ? 1 : 0;
    counts_.woken += may_park && before.result == 0 && said.result > 0 ? 1 : 0;
  }

  void ask_poll() {
    ++counts_.polls;
    poll_question what;
    constexpr std::array<short, 9> bits = {POLLIN,     POLLOUT,    POLLPRI,    POLLRDHUP, POLLRDNORM,
                                           POLLWRNORM, POLLRDBAND, POLLWRBAND, POLLERR};
    const bool parks = dice_.one_in(8);  // more likely to have to, with little to ask about
    for (std::size_t i = parks ? 1 + dice_.below(3) : dice_.below(12); i != 0; --i) {
      short events = parks && dice_.one_in(2) ? POLLIN : 0;
      for (const short bit : bits) {
        events = static_cast<short>(events | (dice_.one_in(parks ? 12 : 4) ? bit : 0));
      }
      what.fds.push_back({some_number(true, parks), events, 0});
    }
    const timespec limit{0, static_cast<long>(1 + dice_.below(300'000))};
    judge(
        "poll", what, parks,
        [&] { return what.ask([](pollfd* fds, nfds_t count) { return ::poll(fds, count, 0); }); },
        [&](bool may_park) {
          return what.ask([&](pollfd* fds, nfds_t count) {
            return may_park ? annulet_ppoll(fds, count, &limit, nullptr) : annulet_poll(fds, count, 0);
          });
        });
    for (const pollfd& one : what.fds) {
      note_ready(one.fd, one.revents != 0);
    }
  }

  void note_ready(int fd, bool ready) {
    const descriptor* const one = known(fd);
    if (ready && one != nullptr) {
      ++counts_.ready[static_cast<std::size_t>(one->of->what)];
    }
  }

  void ask_select() {
    ++counts_.selects;
    select_question what;
    const bool parks = dice_.one_in(8);
    for (std::size_t i = parks ? 1 + dice_.below(3) : dice_.below(12); i != 0; --i) {
      const int fd = some_number(false, parks);
      if (fd >= 0 && fd < FD_SETSIZE) {
        FD_SET(fd, &what.sets[parks ? 0 : dice_.below(3)]);
        what.numbers = std::max(what.numbers, fd + 1);
      }
    }
    const timeval limit{0, static_cast<suseconds_t>(1 + dice_.below(300))};
    judge(
        "select", what, parks,
        [&] {
          return what.ask([](int numbers, fd_set* in, fd_set* out, fd_set* except) {
            timeval none{};
            return ::select(numbers, in, out, except, &none);
          });
        },
        [&](bool may_park) {
          return what.ask([&](int numbers, fd_set* in, fd_set* out, fd_set* except) {
            timeval left = may_park ? limit : timeval{};
            const auto begin = steady_clock::now();
            const int result = annulet_select(numbers, in, out, except, &left);
            const int error = errno;
            judge_time(may_park ? limit : timeval{}, left, result, steady_clock::now() - begin);
            errno = error;
            return result;
          });
        });
  }

  // A plain select's time is never whole again, nothing of it is left when it is over, and else what has not
  // passed.
  static void judge_time(timeval given, timeval left, int result, steady_clock::duration took) {
    const microseconds all(given.tv_usec);
    const microseconds rest(left.tv_usec);
    const bool in_bounds = left.tv_sec == 0 && rest >= microseconds(0) && (rest < all || all.count() == 0);
    const bool over = result == 0 && rest.count() != 0;
    if (!in_bounds || over || all - rest > took + microseconds(2)) {
      throw mismatch("select left " + std::to_string(left.tv_usec) + " of " + std::to_string(given.tv_usec) +
                     " us after " + std::to_string(took.count()) + " ns, result " + std::to_string(result));
    }
  }

  // Both sets alike.
  void register_some() {
    if (files_.empty()) {
      return;
    }
    const descriptor& one = dice_.pick(files_);
    if (!keeps_still(one.of->what)) {
      return;
    }
    constexpr std::array<std::uint32_t, 6> bits = {EPOLLIN,    EPOLLOUT, EPOLLPRI,
                                                   EPOLLRDHUP, EPOLLET,  EPOLLONESHOT};
    std::uint32_t events = 0;
    for (const std::uint32_t bit : bits) {
      events |= dice_.one_in(3) ? bit : 0;
    }
    constexpr std::array operations = {EPOLL_CTL_ADD, EPOLL_CTL_MOD, EPOLL_CTL_DEL};
    const int operation = operations[dice_.below(3)];
    std::array<int, 2> results{};
    for (std::size_t i = 0; i < 2; ++i) {
      epoll_event event{events, {.fd = one.fd}};
      results[i] = result_of(::epoll_ctl(sets_[i], operation, one.fd, &event));
    }
    if (results[0] != results[1]) {
      throw mismatch("two epoll sets that were registered alike are not alike");
    }
  }

  // What was late for one of the sets is told by it, too, if only it is asked again.
  bool comes_to_both(const std::vector<int>& late, const answer& ours, const answer& plain) {
    std::array<std::set<int>, 2> told{descriptors_of(ours), descriptors_of(plain)};
    const auto has_come = [&](int fd) { return told[0].contains(fd) && told[1].contains(fd); };
    for (int attempts = 0; !std::ranges::all_of(late, has_come); ++attempts) {
      if (attempts == 200) {
        return false;
      }
      ::usleep(1000);
      for (std::size_t i = 0; i < told.size(); ++i) {
        told[i].merge(descriptors_of(plain_events(sets_[i])));
      }
    }
    return true;
  }

  void ask_epoll() {
    ++counts_.epolls;
    const bool parks = dice_.one_in(8);
    const timespec limit{0, static_cast<long>(1 + dice_.below(300'000))};
    auto other = parks ? meanwhile() : std::nullopt;
    const answer ours = events_of([&](epoll_event* events, int most) {
      return parks ? annulet_epoll_pwait2(sets_[0], events, most, &limit, nullptr)
                   : annulet_epoll_wait(sets_[0], events, most, 0);
    });
    const answer plain = plain_events(sets_[1]);
    if (other) {
      other->join();
    }
    if (ours != plain) {
      const std::vector<int> where = descriptors_in_one(ours, plain);
      const bool late = ours.result >= 0 && plain.result >= 0 && !where.empty() &&
                        std::ranges::all_of(where, [this](int fd) { return may_hear_late(fd); });
      if (!late || !comes_to_both(where, ours, plain)) {
        differ("epoll_wait", plain, ours, names_of(where));
      }
      ++counts_.moved;
      renew_sets();  // they have not told the same now
    }
  }

  void renew_sets() {
    for (int& set : sets_) {
      if (set >= 0) {
        ::close(set);
      }
      set = ::epoll_create1(EPOLL_CLOEXEC);
    }
  }

  dice dice_;
  drop_in_tally& counts_;
  workshop workshop_;
  std::vector<descriptor> files_;
  std::array<int, 2> sets_{-1, -1};
  int closed_ = never_open;
};

}  // namespace

drop_in_verdict run_drop_ins(std::uint64_t seed, std::uint64_t operations) {
  constexpr std::uint64_t in_a_life = 20'000;
  drop_in_verdict verdict;
  for (; verdict.counts.operations < operations; ++seed) {
    try {
      annulet::hub home;
      drop_in_machine lives(seed, verdict.counts);
      for (std::uint64_t i = std::min(in_a_life, operations - verdict.counts.operations); i != 0; --i) {
        ++verdict.counts.operations;
        lives.step();
      }
    } catch (const std::exception& e) {
      verdict.mismatch = "ANNULET_ORACLE_SEED=" + std::to_string(seed) +
                         " ANNULET_ORACLE_OPERATIONS=" + std::to_string(in_a_life) + " shows: " + e.what();
      return verdict;
    }
  }
  return verdict;
}

std::string figures(const drop_in_tally& counts) {
  std::string text;
  const auto line = [&](const std::string& what, std::uint64_t count) {
    text.append("note: ").append(what).append(" ").append(std::to_string(count)).append("\n");
  };
  line("operations", counts.operations);
  line("polls", counts.polls);
  line("selects", counts.selects);
  line("epoll waits", counts.epolls);
  line("something at once", counts.found);
  line("parked to the end of the time", counts.parked);
  line("woken by a fiber", counts.woken);
  line("refused", counts.refused);
  line("moved, and not judged", counts.moved);
  for (std::size_t i = 0; i < kinds; ++i) {
    line(std::string("ready: ") + name_of(static_cast<kind>(i)), counts.ready[i]);
  }
  return text;
}

}  // namespace oracle
