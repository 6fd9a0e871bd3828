// What the fibers do, and what each call has to keep to.
#include "world.hpp"

#include <annulet/selector/posix.h>
#include <annulet/hub/close.hpp>
#include <annulet/hub/file.hpp>
#include <annulet/hub/io.hpp>
#include <annulet/runtime/cancellation.hpp>
#include <annulet/runtime/this_fiber.hpp>
#include <annulet/selector/selector.hpp>

#include <algorithm>
#include <cerrno>
#include <system_error>
#include <utility>

#include <fcntl.h>
#include <sys/epoll.h>
#include <unistd.h>

namespace simulated {

using annulet::deadline;
using annulet::io_event;
using namespace std::chrono_literals;

namespace {

short interest_of(io_event events) noexcept {
  return static_cast<short>(((events & io_event::read) != io_event::none ? POLLIN : 0) |
                            ((events & io_event::write) != io_event::none ? POLLOUT : 0));
}

// By Python's rule.
io_event ready_of(int revents, io_event asked) noexcept {
  io_event ready = io_event::none;
  if ((revents & ~POLLOUT) != 0) {
    ready = ready | io_event::read;
  }
  if ((revents & ~POLLIN) != 0) {
    ready = ready | io_event::write;
  }
  return ready & asked;
}

// On the way out of a call, however that is left: the kernel has nothing more to write into the frames below.
class frame {
 public:
  frame(world& w, const kernel& k) noexcept : world_(w), kernel_(k) {}
  ~frame() {
    const auto* const end = reinterpret_cast<const char*>(this);
    world_.require(kernel_.requests_in(end - 16'384, end) == 0,
                   "a call was left while the kernel had a request into its frame");
  }
  frame(const frame&) = delete;
  frame& operator=(const frame&) = delete;

 private:
  world& world_;
  const kernel& kernel_;
};

// While it lives, whoever else chooses knows.
class use {
 public:
  explicit use(bool& flag) noexcept : flag_(flag) { flag_ = true; }
  ~use() { flag_ = false; }
  use(const use&) = delete;
  use& operator=(const use&) = delete;

 private:
  bool& flag_;
};

class watch_of {
 public:
  explicit watch_of(std::vector<std::shared_ptr<place>> all) noexcept : all_(std::move(all)) {
    for (const auto& one : all_) {
      ++one->watching;
    }
  }
  ~watch_of() {
    for (const auto& one : all_) {
      --one->watching;
    }
  }
  watch_of(const watch_of&) = delete;
  watch_of& operator=(const watch_of&) = delete;

 private:
  std::vector<std::shared_ptr<place>> all_;
};

}  // namespace

deadline world::some_deadline() {
  switch (dice_.below(4)) {
    case 0:
      return deadline(0ns);
    case 1:
      return deadline(std::chrono::nanoseconds(1 + dice_.below(1'000'000)));
    case 2:
      return deadline(std::chrono::milliseconds(1 + dice_.below(100)));
    default:
      return deadline::never();
  }
}

std::shared_ptr<place> world::some_place() { return places_[dice_.below(places_.size())]; }

std::vector<std::shared_ptr<place>> world::some_places() {
  std::vector<std::shared_ptr<place>> some;
  for (const auto& one : places_) {
    if (dice_.one_in(2)) {
      some.push_back(one);
    }
  }
  return some;
}

void world::replace(const std::shared_ptr<place>& gone) {
  *std::ranges::find(places_, gone) = std::make_shared<place>(dice_);
}

template <class Call>
auto world::attempt(const place& p, deadline until, Call&& call) -> std::optional<decltype(call())> {
  const int before = p.near();
  try {
    return call();
  } catch (const annulet::deadline_passed&) {
    require(until.is_past() || kernel_->now() >= until.nanoseconds(), "a call gave up before its deadline");
  } catch (const std::system_error& e) {
    const int error = e.code().value();
    if (p.near() == before && !(p.far_has_gone() && (error == EPIPE || error == ECONNRESET))) {
      throw;
    }
  }
  return std::nullopt;
}

void world::read(worker&) {
  const auto p = some_place();
  if (!p->can_read() || p->reading) {
    return act_beside(*running_);
  }
  const use here(p->reading);
  const deadline until = some_deadline();
  std::array<std::uint8_t, 64> bytes{};
  const std::size_t room = 1 + dice_.below(bytes.size());
  const waiting told(*this, {{p->near(), POLLIN, 0}}, until);
  const auto got = attempt(*p, until, [&] {
    return annulet::read(p->near(), annulet::mutable_buffer(bytes.data(), room), until);
  });
  if (got && *got == 0) {
    p->require_end();
  } else if (got) {
    p->require_next(bytes.data(), *got);
  }
}

void world::write(worker&) {
  const auto p = some_place();
  if (!p->can_write() || p->writing) {
    return act_beside(*running_);
  }
  const use here(p->writing);
  const deadline until = some_deadline();
  std::array<std::uint8_t, 4096> bytes{};
  const std::size_t count = 1 + dice_.below(bytes.size());
  p->fill(bytes.data(), count);
  const waiting told(*this, {{p->near(), POLLOUT, 0}}, until);
  const auto put = attempt(*p, until, [&] {
    return annulet::write(p->near(), annulet::const_buffer(bytes.data(), count), until);
  });
  p->has_written(put.value_or(0));
}

void world::select(worker&) {
  struct interest {
    std::shared_ptr<place> file;
    int number;
    io_event events;
  };
  constexpr std::array masks = {io_event::read, io_event::write, io_event::read | io_event::write};
  annulet::selector sel;
  std::vector<interest> all;
  const auto chosen = some_places();
  const watch_of held(chosen);
  for (const auto& p : chosen) {
    all.push_back({p, p->near(), dice_.pick(masks)});
    sel.register_(p->near(), all.back().events);
  }
  for (std::size_t rounds = 1 + dice_.below(4); rounds != 0 && !over_; --rounds) {
    const deadline until = all.empty() ? deadline(1ms) : some_deadline();
    std::vector<pollfd> told;
    for (const interest& one : all) {
      if (one.file->near() == one.number) {
        told.push_back({one.number, interest_of(one.events), 0});
      }
    }
    std::vector<annulet::selector::ready_type> ready;
    {
      const waiting here(*this, std::move(told), until);
      ready = sel.select(until);
    }
    const bool exact = kernel_->is_told();
    for (const interest& one : all) {
      const auto found = std::ranges::find_if(ready, [&](const auto& r) { return r.key->fd == one.number; });
      const io_event told_now = found == ready.end() ? io_event::none : found->events;
      if (one.file->near() != one.number) {
        require(told_now == one.events, "a key whose number was closed is not told");
        continue;
      }
      const io_event now = ready_of(poll_at_once(one.number, asked(interest_of(one.events))), one.events);
      require((told_now & now) == told_now, "select told of what is not there");
      require(!exact || told_now == now, "select did not tell of what is there");
    }
    require(!ready.empty() || until.is_past() || kernel_->now() >= until.nanoseconds(),
            "select returned with nothing before its time");
    if (!all.empty() && dice_.one_in(2)) {
      interest& one = dice_.pick(all);
      one.events = dice_.pick(masks);
      (void)sel.modify(one.number, one.events);
    }
    if (!all.empty() && dice_.one_in(4)) {
      sel.unregister(all.back().number);
      all.pop_back();
    }
  }
  if (dice_.one_in(2)) {
    sel.close();
  }
}

void world::poll(worker&) {
  const auto chosen = some_places();
  const watch_of held(chosen);
  constexpr std::array<short, 4> masks = {POLLIN, POLLOUT, POLLIN | POLLOUT, 0};
  std::vector<pollfd> files{{-1, POLLIN, 0}};
  for (const auto& p : chosen) {
    files.push_back({p->near(), dice_.pick(masks), 0});
  }
  const auto numbers = files;
  constexpr std::array waits = {0, 1, 20, -1};
  const int wait = chosen.empty() ? 1 : dice_.pick(waits);
  const deadline until = wait < 0 ? deadline::never() : deadline(std::chrono::milliseconds(wait));
  int found = 0;
  {
    const waiting told(*this, numbers, until);
    found = ::annulet_poll(files.data(), files.size(), wait);
  }
  require(found >= 0 || errno == EINTR || errno == ECANCELED, "poll failed");
  require(found != 0 || kernel_->now() >= until.nanoseconds() || until.is_past(), "poll gave up too early");
  for (std::size_t i = 0; found > 0 && i < chosen.size(); ++i) {
    // One that was closed meanwhile may have been closed before the call had looked it up.
    const pollfd& question = numbers[i + 1];
    require(chosen[i]->near() != question.fd ||
                files[i + 1].revents == poll_at_once(question.fd, asked(question.events)),
            "poll told otherwise than Linux");
  }
}

void world::wait_for_epoll(worker&) {
  const int set = ::epoll_create1(EPOLL_CLOEXEC);
  const auto chosen = some_places();
  const watch_of held(chosen);
  for (const auto& p : chosen) {
    epoll_event event{};
    event.events = dice_.one_in(2) ? EPOLLIN : EPOLLOUT;
    event.data.fd = p->near();
    (void)::epoll_ctl(set, EPOLL_CTL_ADD, p->near(), &event);
  }
  const int wait = dice_.one_in(2) ? 1 : 30;
  const deadline until{std::chrono::milliseconds(wait)};
  std::array<epoll_event, 4> events{};
  int found = 0;
  {
    const waiting told(*this, {{set, POLLIN, 0}}, until);
    const struct closing {
      int fd;
      ~closing() { ::close(fd); }  // where the wait is left by a kill, too
    } at_last{set};
    found = ::annulet_epoll_wait(set, events.data(), static_cast<int>(events.size()), wait);
  }
  require(found >= 0 || errno == EINTR || errno == ECANCELED, "epoll_wait failed");
  require(found != 0 || kernel_->now() >= until.nanoseconds(), "epoll_wait gave up too early");
}

void world::sleep(worker&) {
  const deadline until{std::chrono::nanoseconds(dice_.below(5'000'000))};
  const waiting told(*this, {}, until);
  annulet::this_fiber::sleep_until(until);
  require(kernel_->now() >= until.nanoseconds() || until.is_past(), "a sleep was too short");
}

void world::close(worker&) {
  const auto p = some_place();
  if (p->near() < 0) {
    return;
  }
  const bool in_use = p->reading || p->writing || p->watching != 0;
  const int number = p->near();
  replace(p);
  p->near_is_closed();
  if (!in_use && dice_.one_in(2)) {
    ::close(number);
    kernel_->happened();
  } else if (dice_.one_in(2)) {
    annulet::close(number);
  } else {
    const int null = ::open("/dev/null", O_RDWR | O_CLOEXEC);
    (void)annulet::dup2(null, number);
    ::close(null);
    p->require_far_sees_end();
    ::close(number);
    return;
  }
  p->require_far_sees_end();
}

void world::transfer(worker&) {
  std::array<std::uint8_t, 256> bytes{};
  const std::size_t count = 1 + dice_.below(bytes.size());
  const std::size_t position = dice_.below(disk_size - count);
  const deadline until = some_deadline();
  const frame left(*this, *kernel_);
  const waiting told(*this, {}, deadline::never(), requests_end);
  try {
    if (dice_.one_in(2)) {
      const std::size_t got =
          annulet::pread(disk_, annulet::mutable_buffer(bytes.data(), count), position, until);
      require(got > 0, "pread gave nothing");
      for (std::size_t i = 0; i < got; ++i) {
        require(bytes[i] == byte_at(position + i), "pread gave other bytes");
      }
    } else {
      for (std::size_t i = 0; i < count; ++i) {
        bytes[i] = byte_at(position + i);
      }
      const std::size_t put =
          annulet::pwrite(disk_, annulet::const_buffer(bytes.data(), count), position, until);
      require(put > 0, "pwrite wrote nothing");
    }
  } catch (const annulet::deadline_passed&) {
    require(until.is_past() || kernel_->now() >= until.nanoseconds(),
            "a transfer gave up before its deadline");
  }
}

void world::accept(worker&) {
  const deadline until = some_deadline();
  const frame left(*this, *kernel_);
  const waiting told(*this, {{listener_, POLLIN, 0}}, until, requests_end);
  try {
    const annulet::descriptor made = annulet::accept(listener_, until);
    require(made.fileno() >= 0, "accept gave nothing");
  } catch (const annulet::deadline_passed&) {
    require(until.is_past() || kernel_->now() >= until.nanoseconds(), "accept gave up before its deadline");
  }
}

void world::kill(worker& self) {
  worker& victim = workers_[dice_.below(workers_.size())];
  if (&victim == &self || victim.joined || self.joined) {
    return;
  }
  const use here(victim.joined);
  victim.killed = true;
  victim.killed_at = kernel_->now();
  victim.fiber->kill();
  victim.fiber->join();
  running_ = &self;
  if (!over_) {
    victim.fiber.reset();
    spawn(victim);
  }
}

void world::guard(worker& self) {
  constexpr std::array<operation, 5> calls = {&world::read, &world::write, &world::select, &world::sleep,
                                              &world::transfer};
  const deadline until{std::chrono::nanoseconds(dice_.below(2'000'000))};
  try {
    const annulet::timeout limit(until);
    (this->*dice_.pick(calls))(self);
  } catch (const annulet::timeout_expired&) {
    require(kernel_->now() >= until.nanoseconds() || until.is_past(), "a guard came before its time");
  }
  running_ = &self;
}

void world::act_beside(worker&) {
  for (std::size_t acts = 1 + dice_.below(6); acts != 0; --acts) {
    (void)act();
  }
  if (dice_.one_in(2)) {
    annulet::this_fiber::yield();
  }
}

}  // namespace simulated
