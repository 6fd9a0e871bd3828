// The machine's steps in which a select parks, and what wakes it.

#include "machine.hpp"

#include <annulet/runtime/this_fiber.hpp>

#include <chrono>
#include <functional>
#include <string_view>
#include <system_error>
#include <utility>

namespace oracle {

using annulet::deadline;
using annulet::io_event;
using namespace std::chrono_literals;

namespace {

std::int64_t now() { return std::chrono::steady_clock::now().time_since_epoch() / 1ns; }

}  // namespace

// The first one that poll says is ready; -1 where there is none.
int machine::first_ready(side& s) {
  for (std::size_t i = 0; i < s.after.size(); ++i) {
    const registration& key = s.keys.all()[i];
    if (key.how != standing::behind && expected(key, s.after[i]) != io_event::none) {
      return key.fd;
    }
  }
  return -1;
}

// Consumes, fills, modifies and unregisters until nothing is ready.
bool machine::quieten(side& s) {
  for (int round = 0; round < 4; ++round) {
    look(s.keys, s.before);
    bool quiet = true;
    std::vector<pollfd> loud;
    for (std::size_t i = 0; i < s.before.size(); ++i) {
      const registration& key = s.keys.all()[i];
      if (key.how != standing::behind && expected(key, s.before[i]) != io_event::none) {
        loud.push_back({key.fd, 0, s.before[i].revents});
        quiet = false;
      }
    }
    if (quiet) {
      return true;
    }
    for (const pollfd& one : loud) {
      ++counts_.operations;
      if (round == 3) {
        unregister_one(s, one.fd);
      } else {
        quieten_key(s, one.fd, one.revents);
      }
    }
  }
  return false;
}

void machine::quieten_key(side& s, int fd, short revents) {
  registration& key = *s.keys.find(fd);
  const descriptor* const known = find(fd);
  if (key.how == standing::closed || known == nullptr || (revents & (POLLHUP | POLLERR | POLLNVAL)) != 0) {
    unregister_one(s, fd);
    return;
  }
  const descriptor of = *known;
  if ((revents & POLLIN) != 0 && has(key.events, io_event::read)) {
    history_.note("drain", fd);
    drain(of);
    return;
  }
  if (dice_.one_in(2)) {
    history_.note("fill", fd);
    fill(of);
    return;
  }
  history_.note("modify to read", fd, s.number);
  key.events = io_event::read;
  key.data = next_data_++;
  s.select_with->modify(fd, key.events, key.data);
}

void machine::make_sure(side& s) {
  if (s.closed_under) {
    return;
  }
  for (descriptor& made : workshop_.make(kind::event, dice_)) {
    history_.note("open and register what is ready", made.fd, s.number);
    if (s.keys.find(made.fd) != nullptr) {
      unregister_one(s, made.fd);
    }
    const std::uint64_t data = next_data_++;
    s.select_with->register_(made.fd, io_event::write, data);
    s.keys.add({made.fd, io_event::write, data});
    open_.push_back(std::move(made));
  }
}

// In a fiber, while s is parked: any operations, until one of them makes something ready.
void machine::make_event(side& s, dice& d) {
  std::vector<pollfd> scratch;
  const std::size_t most = 1 + d.below(8);
  for (std::size_t i = 0; i < most; ++i) {
    operate(d);
    if (s.closed_under || (anything_ready(s.keys, scratch) && !d.one_in(4))) {
      return;
    }
    if (d.one_in(6)) {
      annulet::this_fiber::yield();
    }
  }
  if (!s.closed_under && !anything_ready(s.keys, scratch)) {
    make_sure(s);
  }
}

// For another thread: one system call that should make some key ready; if it does not, a function posted to
// the hub does.
std::function<void()> machine::foreign_event(side& s) {
  const auto fall_back = [this, &s] {
    fell_back_ = true;
    handle_.post([this, &s] {
      make_sure(s);
      posted_.set();
    });
  };
  for (int attempt = 0; attempt < 8 && !s.keys.empty(); ++attempt) {
    const registration& key = dice_.pick(s.keys.all());
    const descriptor* const found = find(key.fd);
    if (found == nullptr || key.how != standing::live) {
      continue;
    }
    const descriptor target = *found;
    const auto peer = target.of->peer.lock();
    const descriptor* const other = peer == nullptr ? nullptr : find(peer);
    if (other == nullptr && peer != nullptr) {
      continue;
    }
    const descriptor from = other == nullptr ? target : *other;
    const bool to_read = has(key.events, io_event::read);
    const std::size_t bytes = 1 + dice_.below(500);
    history_.note(to_read ? "put by another thread" : "drain by another thread", key.fd, s.number,
                  static_cast<long>(bytes));
    return [from, to_read, bytes, fall_back, asked = pollfd{key.fd, poll_mask(key.events), 0}]() mutable {
      to_read ? put(from, bytes) : drain(from);
      if (::poll(&asked, 1, from.of->what == kind::timer ? 100 : 0) != 1) {
        fall_back();
      }
    };
  }
  return fall_back;
}

annulet::fiber<void> machine::begin_waking(side& s, waker who) {
  const std::uint64_t seed = dice_.next();
  const auto delay =
      dice_.one_in(3) ? 0us : std::chrono::microseconds(dice_.below(dice_.one_in(8) ? 300 : 40));
  const auto wake = [this, &s, seed] {
    dice d(seed);
    try {
      make_event(s, d);
    } catch (const std::exception&) {
      failure_ = std::current_exception();
    }
  };
  posted_.clear();
  fell_back_ = false;
  switch (who) {
    case waker::fiber:
      return annulet::spawn({.name = "waker"}, [wake, delay, yields = dice_.below(4)] {
        if (delay > 20us) {
          annulet::this_fiber::sleep_for(delay);
        }
        for (std::size_t i = 0; i < yields; ++i) {
          annulet::this_fiber::yield();
        }
        wake();
      });
    case waker::thread:
      stranger_.begin(delay, foreign_event(s));
      break;
    case waker::post:
      stranger_.begin(delay, [this, wake] {
        handle_.post([this, wake] {
          wake();
          posted_.set();
        });
      });
      break;
    case waker::nobody:
      break;
  }
  return {};
}

bool machine::waker_done(const annulet::fiber<void>& helper, waker who) const {
  switch (who) {
    case waker::fiber:
      return helper.done();
    case waker::thread:
      return stranger_.done() && (!fell_back_ || posted_.is_set());
    case waker::post:
      return posted_.is_set();
    default:
      return true;
  }
}

void machine::await_waker(annulet::fiber<void>& helper, waker who) {
  if (who == waker::fiber) {
    helper.get();
  } else if (who != waker::nobody) {
    stranger_.await();
    if (who == waker::post || fell_back_) {
      posted_.wait();
    }
  }
  if (failure_ != nullptr) {
    std::rethrow_exception(std::exchange(failure_, nullptr));
  }
}

// Selects until something that is not closed behind the hub's back is ready, or the time is over.
void machine::wait_parked(side& s, waker who, const annulet::fiber<void>& helper) {
  deadline until = 3s;
  if (who == waker::nobody) {
    until = std::chrono::microseconds(20 + dice_.below(130));
  } else if (dice_.one_in(3)) {
    until = deadline::never();
  }
  const std::int64_t started = now();
  for (;;) {
    s.parked_since = now();
    select_within(s, until);
    const bool rescued = s.parked_since == 0;
    s.parked_since = 0;
    const std::int64_t returned = now();
    const bool woken = waker_done(helper, who);
    look(s.keys, s.after);
    s.before = s.after;
    hold_to(s, rule::no_more);
    if (rescued || (s.ready.empty() && who != waker::nobody && woken)) {
      fail(first_ready(s), "a parked select slept on");
    }
    if (s.ready.empty() && returned < until.nanoseconds()) {
      fail(-1, "a parked select returned empty before its deadline");
    }
    for (const auto& [key, events] : s.ready) {
      if (const registration* const known = s.keys.find(key->fd); known->how != standing::behind) {
        return;
      }
    }
    if (s.ready.empty() || who == waker::nobody) {
      return;
    }
    if (returned - started > 10'000'000'000) {
      fail(-1, "a parked select returns, but not what was made ready");
    }
    if (dice_.one_in(4)) {
      cure_behind(s);
    }
  }
}

void machine::park_step(side& s) {
  if (!quieten(s)) {
    select_step(s, dice_);
    return;
  }
  constexpr std::array wakers = {waker::fiber, waker::fiber, waker::thread, waker::post, waker::nobody};
  const waker who = wakers[dice_.one_in(4) ? 4 : dice_.below(4)];
  history_.note("select and park", -1, s.number, static_cast<long>(who));
  ++counts_.parked;
  ++(who == waker::fiber    ? counts_.woken_by_fiber
     : who == waker::thread ? counts_.woken_by_thread
     : who == waker::post   ? counts_.woken_by_post
                            : counts_.timed_out);
  s.parked = true;
  s.closed_under = false;
  annulet::fiber<void> helper = begin_waking(s, who);
  std::exception_ptr wrong;
  try {
    wait_parked(s, who, helper);
  } catch (const std::exception& e) {
    const bool says_closed = std::string_view(e.what()).find("selector is closed") != std::string_view::npos;
    const bool refused =
        mood_ == kernel_mood::refusing && dynamic_cast<const std::system_error*>(&e) != nullptr;
    if (s.closed_under && (says_closed || refused)) {
      ++counts_.closed_under;
    } else {
      wrong = std::current_exception();
    }
  }
  s.parked = false;
  s.parked_since = 0;
  await_waker(helper, who);
  if (wrong != nullptr) {
    std::rethrow_exception(wrong);
  }
}

}  // namespace oracle
