// dup2 onto a number on which the kernel carries out calls, and what refuses it.
#include <annulet/hub/hub_core.hpp>
#include <annulet/hub/io.hpp>

#include "support/apart.hpp"
#include "support/descriptor_limit.hpp"
#include "support/io_calls.hpp"

#include <doctest/doctest.h>

#include <array>
#include <atomic>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include <sys/stat.h>
#include <sys/syscall.h>

using namespace annulet::test;
using annulet::hub;
using annulet::io_event;
using annulet::spawn;
namespace this_fiber = annulet::this_fiber;

namespace {

int read_error(int fd) {
  std::array<char, 64> room;
  return failure_of([&] { return annulet::read(fd, room, limit); }).error;
}

int dup2_error(int source, int target) {
  return failure_of([&] { return annulet::dup2(source, target); }).error;
}

// All numbers that are free below a limit.
std::vector<descriptor> use_up_numbers(int below) {
  std::vector<descriptor> all;
  for (int fd = 0; (fd = ::dup(STDERR_FILENO)) >= 0;) {
    if (fd >= below) {
      ::close(fd);
      break;
    }
    all.emplace_back(fd);
  }
  return all;
}

}  // namespace

TEST_CASE("dup2 needs no free number, also where a call is in flight on its target") {
  const hub home;
  const auto [master, slave] = make_pty();
  const auto fresh = make_eventfd(7);
  const int number = slave.get();
  auto reader = spawn_parked([&] { return read_error(number); });
  this_fiber::sleep_for(1ms);
  int error = -1;
  {
    const lowered_limit low(64);
    const auto all = use_up_numbers(64);
    error = dup2_error(fresh.get(), number);
  }
  CHECK(error == 0);
  CHECK(reader.get() == EBADF);
  std::uint64_t count = 0;
  CHECK(annulet::read(number, {reinterpret_cast<std::byte*>(&count), sizeof(count)}, limit) == sizeof(count));
  CHECK(count == 7);
}

TEST_CASE("dup2 onto a number that was closed behind the hub's back, with a call in flight on it") {
  const hub home;
  auto [master, slave] = make_pty();
  const auto fresh = make_eventfd();
  const int number = slave.get();
  const auto below = use_up_numbers(number);
  auto reader = spawn_parked([&] { return read_error(number); });
  this_fiber::sleep_for(1ms);
  require_ok(::close(slave.release()), "close");
  CHECK(dup2_error(fresh.get(), number) == 0);
  const descriptor now(number);
  CHECK(is_open(number));
  CHECK(reader.get() == EBADF);
}

TEST_CASE("dup2 onto a number beyond the limit, which was lowered, changes nothing") {
  const hub home;
  const auto [master, slave] = make_pty();
  const auto fresh = make_eventfd();
  const descriptor high(require_ok(::dup2(slave.get(), 500), "dup2"));
  auto reader = spawn_parked([&] { return read_error(high.get()); });
  this_fiber::sleep_for(1ms);
  int error = 0;
  {
    const lowered_limit low(100);
    error = dup2_error(fresh.get(), high.get());
    this_fiber::yield();  // whoever was told would go on now
  }
  CHECK(error == EBADF);
  CHECK_FALSE(reader.done());
  write_text(master.get(), "x\n");
  CHECK(reader.get() == 0);
}

TEST_CASE("dup2 says EBADF where another fiber closes its source while it waits, and the target stays") {
  const hub home;
  const auto [master, slave] = make_pty();
  auto [fresh, peer] = make_socket_pair();
  const int number = slave.get();
  auto reader = spawn_parked([&] { return read_error(number); });
  this_fiber::sleep_for(1ms);
  const int source = fresh.get();
  auto first = spawn([&] { return dup2_error(source, number); });
  auto second = spawn([&] {
    annulet::close(fresh.release());
    return make_eventfd(1);  // the number is another's at once
  });
  const auto other = second.get();
  REQUIRE(other.get() == source);
  CHECK(first.get() == EBADF);
  CHECK(reader.get() == EBADF);
  write_text(master.get(), "mine\n");
  CHECK(read_some(number, limit) == "mine\n");
}

namespace {

// A blocking tty with an owner, a fiber in its read, and a dup2 onto it that waits for that to end.
struct waiting_dup2 {
  pty_pair tty = make_pty();
  socket_pair fresh = make_socket_pair();
  annulet::descriptor owner = adopt(std::move(tty.slave));
  const int number = owner.fileno();
  const int source = fresh.first.get();
  annulet::selector sel;
  annulet::fiber<int> reader = spawn_parked([this] {
    std::array<char, 64> room;
    return failure_of([&] { return owner.read(room, limit); }).error;
  });

  // Gives what the dup2 said, after what was done as soon as it was parked.
  template <class Body>
  int run(Body&& meanwhile) {
    sel.register_(number, io_event::read);
    this_fiber::sleep_for(1ms);
    auto waiting = spawn([this] { return dup2_error(source, number); });
    auto doing = spawn([&] {
      REQUIRE_FALSE(waiting.done());
      meanwhile();
    });
    doing.get();
    const int error = waiting.get();
    CHECK(reader.get() == EBADF);
    return error;
  }
  void check_that_owner_has_it() {
    CHECK(look(sel).empty());
    auto selecting = park_in_select(sel);
    auto next = spawn_parked([this] { return read_some(owner, limit); });
    CHECK_FALSE(selecting.done());
    write_text(tty.master.get(), "mine");
    CHECK(next.get() == "mine");
    write_text(tty.master.get(), "too");
    CHECK(selecting.get() == (event_map{{number, io_event::read}}));
    CHECK(read_some(owner, limit) == "too");
    sel.unregister(number);
    owner = {};
    CHECK_FALSE(is_open(number));
  }
};

}  // namespace

TEST_CASE("a dup2 that fails after it has waited leaves the target to its owner and its selectors") {
  const hub home;
  SUBCASE("the source was closed") {
    waiting_dup2 it;
    CHECK(it.run([&] { annulet::close(it.fresh.first.release()); }) == EBADF);
    it.check_that_owner_has_it();
  }
  SUBCASE("the source was closed by its owner") {
    waiting_dup2 it;
    auto source = adopt(std::move(it.fresh.first));
    CHECK(it.run([&] { source = {}; }) == EBADF);
    it.check_that_owner_has_it();
  }
  SUBCASE("the source was replaced") {
    waiting_dup2 it;
    CHECK(it.run([&] { annulet::dup2(it.fresh.second.get(), it.source); }) == EBADF);
    it.check_that_owner_has_it();
  }
  SUBCASE("the source was closed behind the hub's back") {
    waiting_dup2 it;
    CHECK(it.run([&] { it.fresh.first.close(); }) == EBADF);
    it.check_that_owner_has_it();
  }
}

TEST_CASE("while dup2 waits the target says EBADF, and its owner stays one where the dup2 fails") {
  const hub home;
  waiting_dup2 it;
  const int error = it.run([&] {
    CHECK(failure_of([&] { return read_some(it.owner, 0s); }).error == EBADF);
    CHECK(failure_of([&] { return it.owner.release(); }).error == EBADF);
    CHECK(failure_of([&] { return it.owner.close(), 0; }).error == EBADF);
    CHECK(failure_of([&] { return annulet::close(it.number), 0; }).error == EBADF);
    CHECK(dup2_error(it.fresh.second.get(), it.number) == EBADF);
    annulet::close(it.fresh.first.release());
  });
  CHECK(error == EBADF);
  it.check_that_owner_has_it();
}

TEST_CASE("a reader in line behind one that a dup2 has ended reads on where the dup2 fails") {
  const hub home;
  waiting_dup2 it;
  auto second = spawn_parked([&] { return read_some(it.owner, limit); });
  CHECK(it.run([&] { annulet::close(it.fresh.first.release()); }) == EBADF);
  this_fiber::sleep_for(1ms);
  CHECK_FALSE(second.done());
  write_text(it.tty.master.get(), "mine");
  CHECK(second.get() == "mine");
  it.check_that_owner_has_it();
}

TEST_CASE("dup2 takes no harm where its source is released while it waits, and then takes the target") {
  const hub home;
  waiting_dup2 it;
  auto source = adopt(std::move(it.fresh.first));
  descriptor kept;
  CHECK(it.run([&] { kept = descriptor(source.release()); }) == 0);
  const descriptor target(it.number);
  CHECK(look(it.sel) == (event_map{{it.number, io_event::read}}));  // closed, as poll(2) has it
  CHECK(failure_of([&] { return read_some(it.owner); }).error == EBADF);
  it.owner = {};
  write_text(it.fresh.second.get(), "mine");
  CHECK(read_some(it.number, limit) == "mine");
}

TEST_CASE("an owner that is destroyed while a dup2 onto it waits leaves nothing open but what dup2 makes") {
  const hub home;
  waiting_dup2 it;
  SUBCASE("the dup2 fails") {
    const int error = it.run([&] {
      it.owner = {};
      annulet::close(it.fresh.first.release());
    });
    CHECK(error == EBADF);
    CHECK_FALSE(is_open(it.number));
  }
  SUBCASE("the dup2 succeeds") {
    CHECK(it.run([&] { it.owner = {}; }) == 0);
    const descriptor target(it.number);
    write_text(it.fresh.second.get(), "mine");
    CHECK(read_some(it.number, limit) == "mine");
  }
  CHECK(look(it.sel) == (event_map{{it.number, io_event::read}}));
  CHECK((revents_of(it.tty.master.get(), POLLIN) & POLLHUP) != 0);
}

TEST_CASE("dup2 onto a number that another thread's open has reserved says EBUSY, as dup2(2)") {
  const int status = run_apart(
      [] {
        const std::string path = "/tmp/annulet-fifo-" + std::to_string(::getpid());
        require_ok(::mkfifo(path.c_str(), 0600), "mkfifo");
        std::atomic<pid_t> id{0};
        std::atomic<bool> go{false};
        std::thread opener([&] {
          id = ::gettid();
          go.wait(false);
          ::close(::open(path.c_str(), O_RDONLY));
        });
        while (id == 0) {
          std::this_thread::yield();
        }
        const std::string its_call = "/proc/self/task/" + std::to_string(id) + "/syscall";
        const descriptor call(require_ok(::open(its_call.c_str(), O_RDONLY), "open"));
        const int number = unused_number();
        go = true;
        go.notify_one();
        // Until it waits in its open, which has the number then.
        const std::string waits = std::to_string(SYS_openat) + " ";
        for (std::array<char, 8> text{}; !std::string(text.data()).starts_with(waits);) {
          (void)!::pread(call.get(), text.data(), waits.size(), 0);
        }
        const int plain = ::dup2(STDERR_FILENO, number) < 0 ? errno : 0;
        const int without_hub = dup2_error(STDERR_FILENO, number);
        int with_hub = 0;
        {
          const hub home;
          with_hub = dup2_error(STDERR_FILENO, number);
        }
        const descriptor writer(::open(path.c_str(), O_WRONLY | O_NONBLOCK));
        opener.join();
        ::unlink(path.c_str());
        return plain == EBUSY && without_hub == EBUSY && with_hub == EBUSY ? 0 : 1;
      },
      10);
  CHECK(status == 0);
}
