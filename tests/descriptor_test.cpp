// annulet::descriptor: who owns the file, what a descriptor says that owns none any more, and what its
// readiness costs in system calls.
#include <annulet/hub/descriptor.hpp>

#include "support/apart.hpp"
#include "support/io_calls.hpp"
#include "support/syscalls.hpp"

#include <doctest/doctest.h>

#include <array>
#include <optional>
#include <string>
#include <thread>
#include <type_traits>
#include <utility>

using namespace annulet::test;
using annulet::hub;
using annulet::io_event;
using annulet::selector;
using annulet::spawn;
namespace this_fiber = annulet::this_fiber;

namespace {

std::array<char, 4096> room{};

// That it owns nothing: every call says EBADF.
void owns_nothing(annulet::descriptor& file) {
  CHECK(file.fileno() == -1);
  CHECK_FALSE(file);
  CHECK(failure_of([&] { return file.read(room, limit); }).error == EBADF);
  CHECK(failure_of([&] { return file.write("x"sv, limit); }).error == EBADF);
  CHECK(failure_of([&] { return file.recv(room, limit); }).error == EBADF);
  CHECK(failure_of([&] { return file.send("x"sv, limit); }).error == EBADF);
  CHECK(failure_of([&] { return file.read_exactly(room, limit); }).error == EBADF);
  CHECK(failure_of([&] { return file.write_all("x"sv, limit), 0; }).error == EBADF);
  CHECK(failure_of([&] { return file.accept(limit); }).error == EBADF);
  CHECK(failure_of([&] { return file.try_read(room); }).error == EBADF);
  CHECK(failure_of([&] { return file.try_accept(); }).error == EBADF);
  CHECK(failure_of([&] { return file.connect(annulet::socket_address(), limit), 0; }).error == EBADF);
  CHECK(failure_of([&] { return file.release(); }).error == EBADF);
  const failure closing = failure_of([&] { return file.close(), 0; });
  CHECK(closing.error == EBADF);
  CHECK(closing.words.find("close") != std::string::npos);
}

template <class Error>
bool throws_it(const std::function<void()>& call) {
  try {
    call();
  } catch (const Error&) {
    return true;
  } catch (...) {
  }
  return false;
}

}  // namespace

TEST_CASE("a descriptor is moved, and never copied") {
  static_assert(!std::is_copy_constructible_v<annulet::descriptor>);
  static_assert(!std::is_copy_assignable_v<annulet::descriptor>);
  static_assert(std::is_nothrow_move_constructible_v<annulet::descriptor>);
  static_assert(std::is_nothrow_move_assignable_v<annulet::descriptor>);
  static_assert(!std::is_convertible_v<annulet::descriptor, int>);
  static_assert(!std::is_constructible_v<annulet::descriptor, int>);
}

TEST_CASE("the destructor closes, and the peer sees the end at once") {
  hub home;
  for (const bool waited : {false, true}) {
    auto [mine, peer] = make_tcp_pair();
    const int number = mine.get();
    {
      const annulet::descriptor file = adopt(std::move(mine));
      if (waited) {
        CHECK(passes_deadline([&] { return annulet::recv(file, room, 1ms); }));  // its request stays armed
      }
      CHECK(file.fileno() == number);
      CHECK(try_read(peer.get()) == -EAGAIN);
    }
    CHECK_FALSE(is_open(number));
    CHECK(at_end_of_file(peer.get()));
  }
}

TEST_CASE("a descriptor that was never given a file, moved from, released or closed says EBADF") {
  hub home;
  annulet::descriptor none;
  owns_nothing(none);
  auto [mine, peer] = make_socket_pair();
  annulet::descriptor file = adopt(std::move(mine));
  const int number = file.fileno();
  annulet::descriptor other = std::move(file);
  owns_nothing(file);  // NOLINT(bugprone-use-after-move)
  CHECK(other.fileno() == number);
  file = std::move(other);
  owns_nothing(other);  // NOLINT(bugprone-use-after-move)
  write_text(peer.get(), "abc");
  CHECK(file.recv(room, limit) == 3);
  CHECK(file.release() == number);
  owns_nothing(file);
  CHECK(is_open(number));
  CHECK(try_read(peer.get()) == -EAGAIN);
  file = annulet::descriptor::adopt(number);
  file.close();
  owns_nothing(file);
  CHECK_FALSE(is_open(number));
  CHECK(at_end_of_file(peer.get()));
}

TEST_CASE("a move onto a descriptor closes what it owned, and onto itself nothing") {
  hub home;
  auto one = make_socket_pair(), two = make_socket_pair();
  annulet::descriptor file = adopt(std::move(one.first)), other = adopt(std::move(two.first));
  annulet::descriptor& same = file;
  file = std::move(same);
  CHECK(file);
  file = std::move(other);
  CHECK(at_end_of_file(one.second.get()));
  CHECK_FALSE(at_end_of_file(two.second.get()));
  write_text(two.second.get(), "abc");
  CHECK(file.recv(room, limit) == 3);
}

TEST_CASE("what is not open, and what has an owner, is not adopted, and stays the caller's") {
  hub home;
  for (const int number : {unused_number(), -1, std::numeric_limits<int>::max()}) {
    const failure failed = failure_of([&] { return annulet::descriptor::adopt(number); });
    CHECK(failed.error == EBADF);
    CHECK(failed.names("descriptor::adopt", number));
  }
  auto [mine, peer] = make_socket_pair();
  annulet::descriptor file = adopt(std::move(mine));
  const failure twice = failure_of([&] { return annulet::descriptor::adopt(file.fileno()); });
  CHECK(twice.error == EEXIST);
  CHECK(twice.names("descriptor::adopt", file.fileno()));
  write_text(peer.get(), "abc");
  CHECK(file.recv(room, limit) == 3);
  const int number = file.release();
  file = annulet::descriptor::adopt(number);  // one after the other is right
  file.close();
  auto fresh = make_socket_pair();
  REQUIRE(fresh.first.get() == number);
  file = adopt(std::move(fresh.first));  // and so is another file of that number
  write_text(fresh.second.get(), "de");
  CHECK(file.recv(room, limit) == 2);
}

TEST_CASE("adopting changes no flag, and takes a number over on which a fiber is waiting") {
  hub home;
  auto [mine, peer] = blocking(make_socket_pair());
  const int number = mine.get(), flags = flags_of(number);
  auto waiting = spawn_parked([&] { return annulet::recv(number, room, limit); });
  annulet::descriptor file = adopt(std::move(mine));
  write_text(peer.get(), "abc");
  CHECK(waiting.get() == 3);
  CHECK(flags_of(number) == flags);
  auto again = spawn_parked([&] { return file.recv(room, limit); });
  write_text(peer.get(), "de");
  CHECK(again.get() == 2);
}

TEST_CASE("a descriptor whose number was closed by its number says EBADF, and leaves the next owner alone") {
  hub home;
  for (const bool by_destructor : {false, true}) {
    auto [mine, peer] = make_socket_pair();
    std::optional<annulet::descriptor> file = adopt(std::move(mine));
    const int number = file->fileno();
    annulet::close(number);
    CHECK(at_end_of_file(peer.get()));
    auto fresh = make_socket_pair();
    REQUIRE(fresh.first.get() == number);
    write_text(fresh.second.get(), "abc");
    CHECK(failure_of([&] { return file->recv(room, limit); }).error == EBADF);
    if (by_destructor) {
      file.reset();
    } else {
      CHECK(failure_of([&] { return file->close(), 0; }).error == EBADF);
    }
    CHECK(is_open(number));
    CHECK(annulet::recv(number, room, limit) == 3);
  }
}

TEST_CASE("after a close behind the hub's back the number can be adopted again, once close has said so") {
  hub home;
  auto [mine, peer] = make_socket_pair();
  annulet::descriptor file = adopt(std::move(mine));
  CHECK(passes_deadline([&] { return file.recv(room, 1ms); }));
  const int number = file.fileno();
  require_ok(::close(number), "close");
  CHECK(failure_of([&] { return file.close(), 0; }).error == EBADF);
  CHECK(at_end_of_file(peer.get()));
  auto fresh = make_socket_pair();
  REQUIRE(fresh.first.get() == number);
  annulet::descriptor next = adopt(std::move(fresh.first));
  write_text(fresh.second.get(), "abc");
  CHECK(next.recv(room, limit) == 3);
}

TEST_CASE("dup2 onto a descriptor's number takes it from the descriptor, and its waiters are told") {
  hub home;
  auto one = make_socket_pair(), two = make_socket_pair();
  annulet::descriptor file = adopt(std::move(one.first));
  const int number = file.fileno();
  auto waiting = spawn_parked([&] { return failure_of([&] { return file.recv(room, limit); }).error; });
  annulet::dup2(two.first.get(), number);
  CHECK(at_end_of_file(one.second.get()));
  CHECK(waiting.get() == EBADF);
  CHECK(failure_of([&] { return file.recv(room, limit); }).error == EBADF);
  write_text(two.second.get(), "abc");
  CHECK(annulet::recv(number, room, limit) == 3);
  annulet::close(number);
}

TEST_CASE("on another thread a descriptor says wrong_thread, and the file stays as it is") {
  hub home;
  auto [mine, peer] = make_socket_pair();
  annulet::descriptor file = adopt(std::move(mine));
  std::array<bool, 6> thrown{};
  std::thread([&] {
    hub other;
    thrown = {throws_it<annulet::wrong_thread>([&] { (void)file.recv(room, limit); }),
              throws_it<annulet::wrong_thread>([&] { file.write_all("x"sv, limit); }),
              throws_it<annulet::wrong_thread>([&] { (void)file.try_read(room); }),
              throws_it<annulet::wrong_thread>([&] { (void)file.release(); }),
              throws_it<annulet::wrong_thread>([&] { file.close(); }),
              throws_it<annulet::wrong_thread>([&] { (void)file.accept(limit); })};
  }).join();
  CHECK(thrown == std::array{true, true, true, true, true, true});
  std::thread([&] { thrown[0] = throws_it<annulet::wrong_thread>([&] { (void)file.recv(room); }); }).join();
  CHECK(thrown[0]);
  write_text(peer.get(), "abc");
  CHECK(file.recv(room, limit) == 3);
}

TEST_CASE("released here and adopted there, a file goes to another thread") {
  hub home;
  auto [mine, peer] = make_socket_pair();
  annulet::descriptor file = adopt(std::move(mine));
  CHECK(passes_deadline([&] { return file.recv(room, 1ms); }));
  const int number = file.release();
  std::size_t got = 0;
  write_text(peer.get(), "abc");
  std::thread([&] {
    hub other;
    got = annulet::descriptor::adopt(number).recv(room, limit);
  }).join();
  CHECK(got == 3);
  CHECK(at_end_of_file(peer.get()));
}

TEST_CASE("a descriptor that has outlived its hub says hub_gone, and its destructor still closes") {
  auto [mine, peer] = make_socket_pair();
  {
    std::optional<hub> home(std::in_place);
    annulet::descriptor file = adopt(std::move(mine));
    CHECK(passes_deadline([&] { return file.recv(room, 1ms); }));
    home.reset();
    CHECK_THROWS_AS((void)file.recv(room, limit), annulet::hub_gone);
    CHECK_THROWS_AS(file.close(), annulet::hub_gone);
    CHECK_THROWS_AS((void)file.release(), annulet::hub_gone);
    hub next;  // is not his
    CHECK_THROWS_AS((void)file.send("x"sv, limit), annulet::hub_gone);
    CHECK(try_read(peer.get()) == -EAGAIN);
  }
  CHECK(at_end_of_file(peer.get()));
}

TEST_CASE("fibers that a hub's end finds in calls are killed, and what they own is closed") {
  auto stream = make_socket_pair();
  auto tty = make_pty();
  const std::size_t before = open_descriptors() - 2;
  {
    hub home;
    auto first = spawn_parked([file = adopt(std::move(stream.first))] { return annulet::recv(file, room); });
    auto second = spawn_parked([file = adopt(std::move(tty.slave))] { return annulet::read(file, room); });
    CHECK_FALSE(first.done());
    CHECK_FALSE(second.done());
  }
  CHECK(at_end_of_file(stream.second.get()));
  CHECK(open_descriptors() == before);
}
