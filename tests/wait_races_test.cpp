// Ready against the time against a kill: waits for sockets, for queues and for what fibers tell each other.
// Each has one outcome; what was given is in the waiter's hands, or still to be had, and once; and at the end
// nothing is left of any of them. This program counts what operator new has given and not got back.
//
// ANNULET_RACE_ROUNDS says how many races there are in each of the three cases.
#include "support/wait_races.hpp"
#include "support/counted_blocks.hpp"
#include "support/files.hpp"

#include <annulet/hub/io.hpp>
#include <annulet/runtime/channel.hpp>
#include <annulet/runtime/errors.hpp>
#include <annulet/runtime/event.hpp>
#include <annulet/runtime/mutex.hpp>
#include <annulet/runtime/queue.hpp>
#include <annulet/runtime/semaphore.hpp>
#include <annulet/runtime/this_fiber.hpp>

#include <doctest/doctest.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <utility>
#include <vector>

#include <netinet/tcp.h>

using namespace annulet::test;
using annulet::deadline;

namespace {

using places = std::vector<std::unique_ptr<place_to_wait>>;

[[noreturn]] void too_late() { throw annulet::deadline_passed("in time"); }

// --- sockets

enum class ownership : std::uint8_t { descriptor, number };

class socket_place final : public place_to_wait {
 public:
  socket_place(const char* name, socket_pair pair, ownership how)
      : place_to_wait(name), near_(std::move(pair.first)), far_(std::move(pair.second)) {
    if (how == ownership::descriptor) {
      owner_ = annulet::descriptor::adopt(near_.get());
      near_.release();
    }
  }

 private:
  [[nodiscard]] bool gives_at_once() const noexcept override { return false; }
  [[nodiscard]] racer::place giver() const noexcept override { return racer::place::anywhere; }
  void prepare(attempt& a) override { a.gift = numbers_.issue(); }
  void wait(attempt& a, deadline until) override { a.got_number = receive(until); }
  void give(attempt& a) override {
    const auto sent = ::send(far_.get(), &a.gift, sizeof(a.gift), MSG_DONTWAIT | MSG_NOSIGNAL);
    demand(sent == sizeof(a.gift), "a send that was cut short");
  }
  void settle(std::span<attempt> attempts) override {
    for (const attempt& a : attempts) {
      if (a.record.what == end::done) {
        numbers_.turns_up(a.got_number);
      }
    }
    try {
      while (numbers_.missing() > 0) {
        numbers_.turns_up(receive(patience));
      }
    } catch (const annulet::deadline_passed&) {
      // what has not come by now is lost
    }
    numbers_.close();
    std::uint64_t more = 0;
    demand(!annulet::try_recv(file(), {&more, sizeof(more)}), "there are bytes that nobody sent");
    require_no_call_left(file().number(), static_cast<bool>(owner_));
  }

  [[nodiscard]] annulet::file_ref file() const noexcept {
    return owner_ ? annulet::file_ref(owner_) : annulet::file_ref(near_.get());
  }
  std::uint64_t receive(deadline until) {
    std::uint64_t number = 0;
    demand(annulet::recv(file(), {&number, sizeof(number)}, until) == sizeof(number), "a part of a number");
    return number;
  }

  descriptor near_;  // unless it has an owner
  annulet::descriptor owner_;
  descriptor far_;
};

socket_pair prompt_tcp_pair() {
  auto pair = make_tcp_pair();
  const int on = 1;
  require_ok(::setsockopt(pair.second.get(), IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on)), "TCP_NODELAY");
  reset_on_close(pair.first.get());
  return pair;
}

// --- queues

class pop_place final : public place_to_wait {
 public:
  pop_place() : place_to_wait("queue::pop") {}

 private:
  void prepare(attempt& a) override { a.given_item = std::make_unique<std::uint64_t>(numbers_.issue()); }
  void wait(attempt& a, deadline until) override { a.got_item = queue_.pop(until).value_or(nullptr); }
  void give(attempt& a) override { (void)queue_.try_push(std::move(a.given_item)); }
  void settle(std::span<attempt> attempts) override {
    for (attempt& a : attempts) {
      demand(a.given_item == nullptr, "a queue without end took no item");
      demand((a.got_item != nullptr) == (a.record.what == end::done), "a pop without an item");
      numbers_.turns_up_in(a.got_item);
    }
    while (const auto left = queue_.try_pop()) {
      numbers_.turns_up(**left);
    }
    numbers_.close();
  }

  annulet::queue<item> queue_;
};

// Here the waiters bring the items, and room for them is what is given.
class push_place final : public place_to_wait {
 public:
  push_place() : place_to_wait("queue::push") {}

 private:
  void begin() override {
    demand(queue_.try_push(std::make_unique<std::uint64_t>(numbers_.issue())), "an empty queue took no item");
  }
  void prepare(attempt& a) override { a.given_item = std::make_unique<std::uint64_t>(numbers_.issue()); }
  void wait(attempt& a, deadline until) override {
    demand(queue_.push(std::move(a.given_item), until), "closed by nobody");
  }
  void give(attempt& a) override { a.got_item = queue_.try_pop().value_or(nullptr); }
  void settle(std::span<attempt> attempts) override {
    for (attempt& a : attempts) {
      demand((a.given_item == nullptr) == (a.record.what == end::done), "whose item is it");
      numbers_.turns_up_in(a.given_item);
      numbers_.turns_up_in(a.got_item);
    }
    while (const auto left = queue_.try_pop()) {
      numbers_.turns_up(**left);
    }
    numbers_.close();
  }

  annulet::queue<item> queue_{1};
};

class channel_place final : public place_to_wait {
 public:
  channel_place() : place_to_wait("channel::pop") {}

 private:
  void prepare(attempt& a) override { a.given_item = std::make_unique<std::uint64_t>(numbers_.issue()); }
  void wait(attempt& a, deadline until) override { a.got_item = channel_.pop(until).value_or(nullptr); }
  // Where nobody waits any more it stays the giver's.
  void give(attempt& a) override { (void)channel_.try_push(std::move(a.given_item)); }
  void settle(std::span<attempt> attempts) override {
    for (attempt& a : attempts) {
      demand((a.got_item != nullptr) == (a.record.what == end::done), "a pop without an item");
      numbers_.turns_up_in(a.given_item);
      numbers_.turns_up_in(a.got_item);
    }
    demand(!channel_.try_pop(), "a channel has stored something");
    numbers_.close();
  }

  annulet::channel<item> channel_;
};

// --- events

class event_place final : public place_to_wait {
 public:
  event_place() : place_to_wait("event::wait") {}

 private:
  void wait(attempt&, deadline until) override {
    if (!event_.wait(until)) {
      too_late();
    }
  }
  void give(attempt&) override {
    if (!event_.is_set()) {  // once is for all
      event_.set();
    }
  }
  void settle(std::span<attempt>) override {
    demand(event_.is_set(), "an event is not set any more");
    event_.clear();
  }

  annulet::event event_;
};

class semaphore_place final : public place_to_wait {
 public:
  semaphore_place() : place_to_wait("semaphore::acquire") {}

 private:
  void wait(attempt&, deadline until) override {
    if (!permits_.acquire(until)) {
      too_late();
    }
  }
  void give(attempt&) override { permits_.release(); }
  void settle(std::span<attempt> attempts) override {
    std::size_t there = 0;
    for (const attempt& a : attempts) {
      there += a.record.what == end::done ? 1U : 0U;
    }
    while (permits_.try_acquire()) {
      ++there;
    }
    demand(there == attempts.size(), "a permit is lost, or one too many");
  }

  annulet::semaphore permits_{0};
};

// A fiber holds it, and gives it up when it is told to; who gets it keeps it to the end.
class mutex_place final : public place_to_wait {
 public:
  mutex_place() : place_to_wait("mutex::lock") {}

 private:
  [[nodiscard]] bool gives_at_once() const noexcept override { return false; }
  void begin() override {
    give_up_.clear();
    holder_ = annulet::spawn([this] {
      mutex_.lock();
      give_up_.wait();
      mutex_.unlock();
    });
  }
  void wait(attempt& a, deadline until) override {
    if (!mutex_.lock(until)) {
      too_late();
    }
    a.holds = true;
    crowded_ = crowded_ || ++inside_ > 1;
  }
  void leave(attempt& a) noexcept override {
    if (mutex_.held() != a.holds) {
      mixed_up_ = true;
    } else if (a.holds) {
      --inside_;
      mutex_.unlock();
    }
  }
  void give(attempt&) override { give_up_.set(); }
  void settle(std::span<attempt>) override {
    holder_.get();
    demand(!crowded_, "two had a mutex at once");
    demand(!mixed_up_, "a mutex is another's than who was given it");
    demand(mutex_.try_lock(), "a mutex was not given back");
    mutex_.unlock();
  }

  annulet::mutex mutex_;
  annulet::event give_up_;
  annulet::fiber<void> holder_;
  int inside_ = 0;
  bool crowded_ = false;
  bool mixed_up_ = false;
};

constexpr std::size_t of_each_kind = 8;

places sockets() {
  places opened;
  for (std::size_t i = 0; i < of_each_kind; ++i) {
    const auto open = [&](const char* name, socket_pair pair, ownership how) {
      opened.push_back(std::make_unique<socket_place>(name, std::move(pair), how));
    };
    open("recv on a descriptor, Unix", make_socket_pair(), ownership::descriptor);
    open("recv on a number, Unix", make_socket_pair(), ownership::number);
    open("recv on a descriptor, TCP", prompt_tcp_pair(), ownership::descriptor);
    open("recv on a number, TCP", prompt_tcp_pair(), ownership::number);
  }
  return opened;
}

template <class... Places>
places primitives() {
  places made;
  for (std::size_t i = 0; i < of_each_kind; ++i) {
    (made.push_back(std::make_unique<Places>()), ...);
  }
  return made;
}

// What the kernel holds for a hub that has slept: then it listens for other threads, too.
std::size_t held_asleep() {
  annulet::this_fiber::sleep_for(1ms);
  return held_by_the_kernel();
}

void races(const char* name, places (*open)()) {
  const std::size_t descriptors = open_descriptors();
  {
    shooting_range range(name);
    const std::size_t held = held_asleep();
    range.open(open());
    range.run(1'000);  // what is kept for the next time is there
    range.forget();
    const std::ptrdiff_t blocks = blocks_in_use;
    range.run(range.rounds);
    const std::ptrdiff_t blocks_at_the_end = blocks_in_use;
    CHECK(blocks_at_the_end == blocks);
    range.check(range.rounds);
    range.close();
    CHECK(held_asleep() == held);
  }
  CHECK(open_descriptors() == descriptors);
}

}  // namespace

TEST_CASE("a wait for a socket has one outcome, and loses no byte") { races("sockets", sockets); }
TEST_CASE("a wait for a queue has one outcome, and loses no item") {
  races("queues", primitives<pop_place, push_place, channel_place>);
}
TEST_CASE("a wait for an event, a permit or a lock has one outcome, and loses none of them") {
  races("events", primitives<event_place, semaphore_place, mutex_place>);
}
