#include <annulet/runtime/shared_mutex.hpp>

#include <annulet/runtime/errors.hpp>
#include <annulet/runtime/fiber.hpp>
#include <annulet/runtime/this_fiber.hpp>

#include "support/cancelled.hpp"
#include "support/driven_clock.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <cstddef>
#include <mutex>
#include <optional>
#include <shared_mutex>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

using annulet::shared_mutex;
using annulet::spawn;
using annulet_test::driven;
using annulet_test::killed_in;
namespace this_fiber = annulet::this_fiber;
using namespace std::chrono_literals;

namespace {

// Fibers that note when they come in, in capitals, and when they leave.
class crowd {
 public:
  explicit crowd(shared_mutex& m) : mutex_(m) {}

  void reader(char name) {
    all_.push_back(spawn([this, name] {
      const std::shared_lock lock(mutex_);
      stay(name);
    }));
  }
  void writer(char name) {
    all_.push_back(spawn([this, name] {
      const std::unique_lock lock(mutex_);
      stay(name);
    }));
  }
  annulet::fiber<void>& last() { return all_.back(); }
  std::string history() {
    for (auto& one : all_) {
      one.join();
    }
    return history_;
  }

 private:
  void stay(char name) {
    history_ += static_cast<char>(name - 'a' + 'A');
    this_fiber::sleep_for(1ms);
    history_ += name;
  }

  shared_mutex& mutex_;
  std::string history_;
  std::vector<annulet::fiber<void>> all_;
};

}  // namespace

TEST_CASE("readers share it, a writer has it alone, and all come in the order in which they asked") {
  driven world;
  shared_mutex m;
  crowd all(m);
  for (const char name : {'a', 'b'}) {
    all.reader(name);
  }
  all.writer('w');
  for (const char name : {'c', 'd'}) {
    all.reader(name);
  }
  all.writer('x');
  all.writer('y');
  all.reader('e');
  CHECK(all.history() == "ABabWwCDcdXxYyEe");
}

TEST_CASE("a writer that waits holds up readers that come later, and try_lock_shared too") {
  driven world;
  shared_mutex m;
  m.lock_shared();
  auto writer = spawn([&] { const std::unique_lock lock(m); });
  this_fiber::yield();
  spawn([&] {
    CHECK_FALSE(m.try_lock_shared());
    CHECK_FALSE(m.lock_shared(0ms));
    CHECK_FALSE(m.lock_shared(1ms));
    CHECK_FALSE(m.try_lock());
  }).join();
  m.unlock_shared();
  writer.join();
  CHECK(m.try_lock_shared());
  CHECK(m.try_lock_shared());
  CHECK_FALSE(m.try_lock());
  m.unlock_shared();
  m.unlock_shared();
  CHECK(m.try_lock());
  m.unlock();
}

TEST_CASE("readers behind a writer that gives up come in at once") {
  driven world;
  shared_mutex m;
  m.lock_shared();
  bool read = false;
  SUBCASE("killed") {
    auto writer = spawn([&] { return killed_in([&] { m.lock(); }); });
    auto reader = spawn([&] {
      const std::shared_lock lock(m);
      read = true;
    });
    this_fiber::yield();
    writer.kill();
    CHECK(writer.get());
    reader.join();
    CHECK(world.clock.waits == 0);
  }
  SUBCASE("timed out") {
    auto writer = spawn([&] { return std::unique_lock(m, 5ms).owns_lock(); });
    auto reader = spawn([&] {
      const std::shared_lock lock(m, 1h);
      read = lock.owns_lock();
    });
    CHECK_FALSE(writer.get());
    reader.join();
    CHECK(world.clock.since_start() == 5ms);
  }
  CHECK(read);
  m.unlock_shared();
  CHECK(m.try_lock());
  m.unlock();
}

TEST_CASE("one that gave up touches nothing of a mutex that was destroyed before it ran") {
  driven world;
  std::optional<shared_mutex> m(std::in_place);
  m->lock_shared();
  auto killed = spawn([&] { return killed_in([&] { m->lock(); }); });
  auto late = spawn([&] { return m->lock(1ms); });
  auto waits = spawn([&] { m->lock(); });
  this_fiber::yield();
  world.clock.advance(1h);
  CHECK_FALSE(late.join(0ms));
  killed.kill();
  m->unlock_shared();
  m.reset();
  // What is there now is not to be read as a mutex.
  std::fill_n(reinterpret_cast<std::byte*>(&m), sizeof(m), std::byte{0xff});
  CHECK(killed.get());
  CHECK(late.join(1h));
  CHECK_THROWS_AS(waits.get(), std::logic_error);
  std::fill_n(reinterpret_cast<std::byte*>(&m), sizeof(m), std::byte{0});
}

TEST_CASE("whoever was handed it before the kill has it, reader or writer") {
  driven world;
  shared_mutex m;
  m.lock();
  auto reader = spawn([&] {
    const std::shared_lock lock(m);
    return killed_in([] { this_fiber::yield(); });
  });
  auto writer = spawn([&] {
    const std::unique_lock lock(m);
    return killed_in([] { this_fiber::yield(); });
  });
  this_fiber::yield();
  m.unlock();
  reader.kill();
  CHECK(reader.get());
  writer.kill();
  CHECK(writer.get());
  CHECK(m.try_lock());
  m.unlock();
}

TEST_CASE("what cannot work is refused in words and changes nothing") {
  driven world;
  shared_mutex m;
  CHECK_THROWS_WITH_AS(m.unlock(), doctest::Contains("shared_mutex::unlock"), std::logic_error);
  CHECK_THROWS_AS(m.unlock_shared(), std::logic_error);
  m.lock();
  CHECK_THROWS_WITH_AS(m.lock(), doctest::Contains("already"), std::logic_error);
  CHECK_THROWS_AS(m.lock_shared(), std::logic_error);
  CHECK_THROWS_AS(m.unlock_shared(), std::logic_error);
  spawn([&] { CHECK_THROWS_AS(m.unlock(), std::logic_error); }).join();
  std::thread([&] {
    driven another;
    CHECK_THROWS_AS(m.lock(), annulet::wrong_thread);
    CHECK_THROWS_AS(m.lock_shared(), annulet::wrong_thread);
    CHECK_THROWS_AS((void)m.try_lock_shared(), annulet::wrong_thread);
    CHECK_THROWS_AS(m.unlock(), annulet::wrong_thread);
  }).join();
  m.unlock();
  m.lock_shared();
  CHECK_THROWS_AS(m.unlock(), std::logic_error);
  m.unlock_shared();
}

TEST_CASE("nobody unlocks for a reader, and a reader that would wait for itself is told so") {
  driven world;
  shared_mutex m;
  m.lock_shared();
  m.lock_shared();  // nobody waits, so it may be had twice
  spawn([&] {
    CHECK_THROWS_WITH_AS(m.unlock_shared(), doctest::Contains("does not have it for reading"),
                         std::logic_error);
  }).join();
  CHECK_THROWS_WITH_AS(m.lock(), doctest::Contains("would wait for itself"), std::logic_error);
  auto writer = spawn([&] { const std::unique_lock lock(m); });
  this_fiber::yield();
  CHECK_THROWS_WITH_AS(m.lock_shared(), doctest::Contains("would wait for itself"), std::logic_error);
  m.unlock_shared();
  CHECK_FALSE(writer.done());
  m.unlock_shared();
  writer.join();
  CHECK_THROWS_AS(m.unlock_shared(), std::logic_error);
}

TEST_CASE("fibers that wait when it is destroyed are told") {
  driven world;
  std::optional<shared_mutex> m(std::in_place);
  m->lock();
  auto writer = spawn([&] { m->lock(); });
  auto reader = spawn([&] { m->lock_shared(); });
  this_fiber::yield();
  m.reset();
  CHECK_THROWS_WITH_AS(writer.get(), doctest::Contains("destroyed"), std::logic_error);
  CHECK_THROWS_WITH_AS(reader.get(), doctest::Contains("destroyed"), std::logic_error);
}
