// ping_pong: what it costs that two fibers wait for each other, by each means that there is for it.
//
//   annulet_bench ping_pong
//
// Two sides, one of them main, each of which goes on only when the other has acted:
// - channel: an item there and back again through two rendezvous; Boost.Fiber's unbuffered_channel;
// - queue: the same through two queues with room; Boost.Fiber's buffered_channel;
// - mutex: each side in turn locks, yields inside, unlocks and yields, so that every lock has to wait. (With
//   no second yield one side of Boost.Fiber locks again and again, for its unlock hands nothing over.)
// - semaphore: a permit there and back again. Boost.Fiber has none: its mutex, condition variable, a count.
// Fibers of both libraries switch once for each item or permit that they wait for, and three times a lock;
// Boost.Fiber, with its default scheduler on this one thread, once a round to its dispatcher too. Threads on
// the same processor do it by futexes: std::mutex, sem_t, and a slot that two sem_t guard in place of the
// channels. Every item, the count of what was done inside the lock, and that fibers took turns are checked.
#include <annulet/hub/hub.hpp>
#include <annulet/runtime/channel.hpp>
#include <annulet/runtime/fiber.hpp>
#include <annulet/runtime/mutex.hpp>
#include <annulet/runtime/queue.hpp>
#include <annulet/runtime/semaphore.hpp>
#include <annulet/runtime/this_fiber.hpp>

#include <semaphore.h>
#include <boost/fiber/buffered_channel.hpp>
#include <boost/fiber/condition_variable.hpp>
#include <boost/fiber/fiber.hpp>
#include <boost/fiber/mutex.hpp>
#include <boost/fiber/operations.hpp>
#include <boost/fiber/unbuffered_channel.hpp>
#include <cstdint>
#include <mutex>
#include <string>
#include <thread>

#include "benches.hpp"
#include "harness.hpp"

namespace bench {
namespace {

constexpr std::size_t room = 16;  // of the queues; Boost.Fiber wants a power of two

// How each runs the other side, and whether the two take turns for sure.
struct annulet_side {
  static constexpr bool in_turn = true;
  template <class Body>
  explicit annulet_side(Body body) : fiber(annulet::spawn(body)) {}
  void join() { fiber.get(); }
  static void yield() { annulet::this_fiber::yield(); }
  annulet::fiber<void> fiber;
};

struct boost_side {
  static constexpr bool in_turn = true;
  template <class Body>
  explicit boost_side(Body body) : fiber(body) {}
  void join() { fiber.join(); }
  static void yield() { boost::this_fiber::yield(); }
  boost::fibers::fiber fiber;
};

struct thread_side {
  static constexpr bool in_turn = false;
  template <class Body>
  explicit thread_side(Body body) : thread(body) {}
  void join() { thread.join(); }
  static void yield() { std::this_thread::yield(); }
  std::thread thread;
};

// --- the means

struct annulet_semaphore {
  annulet::semaphore permits{0};
  void acquire() { (void)permits.acquire(); }
  void release() { permits.release(); }
};

struct boost_semaphore {
  boost::fibers::mutex mutex;
  boost::fibers::condition_variable more;
  unsigned permits = 0;
  void acquire() {
    std::unique_lock lock(mutex);
    more.wait(lock, [this] { return permits != 0; });
    --permits;
  }
  void release() {
    {
      const std::lock_guard lock(mutex);
      ++permits;
    }
    more.notify_one();
  }
};

struct thread_semaphore {
  thread_semaphore() { ::sem_init(&permits, 0, 0); }
  ~thread_semaphore() { ::sem_destroy(&permits); }
  thread_semaphore(const thread_semaphore&) = delete;
  thread_semaphore& operator=(const thread_semaphore&) = delete;
  void acquire() {
    while (::sem_wait(&permits) != 0) {
    }
  }
  void release() { ::sem_post(&permits); }
  sem_t permits;
};

template <class Passage>
struct annulet_passage {
  Passage items;
  void push(std::uint64_t item) { (void)items.push(item); }
  std::uint64_t pop() { return *items.pop(); }
};

struct annulet_queue : annulet::queue<std::uint64_t> {
  annulet_queue() : queue(room) {}
};

struct boost_channel {
  boost::fibers::unbuffered_channel<std::uint64_t> items;
  void push(std::uint64_t item) { items.push(item); }
  std::uint64_t pop() { return items.value_pop(); }
};

struct boost_queue {
  boost::fibers::buffered_channel<std::uint64_t> items{room};
  void push(std::uint64_t item) { items.push(item); }
  std::uint64_t pop() { return items.value_pop(); }
};

struct thread_slot {
  thread_semaphore full;
  std::uint64_t slot = 0;
  void push(std::uint64_t item) {
    slot = item;
    full.release();
  }
  std::uint64_t pop() {
    full.acquire();
    return slot;
  }
};

// --- the turns

template <class Side, class Passage>
void pass(meter& clock, std::uint64_t operations) {
  Passage there;
  Passage back;
  const std::uint64_t warm_up = operations / 8 + 1;
  Side other([&] {
    for (std::uint64_t i = 0; i < warm_up + operations; ++i) {
      back.push(there.pop() + 1);
    }
  });
  std::uint64_t item = 0;
  for (std::uint64_t i = 0; i < warm_up + operations; ++i) {
    if (i == warm_up) {
      clock.start();
    }
    there.push(item);
    item = back.pop();
  }
  clock.stop(operations);
  other.join();
  if (item != warm_up + operations) {
    fail("ping_pong: an item was lost");
  }
}

template <class Side, class Semaphore>
void permit(meter& clock, std::uint64_t operations) {
  Semaphore there;
  Semaphore back;
  const std::uint64_t warm_up = operations / 8 + 1;
  std::uint64_t seen = 0;
  Side other([&] {
    for (std::uint64_t i = 0; i < warm_up + operations; ++i) {
      there.acquire();
      ++seen;
      back.release();
    }
  });
  for (std::uint64_t i = 0; i < warm_up + operations; ++i) {
    if (i == warm_up) {
      clock.start();
    }
    there.release();
    back.acquire();
    if (seen != i + 1) {
      fail("ping_pong: a permit came too early");
    }
  }
  clock.stop(operations);
  other.join();
}

template <class Side, class Mutex>
void lock(meter& clock, std::uint64_t operations) {
  Mutex mutex;
  std::uint64_t inside = 0;
  int latest = 1;
  const std::uint64_t warm_up = operations / 8 + 1;
  const std::uint64_t each = operations / 2 + 1;
  const auto locks = [&](int side, std::uint64_t times) {
    for (std::uint64_t i = 0; i < times; ++i) {
      mutex.lock();
      const std::uint64_t before = inside;
      if (Side::in_turn && latest == side) {
        fail("ping_pong: one side had a mutex twice while the other waited");
      }
      Side::yield();
      inside = before + 1;
      latest = side;
      mutex.unlock();
      Side::yield();
    }
  };
  Side other([&] { locks(1, warm_up + each); });
  locks(0, warm_up);
  const std::uint64_t before = inside;
  clock.start();
  locks(0, each);
  clock.stop(inside - before);
  other.join();
  if (inside != 2 * (warm_up + each)) {
    fail("ping_pong: two were inside a mutex");
  }
}

void hold(harness& run, const std::string& setting, const std::string& operation, turn_function annulet,
          turn_function boost, turn_function threads) {
  run.hold({.bench = "ping_pong",
            .setting = setting,
            .operation = operation,
            .subject = {"annulet", std::move(annulet)},
            .baselines = {{"Boost.Fiber", std::move(boost), goal::at_least(4.0)},
                          {"threads", std::move(threads)}}});
}

}  // namespace

void bench_ping_pong(harness& run) {
  const annulet::hub hub;
  hold(run, "channel", "an item there and back",
       pass<annulet_side, annulet_passage<annulet::channel<std::uint64_t>>>, pass<boost_side, boost_channel>,
       pass<thread_side, thread_slot>);
  hold(run, "queue", "an item there and back", pass<annulet_side, annulet_passage<annulet_queue>>,
       pass<boost_side, boost_queue>, pass<thread_side, thread_slot>);
  hold(run, "mutex", "a lock that waits", lock<annulet_side, annulet::mutex>,
       lock<boost_side, boost::fibers::mutex>, lock<thread_side, std::mutex>);
  hold(run, "semaphore", "a permit there and back", permit<annulet_side, annulet_semaphore>,
       permit<boost_side, boost_semaphore>, permit<thread_side, thread_semaphore>);
}

}  // namespace bench
